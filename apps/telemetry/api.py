"""`/fleet/`, its series, and the series and decisions of nodes."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agents.wire.messages import DecisionRecord
from apps.fleet import queries as fleet
from apps.lib.pagination import NewestFirst
from apps.lib.problems import FieldError, Problem
from apps.lib.wire_serializers import serializer_of
from apps.telemetry import queries
from apps.telemetry.models import Decision
from apps.telemetry.resolutions import WINDOWS

RANGE = OpenApiParameter("range", str, enum=list(WINDOWS), description="How far back; default 15m.")


def _numbers() -> serializers.ListField:
    return serializers.ListField(child=serializers.FloatField(allow_null=True))


class FleetDocument(serializers.Serializer[Any]):
    """The fleet now. Percentiles are of all requests of the last minute, null under 300 of them."""

    name = serializers.CharField()
    nodes_total = serializers.IntegerField()
    nodes_ready = serializers.IntegerField()
    nodes_offline = serializers.IntegerField()
    latency_ms_p50 = serializers.FloatField(allow_null=True)
    latency_ms_p99 = serializers.FloatField(allow_null=True)
    slo_ms = serializers.FloatField(allow_null=True)
    slo_ratio = serializers.FloatField(allow_null=True)
    requests_per_second = serializers.FloatField(allow_null=True)
    emb_hit_ratio = serializers.FloatField(allow_null=True)
    kv_hit_ratio = serializers.FloatField(allow_null=True)
    emb_ratio_mean = serializers.FloatField(allow_null=True)
    modes = serializers.DictField(child=serializers.IntegerField())
    at = serializers.DateTimeField()


class SeriesDocument(serializers.Serializer[Any]):
    """Columns of equal length; a null row marks a gap."""

    at = serializers.ListField(child=serializers.DateTimeField())
    step_seconds = serializers.IntegerField()
    slo_ms = serializers.FloatField(allow_null=True)
    latency_ms_p50 = _numbers()
    latency_ms_p99 = _numbers()
    requests_per_second = _numbers()
    emb_hit_ratio = _numbers()
    kv_hit_ratio = _numbers()


FleetSeriesDocument = type(
    "FleetSeriesDocument",
    (SeriesDocument,),
    {"__doc__": "The fleet's history.", **{f"emb_ratio_p{quantile}": _numbers() for quantile in queries.RATIO_QUANTILES}},
)
NodeSeriesDocument = type(
    "NodeSeriesDocument",
    (SeriesDocument,),
    {
        "__doc__": "One node's history.",
        "mode": serializers.ListField(child=serializers.CharField(allow_null=True)),
        **{name: _numbers() for name in queries.NODE_COLUMNS},
    },
)
DecisionDocument = serializer_of(
    DecisionRecord, "Decision", leave_out=frozenset({"at_unix_ns"}), id=serializers.IntegerField(), at=serializers.DateTimeField()
)


def _range(request: Request) -> str:
    name = request.query_params.get("range", "15m")
    if name not in WINDOWS:
        detail = f"Use one of {', '.join(WINDOWS)}."
        raise Problem("invalid_request", f"range: {detail}", [FieldError("/range", "unknown_range", detail)])
    return name


class FleetView(APIView):
    """The fleet's headline figures."""

    @extend_schema(operation_id="fleet_retrieve", responses=FleetDocument)
    def get(self, request: Request) -> Response:
        """Now."""
        return Response(queries.fleet_document(fleet.default_cluster(), fleet.nodes(), timezone.now()))


class FleetSeriesView(APIView):
    """The fleet's history."""

    @extend_schema(operation_id="fleet_series", parameters=[RANGE], responses=FleetSeriesDocument)
    def get(self, request: Request) -> Response:
        """Columns over a range."""
        return Response(queries.fleet_series(_range(request), timezone.now()))


class NodeSeriesView(APIView):
    """One node's history."""

    @extend_schema(operation_id="nodes_series", parameters=[RANGE], responses=NodeSeriesDocument)
    def get(self, request: Request, name: str) -> Response:
        """Columns over a range."""
        return Response(queries.node_series(fleet.node_by_name(name), _range(request), timezone.now()))


class NodeDecisionsView(generics.GenericAPIView[Decision]):
    """What a node's controller decided, newest first."""

    pagination_class = NewestFirst
    serializer_class = DecisionDocument
    queryset: QuerySet[Decision] = Decision.objects.none()

    @extend_schema(operation_id="nodes_decisions", responses=DecisionDocument(many=True))
    def get(self, request: Request, name: str) -> Response:
        """One page of decisions."""
        page = self.paginate_queryset(queries.decisions(fleet.node_by_name(name)))
        return self.get_paginated_response([_decision_document(row) for row in page or []])


def _decision_document(row: Decision) -> dict[str, Any]:
    record = {key: value for key, value in row.record.items() if key not in {"type", "at_unix_ns"}}
    return {"id": row.pk, "at": fleet.iso(row.at), **record}
