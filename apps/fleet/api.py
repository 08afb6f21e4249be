"""`/clusters/`, `/nodes/`, the verbs, `/enrolments/` and `/enrol/`."""

from typing import Any

from django.db.models import Count
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, PolymorphicProxySerializer, extend_schema, extend_schema_view
from rest_framework import generics, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.policies import actor_of
from apps.fleet import actions, enrolment, queries
from apps.fleet.lifecycle import Verb
from apps.fleet.models import Cluster, Node
from apps.fleet.serializers import (
    ClusterDocument,
    EnrolDocument,
    EnrolmentDocument,
    EnrolmentRequest,
    EnrolRequest,
    NodeDocument,
    OverrideRequest,
    PinRequest,
    PreviewDocument,
    ReleaseRequest,
    ResizeRequest,
)
from apps.lib.etags import etag
from apps.lib.pagination import SmallSet
from apps.lib.parsing import StrictSerializer
from apps.lib.permissions import Permission
from apps.lib.problems import Problem

IF_MATCH = OpenApiParameter(
    "If-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, required=False, description="The ETag you were shown; needed unless dry_run."
)
DRY_RUN = OpenApiParameter("dry_run", OpenApiTypes.BOOL, description="Answer with the price tag and change nothing.")


def parsed(serializer: type[StrictSerializer], request: Request) -> dict[str, Any]:
    """The validated body, or a 400."""
    instance = serializer(data=request.data)
    instance.is_valid(raise_exception=True)
    return dict(instance.validated_data)


def flag(request: Request, name: str) -> bool:
    """A boolean query parameter; a word that is neither is refused, since guessing could turn a dry run into a real one."""
    word = request.query_params.get(name, "false").lower()
    if word not in {"true", "false", "1", "0"}:
        raise Problem("invalid_request", f"{name}: use true or false")
    return word in {"true", "1"}


class ClusterList(generics.GenericAPIView[Cluster]):
    """Clusters with their limits."""

    pagination_class = SmallSet
    serializer_class = ClusterDocument
    queryset = Cluster.objects.none()

    @extend_schema(operation_id="clusters_list", responses=ClusterDocument(many=True))
    def get(self, request: Request) -> Response:
        """All clusters."""
        queries.default_cluster()
        rows = self.paginate_queryset(Cluster.objects.annotate(nodes_total=Count("nodes")).order_by("name"))
        return self.get_paginated_response([_cluster_document(row) for row in rows or []])


def _cluster_document(cluster: Cluster) -> dict[str, Any]:
    rails = queries.guard_rails(cluster)
    return {
        "name": cluster.name,
        "nodes_total": cluster.nodes_total,  # type: ignore[attr-defined]
        "guard_rails": {name: getattr(rails, name) for name in rails.__struct_fields__},
        "override_ttl_seconds_min": cluster.override_ttl_seconds_min,
        "override_ttl_seconds_max": cluster.override_ttl_seconds_max,
        "created_at": queries.iso(cluster.created_at),
    }


class NodeList(generics.GenericAPIView[Node]):
    """The fleet's nodes."""

    pagination_class = SmallSet
    serializer_class = NodeDocument
    queryset = Node.objects.none()

    @extend_schema(operation_id="nodes_list", responses=NodeDocument(many=True))
    def get(self, request: Request) -> Response:
        """All nodes by name; `telemetry.landscape` is empty here and filled on the node itself."""
        now, actor = timezone.now(), actor_of(request.user, request.auth)
        rows = self.paginate_queryset(queries.nodes())
        return self.get_paginated_response([queries.node_document(row, actor, now, whole=False) for row in rows or []])


class NodeDetail(APIView):
    """One node."""

    @extend_schema(operation_id="nodes_retrieve", responses=NodeDocument)
    def get(self, request: Request, name: str) -> Response:
        """Metadata, spec, status and what the caller may do. The ETag stands for the spec."""
        return _node_response(queries.node_by_name(name), request)


def _node_response(node: Node, request: Request) -> Response:
    document = queries.node_document(node, actor_of(request.user, request.auth), timezone.now())
    return Response(document, headers={"ETag": etag(node.resource_version), "Cache-Control": "no-cache"})


class VerbView(APIView):
    """Parse, call one verb, answer."""

    verb: Verb
    body: type[StrictSerializer]

    def post(self, request: Request, name: str) -> Response:
        """Carry the verb out, or price it with `dry_run`."""
        dry_run = flag(request, "dry_run")
        actor = actor_of(request.user, request.auth)
        actions.require(actor, queries.VERB_PERMISSION[self.verb])
        queries.node_by_name(name)
        wish = actions.Wish(self.verb, **parsed(self.body, request))
        if_match = request.headers.get("If-Match")
        if dry_run:
            return Response(actions.price(actor, name, wish, if_match))
        return _node_response(actions.take(actor, name, wish, if_match, timezone.now()), request)


def _verb_schema(operation_id: str, body: type[StrictSerializer]) -> Any:
    answer = PolymorphicProxySerializer("NodeOrPreview", [NodeDocument, PreviewDocument], resource_type_field_name=None)
    post = extend_schema(
        operation_id=operation_id,
        request=body,
        parameters=[IF_MATCH, DRY_RUN],
        responses={200: OpenApiResponse(answer, description="The node; with dry_run, the price tag.")},
    )
    return extend_schema_view(post=post)


@_verb_schema("nodes_override", OverrideRequest)
class OverrideView(VerbView):
    """A fixed ratio with an end."""

    verb, body = Verb.OVERRIDE, OverrideRequest


@_verb_schema("nodes_pin", PinRequest)
class PinView(VerbView):
    """A fixed ratio until released."""

    verb, body = Verb.PIN, PinRequest


@_verb_schema("nodes_release", ReleaseRequest)
class ReleaseView(VerbView):
    """Back to the controller."""

    verb, body = Verb.RELEASE, ReleaseRequest


@_verb_schema("nodes_resize", ResizeRequest)
class ResizeView(VerbView):
    """Another size of the pool."""

    verb, body = Verb.RESIZE, ResizeRequest


class EnrolmentList(APIView):
    """One-time enrolment tokens."""

    required_permission = Permission.NODE_ENROL

    @extend_schema(operation_id="enrolments_create", request=EnrolmentRequest, responses={201: EnrolmentDocument})
    def post(self, request: Request) -> Response:
        """Make a token; it is in this answer and nowhere else."""
        made = enrolment.create_token(actor_of(request.user, request.auth), now=timezone.now(), **parsed(EnrolmentRequest, request))
        body = {"token": made.secret, "node_name": made.row.node_name, "expires_at": queries.iso(made.row.expires_at)}
        return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})


class EnrolView(APIView):
    """A node spends its one-time token; no other sign-in."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @extend_schema(operation_id="enrol", request=EnrolRequest, responses={201: EnrolDocument}, auth=[])
    def post(self, request: Request) -> Response:
        """Exchange the token for the node's link credential."""
        values = parsed(EnrolRequest, request)
        made = enrolment.enrol(values["token"], values["name"], values["profile"], values["infer_url"], timezone.now())
        body = {"credential": made.credential, "name": made.node.name, "uid": str(made.node.uid)}
        return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})
