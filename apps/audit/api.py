"""`/events/` and `/audit/`."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers

from apps.audit import queries
from apps.audit.models import AuditEntry, Event
from apps.lib.pagination import NewestFirst
from apps.lib.permissions import Permission


class EventSerializer(serializers.ModelSerializer[Event]):
    """One line of the feed."""

    class Meta:
        model = Event
        fields = ["id", "at", "kind", "severity", "actor", "target", "text", "detail"]
        read_only_fields = fields


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One state change."""

    before = serializers.DictField(allow_null=True, read_only=True)
    after = serializers.DictField(allow_null=True, read_only=True)

    class Meta:
        model = AuditEntry
        fields = ["id", "at", "actor", "actor_kind", "action", "target_kind", "target", "reason", "before", "after", "request_id"]
        read_only_fields = fields


class TimeRangeQuery(serializers.Serializer[Any]):
    """Filters shared by both lists; `start` is included, `end` is not."""

    actor = serializers.CharField(required=False, max_length=150)
    target = serializers.CharField(required=False, max_length=128)
    start = serializers.DateTimeField(required=False)
    end = serializers.DateTimeField(required=False)


class EventQuery(TimeRangeQuery):
    """Filters of the feed."""

    kind = serializers.CharField(required=False, max_length=48)
    severity = serializers.ChoiceField(required=False, choices=Event.Severity.choices)


class AuditQuery(TimeRangeQuery):
    """Filters of the audit log."""

    action = serializers.CharField(required=False, max_length=48)


def validated_query(view: generics.GenericAPIView[Any], query: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Query parameters the view knows, or a 400 naming the wrong one."""
    serializer = query(data=view.request.query_params.dict())
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


@extend_schema_view(get=extend_schema(operation_id="events_list", parameters=[EventQuery]))
class EventList(generics.ListAPIView[Event]):
    """What happened, newest first."""

    queryset = Event.objects.none()
    serializer_class = EventSerializer
    pagination_class = NewestFirst
    required_permission = Permission.FLEET_READ

    def get_queryset(self) -> QuerySet[Event]:
        """Filtered events."""
        return queries.events(**validated_query(self, EventQuery))


@extend_schema_view(get=extend_schema(operation_id="audit_list", parameters=[AuditQuery]))
class AuditList(generics.ListAPIView[AuditEntry]):
    """Who changed what and why, newest first."""

    queryset = AuditEntry.objects.none()
    serializer_class = AuditEntrySerializer
    pagination_class = NewestFirst
    required_permission = Permission.AUDIT_READ

    def get_queryset(self) -> QuerySet[AuditEntry]:
        """Filtered entries."""
        return queries.entries(**validated_query(self, AuditQuery))
