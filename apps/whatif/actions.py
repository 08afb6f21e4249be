"""Verbs about what-if runs. Every change is a conditional one, so a run ends once, whoever gets there first."""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from agents.wire.events import EventKind
from apps.accounts.policies import require
from apps.audit.actions import Actor, announce, record
from apps.lib.permissions import Permission
from apps.outbox.dispatch import enqueue
from apps.whatif import queries
from apps.whatif.lifecycle import OPEN, Status
from apps.whatif.models import WhatIf

TOPIC_JOB, TOPIC_PROGRESS = "whatif.run", "job.progress"
HEARTBEAT_SECONDS = 2.0
# A worker writes a sign of life every two seconds; ten missed ones are a lost worker, not a busy machine.
LOST_AFTER = timedelta(seconds=20)
# A queued run whose message the broker lost (a Redis without its log) is sent again.
SEND_AGAIN_AFTER = timedelta(seconds=60)


def start(actor: Actor, scenario: dict[str, Any], now: datetime) -> WhatIf:
    """Queue a run."""
    require(actor, Permission.WHATIF_RUN)
    with transaction.atomic():
        row = WhatIf.objects.create(scenario=scenario, created_by=actor.name, created_at=now, stage="queued")
        record(actor, "whatif.start", "whatif", str(row.uid), after=scenario, now=now)
        enqueue(TOPIC_JOB, row.uid.hex, {"uid": str(row.uid)}, now)
        announce(EventKind.WHATIF_STARTED, str(row.uid), f"{actor.name} asked what if: {scenario['workload']}", actor=actor.name, now=now)
        enqueue(TOPIC_PROGRESS, row.uid.hex, {"uid": str(row.uid)}, now)
    return row


def cancel(actor: Actor, uid: str, now: datetime) -> WhatIf:
    """Cancel a run: at once while queued, at the worker's next step while running. A finished one stays as it is."""
    require(actor, Permission.WHATIF_RUN)
    with transaction.atomic():
        row = queries.by_uid(uid)
        asked = WhatIf.objects.filter(pk=row.pk, status__in=OPEN, cancel_requested=False).update(cancel_requested=True)
        if asked:
            record(actor, "whatif.cancel", "whatif", uid, before={"status": row.status}, now=now)
        if WhatIf.objects.filter(pk=row.pk, status=Status.QUEUED).update(status=Status.CANCELLED, finished_at=now, stage="cancelled"):
            _announce_end(row.uid.hex, now)
    return queries.by_uid(uid)


def claim(uid: str, now: datetime) -> WhatIf | None:
    """A worker takes a queued run; `None` when another has it or it has ended."""
    row = queries.by_uid(uid)
    taken = WhatIf.objects.filter(pk=row.pk, status=Status.QUEUED).update(
        status=Status.RUNNING, started_at=now, heartbeat_at=now, stage="starting"
    )
    return queries.by_uid(uid) if taken else None


def heartbeat(pk: int, progress: float, eta_seconds: float | None, stage: str, now: datetime) -> bool:
    """A worker's sign of life; False when the run is not its any more or is to be cancelled."""
    with transaction.atomic():
        alive = WhatIf.objects.filter(pk=pk, status=Status.RUNNING).update(
            heartbeat_at=now, progress=progress, eta_seconds=eta_seconds, stage=stage
        )
        row = WhatIf.objects.get(pk=pk)
        if alive:
            enqueue(TOPIC_PROGRESS, row.uid.hex, {"uid": str(row.uid)}, now)
    return bool(alive) and not row.cancel_requested


def finish(pk: int, status: str, now: datetime, *, result: dict[str, Any] | None = None, error: str = "") -> bool:
    """Bring an open run to its end; False when it had ended already."""
    with transaction.atomic():
        row = WhatIf.objects.get(pk=pk)
        progress = 1.0 if status == Status.SUCCEEDED else row.progress
        ended = WhatIf.objects.filter(pk=pk, status__in=OPEN).update(
            status=status, finished_at=now, result=result, error=error[:500], progress=progress, eta_seconds=None, stage=status
        )
        if ended:
            _announce_end(row.uid.hex, now)
    return bool(ended)


def reconcile(now: datetime | None = None) -> int:
    """End runs whose worker is gone, and send queued ones again; returns how many were ended."""
    now = now or timezone.now()
    lost = WhatIf.objects.filter(status=Status.RUNNING, heartbeat_at__lt=now - LOST_AFTER)
    ended = sum(finish(pk, Status.FAILED, now, error="The worker running this was lost.") for pk in list(lost.values_list("pk", flat=True)))
    waiting = WhatIf.objects.filter(status=Status.QUEUED, created_at__lt=now - SEND_AGAIN_AFTER, heartbeat_at__isnull=True)
    stale = waiting | WhatIf.objects.filter(status=Status.QUEUED, heartbeat_at__lt=now - SEND_AGAIN_AFTER)
    for row in list(stale):
        with transaction.atomic():
            WhatIf.objects.filter(pk=row.pk).update(heartbeat_at=now)
            enqueue(TOPIC_JOB, row.uid.hex, {"uid": str(row.uid)}, now)
    return ended


def _announce_end(uid_hex: str, now: datetime) -> None:
    row = queries.by_uid(uid_hex)
    announce(
        EventKind.WHATIF_FINISHED, str(row.uid), f"what-if {row.scenario['workload']}: {row.status}", detail={"status": row.status}, now=now
    )
    enqueue(TOPIC_PROGRESS, row.uid.hex, {"uid": str(row.uid)}, now)
