"""`/routing/`: the router's view of the fleet, why it picked as it did, and tickets for those who may force a node."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.policies import actor_of
from apps.fleet.serializers import reason_field
from apps.lib.parsing import StrictIntegerField, StrictSerializer
from apps.lib.permissions import Permission
from apps.telemetry import routing

TICKET_SECONDS_MIN, TICKET_SECONDS_MAX = 60, 3_600  # a test by hand, not a standing right


class RouterDocument(serializers.Serializer[Any]):
    """The router's own figures; percentiles are of the last minute."""

    name = serializers.CharField()
    policy = serializers.CharField()
    phase = serializers.CharField()
    picks_per_second = serializers.FloatField()
    requests_total = serializers.IntegerField()
    retries_total = serializers.IntegerField()
    failures_total = serializers.IntegerField()
    cold_requests_total = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    latency_ms_p50 = serializers.FloatField(allow_null=True)
    latency_ms_p99 = serializers.FloatField(allow_null=True)
    users_known = serializers.IntegerField()
    copies_known = serializers.IntegerField()
    state_bytes = serializers.IntegerField()


class RoutedNodeDocument(serializers.Serializer[Any]):
    """A node as the router knows it. `staleness_ms` is the age of its last report, null before the first."""

    name = serializers.CharField()
    phase = serializers.CharField()
    picks_total = serializers.IntegerField()
    failures_total = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    queued_ms = serializers.FloatField()
    correction = serializers.FloatField()
    staleness_ms = serializers.FloatField(allow_null=True)
    resident_users = serializers.IntegerField()
    breaker_open = serializers.BooleanField()


class ComponentDocument(serializers.Serializer[Any]):
    """Mean milliseconds per compared answer; `error_ms` is of absolute differences."""

    component = serializers.CharField()
    predicted_ms = serializers.FloatField()
    observed_ms = serializers.FloatField()
    error_ms = serializers.FloatField()


class AttributionDocument(serializers.Serializer[Any]):
    """Predicted against observed, over the answers compared since the router started."""

    count = serializers.IntegerField()
    components = ComponentDocument(many=True)


class RoutingDocument(serializers.Serializer[Any]):
    """The router and its nodes."""

    router = RouterDocument()
    attribution = AttributionDocument()
    nodes = RoutedNodeDocument(many=True)


def _milliseconds() -> serializers.DictField:
    return serializers.DictField(child=serializers.FloatField(), allow_null=True)


class PickDocument(serializers.Serializer[Any]):
    """One pick. `predicted` and `observed` are by component, null until the answer could be compared."""

    request_id = serializers.CharField()
    at_unix_ns = serializers.IntegerField()
    picked = serializers.CharField(allow_null=True)
    predicted_ms = serializers.FloatField()
    rent_ms = serializers.FloatField()
    reuse_gap_ms = serializers.FloatField(allow_null=True)
    resident_elsewhere = serializers.BooleanField()
    cached_tokens = serializers.IntegerField()
    history_tokens = serializers.IntegerField()
    candidates = serializers.IntegerField()
    predicted = _milliseconds()
    observed = _milliseconds()


class CandidateDocument(serializers.Serializer[Any]):
    """One node in an explained pick: components in milliseconds, and why it was left out (empty: it was not)."""

    name = serializers.CharField()
    filtered = serializers.CharField(allow_blank=True)
    components = serializers.DictField(child=serializers.FloatField())


class ExplainedPickDocument(PickDocument):
    """A pick with its candidates."""

    nodes = CandidateDocument(many=True)


class TicketRequest(StrictSerializer):
    """For how long, and why."""

    ttl_seconds = StrictIntegerField(min_value=TICKET_SECONDS_MIN, max_value=TICKET_SECONDS_MAX)
    reason = reason_field()


class TicketDocument(serializers.Serializer[Any]):
    """A ticket, shown once: send it as `Authorization: Bearer` with `x-helm-force-node`."""

    ticket = serializers.CharField()
    expires_at = serializers.DateTimeField()


class RoutingView(APIView):
    """The router's view of the fleet."""

    @extend_schema(operation_id="routing_retrieve", responses=RoutingDocument)
    def get(self, request: Request) -> Response:
        """Now."""
        return Response(RoutingDocument(routing.overview()).data)


class PickList(APIView):
    """Picks that can be explained."""

    @extend_schema(operation_id="routing_picks", responses=PickDocument(many=True))
    def get(self, request: Request) -> Response:
        """The newest first."""
        return Response(PickDocument(routing.recent_picks(), many=True).data)


class PickDetail(APIView):
    """Why one request went where it went."""

    @extend_schema(operation_id="routing_pick", responses=ExplainedPickDocument)
    def get(self, request: Request, request_id: str) -> Response:
        """Every candidate's components."""
        return Response(ExplainedPickDocument(routing.explained_pick(request_id)).data)


class TicketList(APIView):
    """Tickets for the router."""

    required_permission = Permission.ROUTE_FORCE

    @extend_schema(operation_id="routing_tickets_create", request=TicketRequest, responses={201: TicketDocument})
    def post(self, request: Request) -> Response:
        """Make one; it is in this answer and nowhere else."""
        wish = TicketRequest(data=request.data)
        wish.is_valid(raise_exception=True)
        made = routing.issue_ticket(actor_of(request.user, request.auth), now=timezone.now(), **wish.validated_data)
        return Response(TicketDocument(made._asdict()).data, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})
