"""`/policies/`: the registry, its artefacts, and who decides by which version."""

import django_filters
from django.utils import timezone
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, status
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from agents.wire.messages import ControllerMode
from apps.accounts.permissions import MayRead
from apps.accounts.policies import actor_of, require
from apps.fleet.authentication import NodeCredentialAuthentication
from apps.fleet.models import Node
from apps.lib.pagination import NewestFirst, SmallSet
from apps.lib.permissions import Permission
from apps.outbox.idempotency import once
from apps.policies import actions, artefacts, queries
from apps.policies.models import Assignment, PolicyVersion
from apps.policies.serializers import (
    AssignmentDocument,
    ImportRequest,
    JudgeRequest,
    OwnRequest,
    PolicyArtefact,
    PolicyDocument,
    RollBackRequest,
    Targets,
    UseRequest,
)

IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key", OpenApiTypes.STR, OpenApiParameter.HEADER, required=False, description="Sent twice, it is done once."
)


class PolicyFilter(django_filters.FilterSet):
    """Filters of the registry."""

    state = django_filters.ChoiceFilter(choices=PolicyVersion.State.choices)
    source = django_filters.ChoiceFilter(choices=PolicyVersion.Source.choices)
    variant = django_filters.ChoiceFilter(choices=[(name, name) for name in artefacts.VARIANTS])
    name = django_filters.CharFilter(max_length=64)
    parent = django_filters.CharFilter(field_name="parent__digest", lookup_expr="startswith", max_length=64)

    class Meta:
        model = PolicyVersion
        fields = ["state", "source", "variant", "name", "parent"]


class AssignmentFilter(django_filters.FilterSet):
    """Filters of the history of assignments."""

    node = django_filters.CharFilter(field_name="node_name", max_length=63)
    digest = django_filters.CharFilter(lookup_expr="startswith", max_length=64)

    class Meta:
        model = Assignment
        fields = ["node", "digest"]


class PolicyList(generics.GenericAPIView[PolicyVersion]):
    """The registry."""

    pagination_class = SmallSet
    serializer_class = PolicyDocument
    queryset = PolicyVersion.objects.none()
    filter_backends = [DjangoFilterBackend]
    filterset_class = PolicyFilter

    @extend_schema(operation_id="policies_list", responses=PolicyDocument(many=True))
    def get(self, request: Request) -> Response:
        """All versions, newest first, without their cards."""
        page, use = self.paginate_queryset(self.filter_queryset(queries.versions())), queries.use()
        return self.get_paginated_response([queries.document(row, use, whole=False) for row in page or []])

    @extend_schema(operation_id="policies_import", request=ImportRequest, parameters=[IDEMPOTENCY], responses={201: PolicyDocument})
    def post(self, request: Request) -> Response:
        """Bring a version in; it is checked whole and becomes a candidate."""
        actor = actor_of(request.user, request.auth)
        require(actor, Permission.POLICY_MANAGE)
        body = ImportRequest(data=request.data)
        body.is_valid(raise_exception=True)
        values = dict(body.validated_data)

        def act() -> Response:
            row = actions.import_version(actor, artefacts.decode(values["weights"]), values["card"].encode(), timezone.now())
            headers = {"Location": f"/api/v1/policies/{row.digest}/"}
            return Response(queries.document(row, queries.use()), status=status.HTTP_201_CREATED, headers=headers)

        return once(actor.name, "policies_import", request.headers.get("Idempotency-Key"), values, act)


class PolicyDetail(APIView):
    """One version."""

    @extend_schema(operation_id="policies_retrieve", responses=PolicyDocument)
    def get(self, request: Request, digest: str) -> Response:
        """The version with its card; six digits of the digest are enough if no other begins so."""
        return Response(queries.document(queries.by_digest(digest), queries.use()))


class MayFetch(BasePermission):
    """A node, or a person who may read the fleet."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """401 without a sign-in, 403 without the permission."""
        return isinstance(request.auth, Node) or MayRead().has_permission(request, view)


class PolicyArtefactView(APIView):
    """The bytes of a version."""

    authentication_classes = [NodeCredentialAuthentication, *api_settings.DEFAULT_AUTHENTICATION_CLASSES]
    permission_classes = [MayFetch]

    @extend_schema(operation_id="policies_artefact", responses=PolicyArtefact)
    def get(self, request: Request, digest: str) -> Response:
        """Card and weights, for export and for nodes; the bytes under a digest never change."""
        return Response(queries.artefact(digest), headers={"Cache-Control": "private, max-age=86400, immutable"})


class PolicyJudge(APIView):
    """A version's state, by hand."""

    @extend_schema(operation_id="policies_judge", request=JudgeRequest, responses=PolicyDocument)
    def post(self, request: Request, digest: str) -> Response:
        """Mark it usable or rejected."""
        actor = actor_of(request.user, request.auth)
        require(actor, Permission.POLICY_MANAGE)
        body = JudgeRequest(data=request.data)
        body.is_valid(raise_exception=True)
        row = actions.judge(actor, digest, body.validated_data["state"], body.validated_data["reason"], timezone.now())
        return Response(queries.document(row, queries.use()))


class AssignmentList(generics.GenericAPIView[Assignment]):
    """Who was told to decide by what."""

    pagination_class = NewestFirst
    serializer_class = AssignmentDocument
    queryset = Assignment.objects.none()
    filter_backends = [DjangoFilterBackend]
    filterset_class = AssignmentFilter

    @extend_schema(operation_id="policies_assignments", responses=AssignmentDocument(many=True))
    def get(self, request: Request) -> Response:
        """Newest first."""
        page = self.paginate_queryset(self.filter_queryset(queries.assignments()))
        return self.get_paginated_response([queries.assignment_document(row) for row in page or []])


class _TargetsView(APIView):
    """Parse targets, call one verb, answer with what was assigned or undone."""

    def _parsed(self, request: Request, serializer: type[Targets]) -> tuple[actions.Actor, Targets]:
        actor = actor_of(request.user, request.auth)
        require(actor, Permission.POLICY_MANAGE)
        body = serializer(data=request.data)
        body.is_valid(raise_exception=True)
        return actor, body

    def _set(self, request: Request, serializer: type[UseRequest], digest: str) -> Response:
        actor, body = self._parsed(request, serializer)
        values = body.validated_data
        wish = actions.Wish(digest, ControllerMode(values["controller"]), values["reason"])

        def act() -> Response:
            done = actions.set_policy(actor, body.names, wish, timezone.now())
            return Response([queries.assignment_document(row) for row in done])

        key = request.headers.get("Idempotency-Key")
        return once(actor.name, "policies_use", key, {"digest": digest, **values}, act)


class PolicyUseView(_TargetsView):
    """Rollout."""

    @extend_schema(operation_id="policies_use", request=UseRequest, parameters=[IDEMPOTENCY], responses=AssignmentDocument(many=True))
    def post(self, request: Request, digest: str) -> Response:
        """Let nodes decide by this version, or only advise; all of them are told, or none."""
        return self._set(request, UseRequest, queries.by_digest(digest).digest)


class OwnControllerView(_TargetsView):
    """Back to what nodes were started with."""

    @extend_schema(operation_id="policies_own", request=OwnRequest, parameters=[IDEMPOTENCY], responses=AssignmentDocument(many=True))
    def post(self, request: Request) -> Response:
        """Let nodes decide by the controller they were started with."""
        return self._set(request, OwnRequest, "")


class RollBackView(_TargetsView):
    """One step back."""

    @extend_schema(operation_id="policies_roll_back", request=RollBackRequest, responses=AssignmentDocument(many=True))
    def post(self, request: Request) -> Response:
        """On each node, undo the newest assignment that still stands; said twice, it goes two steps back."""
        actor, body = self._parsed(request, RollBackRequest)
        done = actions.roll_back(actor, body.names, body.validated_data["reason"], timezone.now())
        return Response([queries.assignment_document(row) for row in done])
