"""Reading history."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from apps.audit.models import AuditEntry, Event


def entries(
    *, actor: str = "", target: str = "", action: str = "", start: datetime | None = None, end: datetime | None = None
) -> QuerySet[Any]:
    """Audit entries by filter; time is half open, `[start, end)`."""
    return _filtered(AuditEntry.objects.all(), start, end, actor=actor, target=target, action=action)


def events(
    *, actor: str = "", target: str = "", kind: str = "", severity: str = "", start: datetime | None = None, end: datetime | None = None
) -> QuerySet[Any]:
    """Events by filter; time is half open, `[start, end)`."""
    return _filtered(Event.objects.all(), start, end, actor=actor, target=target, kind=kind, severity=severity)


def event_document(event: Event) -> dict[str, Any]:
    """An event as consoles and clients see it."""
    return {
        "id": event.pk,
        "at": event.at.isoformat().replace("+00:00", "Z"),
        "kind": event.kind,
        "severity": event.severity,
        "actor": event.actor,
        "target": event.target,
        "text": event.text,
        "detail": event.detail,
    }


def _filtered(rows: QuerySet[Any], start: datetime | None, end: datetime | None, **equal: str) -> QuerySet[Any]:
    rows = rows.filter(**{name: value for name, value in equal.items() if value})
    if start:
        rows = rows.filter(at__gte=start)
    if end:
        rows = rows.filter(at__lt=end)
    return rows.order_by("-id")
