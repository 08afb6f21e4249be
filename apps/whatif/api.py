"""`/whatifs/`."""

from typing import Any

from django.urls import reverse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agents.profiles.profile import available_profiles
from apps.accounts.policies import actor_of, require
from apps.lib.pagination import SmallSet
from apps.lib.parsing import FiniteFloatField, StrictIntegerField, StrictSerializer
from apps.lib.permissions import Permission
from apps.lib.problems import Conflict
from apps.outbox.idempotency import once
from apps.whatif import actions, queries, scenarios
from apps.whatif.models import WhatIf

Status = WhatIf.Status
IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key", OpenApiTypes.STR, OpenApiParameter.HEADER, required=False, description="Sent twice, the run is started once."
)


class WhatIfRequest(StrictSerializer):
    """Two static ratios against the controller on one workload; the same seed gives the same answer."""

    workload = serializers.ChoiceField(choices=scenarios.WORKLOADS)
    nodes = StrictIntegerField(min_value=1, max_value=scenarios.NODES_MAX, default=4)
    static_ratios = serializers.ListField(child=FiniteFloatField(min_value=0.05, max_value=0.95), min_length=2, max_length=2)
    method = serializers.ChoiceField(choices=scenarios.METHODS, default=scenarios.METHODS[0])
    seed = StrictIntegerField(min_value=0, max_value=scenarios.SEED_MAX, default=1)
    seeds = StrictIntegerField(
        min_value=1,
        max_value=scenarios.SEEDS_MAX,
        default=1,
        help_text="Streams to run on, from `seed` upwards; figures are medians over them.",
    )
    duration_seconds = StrictIntegerField(min_value=scenarios.DURATION_SECONDS_MIN, max_value=scenarios.DURATION_SECONDS_MAX, default=300)
    rate_per_second = FiniteFloatField(
        required=False, allow_null=True, min_value=0.1, max_value=scenarios.RATE_PER_SECOND_MAX, default=None
    )
    profile = serializers.ChoiceField(choices=available_profiles(), default="cpu-demo")
    router = serializers.ChoiceField(choices=list(scenarios.ROUTERS), default="joint")


class ScenarioDocument(serializers.Serializer[Any]):
    """What was asked."""

    workload = serializers.CharField()
    nodes = serializers.IntegerField()
    static_ratios = serializers.ListField(child=serializers.FloatField())
    method = serializers.CharField()
    seed = serializers.IntegerField()
    seeds = serializers.IntegerField(required=False, help_text="1 where it is absent.")
    duration_seconds = serializers.IntegerField()
    rate_per_second = serializers.FloatField(allow_null=True)
    profile = serializers.CharField()
    router = serializers.CharField()


class WhatIfRun(serializers.Serializer[Any]):
    """One simulation: a cell of figures (docs/metrics) and series over simulated time (absent in lists)."""

    label = serializers.CharField()
    method = serializers.CharField()
    cell = serializers.DictField()
    cells = serializers.ListField(child=serializers.DictField(), required=False, help_text="One per seed.")
    series = serializers.DictField(child=serializers.ListField(child=serializers.FloatField(allow_null=True)), required=False)


class WhatIfMeasured(serializers.Serializer[Any]):
    """The live run that the simulator was last held against. Errors are predicted over measured less one; hit ratios differ by as much."""

    at = serializers.DateTimeField()
    profile = serializers.CharField()
    workload = serializers.CharField()
    nodes = serializers.IntegerField()
    rate_per_node = serializers.FloatField()
    utilisation = serializers.FloatField()
    latency_p50_error = serializers.FloatField()
    latency_p99_error = serializers.FloatField()
    node_p50_error_max = serializers.FloatField()
    node_p99_error_max = serializers.FloatField()
    hit_ratio_error = serializers.FloatField()


class WhatIfValidation(serializers.Serializer[Any]):
    """How far to believe a result: how near the simulator was to a live run, and why this question lies outside of that (if it does)."""

    measured = WhatIfMeasured(allow_null=True)
    outside = serializers.ListField(child=serializers.CharField())


class WhatIfResult(serializers.Serializer[Any]):
    """The static ratios in the order asked, then the controller."""

    runs = WhatIfRun(many=True)
    validation = WhatIfValidation(required=False)


class WhatIfDocument(serializers.Serializer[Any]):
    """A run: its state, how far it is, and what came out."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Status.choices)
    scenario = ScenarioDocument()
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    progress = serializers.FloatField()
    eta_seconds = serializers.FloatField(allow_null=True)
    stage = serializers.CharField(allow_blank=True)
    error = serializers.CharField(allow_blank=True)
    result = WhatIfResult(allow_null=True)


class WhatIfList(generics.GenericAPIView[WhatIf]):
    """Questions to the simulator."""

    pagination_class = SmallSet
    serializer_class = WhatIfDocument
    queryset = WhatIf.objects.none()

    @extend_schema(operation_id="whatifs_list", responses=WhatIfDocument(many=True))
    def get(self, request: Request) -> Response:
        """All runs, newest first, without their series."""
        page = self.paginate_queryset(queries.runs())
        return self.get_paginated_response([queries.document(row, whole=False) for row in page or []])

    @extend_schema(operation_id="whatifs_create", request=WhatIfRequest, parameters=[IDEMPOTENCY], responses={202: WhatIfDocument})
    def post(self, request: Request) -> Response:
        """Queue a run in the worker."""
        actor = actor_of(request.user, request.auth)
        require(actor, Permission.WHATIF_RUN)
        body = WhatIfRequest(data=request.data)
        body.is_valid(raise_exception=True)
        scenario = dict(body.validated_data)

        def act() -> Response:
            row = actions.start(actor, scenario, timezone.now())
            location = reverse("whatif-detail", args=[str(row.uid)])
            return Response(queries.document(row), status=status.HTTP_202_ACCEPTED, headers={"Location": location})

        return once(actor.name, "whatifs_create", request.headers.get("Idempotency-Key"), scenario, act)


class WhatIfDetail(APIView):
    """One run."""

    @extend_schema(operation_id="whatifs_retrieve", responses=WhatIfDocument)
    def get(self, request: Request, uid: str) -> Response:
        """State, progress and result."""
        return Response(queries.document(actions.JOBS.by_uid(uid)))

    @extend_schema(operation_id="whatifs_cancel", responses={202: WhatIfDocument})
    def delete(self, request: Request, uid: str) -> Response:
        """Cancel it; a finished run stays as it is."""
        row = actions.cancel(actor_of(request.user, request.auth), uid, timezone.now())
        return Response(queries.document(row), status=status.HTTP_202_ACCEPTED)


class WhatIfFigure(APIView):
    """One run as a figure."""

    @extend_schema(operation_id="whatifs_figure", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, uid: str) -> Response:
        """Plotly JSON (`data`, `layout`)."""
        from apps.whatif.figure import figure  # plotly takes half a second to import; most processes never need it

        row = actions.JOBS.by_uid(uid)
        if row.status != Status.SUCCEEDED or row.result is None:
            raise Conflict("not_finished", f"This run is {row.status}; a figure needs a result.")
        return Response(figure(row.result))
