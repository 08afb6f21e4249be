"""Writing history: one audit entry per state change, events for the feed."""

from datetime import datetime
from typing import Any, NamedTuple

from django.utils import timezone

from agents.wire.events import EventKind
from apps.audit.models import AuditEntry, Event
from apps.lib.request_id import current_request_id
from apps.outbox.dispatch import enqueue

TOPIC_EVENT = "event"
_SEVERITY = {
    EventKind.NODE_OFFLINE: Event.Severity.CRITICAL,
    EventKind.NODE_DRAINING: Event.Severity.WARNING,
    EventKind.CONDITION_CHANGED: Event.Severity.WARNING,
    EventKind.POLICY_DEMOTED: Event.Severity.WARNING,
    EventKind.POLICY_REFUSED: Event.Severity.WARNING,
    EventKind.FRAME_REJECTED: Event.Severity.WARNING,
    EventKind.TRAINING_LEFT_OUT: Event.Severity.WARNING,
}


class Actor(NamedTuple):
    """Whoever does something: a person, a token of a person, or the system itself."""

    name: str
    kind: str = "user"
    role: str = ""


SYSTEM = Actor("system", "system")


def record(
    actor: Actor,
    action: str,
    target_kind: str,
    target: str,
    *,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    now: datetime | None = None,
) -> AuditEntry:
    """Write the one audit entry of a state change, in the caller's transaction."""
    return AuditEntry.objects.create(
        at=now or timezone.now(),
        actor=actor.name,
        actor_kind=actor.kind,
        action=action,
        target_kind=target_kind,
        target=target,
        reason=reason,
        before=before,
        after=after,
        request_id=current_request_id(),
    )


def announce(
    kind: EventKind | str, target: str, text: str, *, actor: str = "", detail: dict[str, Any] | None = None, now: datetime | None = None
) -> Event:
    """Write an event in the caller's transaction; consoles hear of it after commit."""
    event = Event.objects.create(
        at=now or timezone.now(),
        kind=str(kind),
        severity=_SEVERITY.get(EventKind(kind), Event.Severity.INFO) if kind in set(EventKind) else Event.Severity.INFO,
        actor=actor,
        target=target,
        text=text[:300],
        detail=detail or {},
    )
    enqueue(TOPIC_EVENT, str(event.pk), {"event_id": event.pk})
    return event
