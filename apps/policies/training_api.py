"""`/training/`: fine-tuning runs, and the schedule that begins them."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.policies import actor_of, require
from apps.lib.pagination import SmallSet
from apps.lib.parsing import FiniteFloatField, StrictIntegerField, StrictSerializer
from apps.lib.permissions import Permission
from apps.outbox.idempotency import once
from apps.policies import schedule
from apps.policies import training_actions as actions
from apps.policies import training_queries as training
from apps.policies.api import IDEMPOTENCY
from apps.policies.models import TrainingRun
from apps.policies.serializers import PolicyParent


class TrainingRequest(StrictSerializer):
    """How much of everything; what is left out takes some ten minutes on two cores."""

    parent = serializers.RegexField(
        r"\A([0-9a-f]{6,64})?\Z", required=False, allow_blank=True, default="", help_text="Digest; empty: the version that decides now."
    )
    steps = StrictIntegerField(min_value=0, max_value=200_000, default=6_000, help_text="Decisions of PPO.")
    streams = StrictIntegerField(min_value=1, max_value=64, default=8, help_text="Generated streams; journals bring as many again.")
    journals = StrictIntegerField(min_value=0, max_value=16, default=4, help_text="Newest journals of nodes to learn from.")
    episode_seconds = FiniteFloatField(min_value=60.0, max_value=900.0, default=300.0)
    seed = StrictIntegerField(
        min_value=0, max_value=actions.SEEDS - 1, allow_null=True, default=None, help_text="Null: a fresh one for each run."
    )
    evaluation_seeds = StrictIntegerField(min_value=1, max_value=16, default=2)
    evaluation_seconds = FiniteFloatField(min_value=60.0, max_value=900.0, default=150.0)


class TrainingOptions(serializers.Serializer[Any]):
    """What was asked."""

    steps = serializers.IntegerField()
    streams = serializers.IntegerField()
    journals = serializers.IntegerField()
    episode_seconds = serializers.FloatField()
    seed = serializers.IntegerField()
    evaluation_seeds = serializers.IntegerField()
    evaluation_seconds = serializers.FloatField()


class TrainingPoint(serializers.Serializer[Any]):
    """One update: mean reward of its rollout, and the loss of the update before it."""

    steps = serializers.IntegerField()
    reward_mean = serializers.FloatField()
    seconds = serializers.FloatField()
    loss = serializers.FloatField(allow_null=True)


class TrainingDocument(serializers.Serializer[Any]):
    """A run: its state, how far it is, its curve, and the version that came of it."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=TrainingRun.Status.choices)
    trigger = serializers.ChoiceField(choices=TrainingRun.Trigger.choices)
    parent = PolicyParent()
    options = TrainingOptions()
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    progress = serializers.FloatField()
    eta_seconds = serializers.FloatField(allow_null=True)
    stage = serializers.CharField(allow_blank=True)
    error = serializers.CharField(allow_blank=True)
    curve = TrainingPoint(many=True)
    result = PolicyParent(allow_null=True)


class ScheduledOptions(TrainingOptions):
    """As for a run, and which version: an empty digest is the one that decides then. Without a seed each run draws a fresh one."""

    parent = serializers.CharField(allow_blank=True)
    seed = serializers.IntegerField(allow_null=True)


class ScheduleRequest(StrictSerializer):
    """When policies are tuned by themselves: five fields of cron, in UTC."""

    enabled = serializers.BooleanField()
    cron = serializers.CharField(max_length=120)
    options = TrainingRequest(required=False)


class ScheduleDocument(serializers.Serializer[Any]):
    """The schedule in force."""

    enabled = serializers.BooleanField()
    cron = serializers.CharField()
    options = ScheduledOptions()
    next_run_at = serializers.DateTimeField(allow_null=True)
    last_run_at = serializers.DateTimeField(allow_null=True)


def defaults() -> dict[str, Any]:
    """The options of a run that nobody gave any."""
    body = TrainingRequest(data={})
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


class TrainingList(generics.GenericAPIView[TrainingRun]):
    """Fine-tuning runs."""

    pagination_class = SmallSet
    serializer_class = TrainingDocument
    queryset = TrainingRun.objects.none()

    @extend_schema(operation_id="training_list", responses=TrainingDocument(many=True))
    def get(self, request: Request) -> Response:
        """All runs, newest first, without their curves."""
        page = self.paginate_queryset(training.runs())
        return self.get_paginated_response([training.document(row, whole=False) for row in page or []])

    @extend_schema(operation_id="training_create", request=TrainingRequest, parameters=[IDEMPOTENCY], responses={202: TrainingDocument})
    def post(self, request: Request) -> Response:
        """Tune a version in the worker; one run at a time."""
        actor = actor_of(request.user, request.auth)
        require(actor, Permission.POLICY_MANAGE)
        body = TrainingRequest(data=request.data)
        body.is_valid(raise_exception=True)
        options = dict(body.validated_data)

        def act() -> Response:
            asked = dict(options)
            row = actions.start(actor, asked.pop("parent"), asked, timezone.now())
            headers = {"Location": f"/api/v1/training/{row.uid}/"}
            return Response(training.document(row), status=status.HTTP_202_ACCEPTED, headers=headers)

        return once(actor.name, "training_create", request.headers.get("Idempotency-Key"), options, act)


class TrainingDetail(APIView):
    """One run."""

    @extend_schema(operation_id="training_retrieve", responses=TrainingDocument)
    def get(self, request: Request, uid: str) -> Response:
        """State, progress and curve."""
        return Response(training.document(actions.JOBS.by_uid(uid)))

    @extend_schema(operation_id="training_cancel", responses={202: TrainingDocument})
    def delete(self, request: Request, uid: str) -> Response:
        """Cancel it; a finished run stays as it is."""
        row = actions.cancel(actor_of(request.user, request.auth), uid, timezone.now())
        return Response(training.document(row), status=status.HTTP_202_ACCEPTED)


class TrainingSchedule(APIView):
    """When policies are tuned by themselves."""

    @extend_schema(operation_id="training_schedule", responses=ScheduleDocument)
    def get(self, request: Request) -> Response:
        """The schedule; switched off until somebody writes one."""
        return Response(schedule.read(defaults(), timezone.now()))

    @extend_schema(operation_id="training_schedule_write", request=ScheduleRequest, responses=ScheduleDocument)
    def put(self, request: Request) -> Response:
        """Replace it."""
        actor = actor_of(request.user, request.auth)
        require(actor, Permission.POLICY_MANAGE)
        body = ScheduleRequest(data=request.data)
        body.is_valid(raise_exception=True)
        values = body.validated_data
        options = dict(values["options"]) if "options" in values else defaults()
        plan = schedule.Plan(values["enabled"], values["cron"], options)
        return Response(schedule.write(actor, plan, defaults(), timezone.now()))
