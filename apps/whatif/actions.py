"""Verbs about what-if runs."""

from datetime import datetime
from typing import Any

from django.db import transaction

from agents.wire.events import EventKind
from apps.accounts.policies import require
from apps.audit.actions import Actor, announce, record
from apps.jobs.life import Jobs
from apps.lib.permissions import Permission
from apps.whatif.models import WhatIf

TOPIC_JOB, TOPIC_PROGRESS = "whatif.run", "job.progress"


def start(actor: Actor, scenario: dict[str, Any], now: datetime) -> WhatIf:
    """Queue a run."""
    require(actor, Permission.WHATIF_RUN)
    with transaction.atomic():
        row = WhatIf.objects.create(scenario=scenario, created_by=actor.name, created_at=now, stage="queued")
        record(actor, "whatif.start", "whatif", str(row.uid), after=scenario, now=now)
        announce(EventKind.WHATIF_STARTED, str(row.uid), f"{actor.name} asked what if: {scenario['workload']}", actor=actor.name, now=now)
        JOBS.queue(row, now)
    return row


def cancel(actor: Actor, uid: str, now: datetime) -> WhatIf:
    """Cancel a run: at once while queued, at the worker's next step while running. A finished one stays as it is."""
    require(actor, Permission.WHATIF_RUN)
    with transaction.atomic():
        row = JOBS.by_uid(uid)
        if JOBS.request_cancel(row, now):
            record(actor, "whatif.cancel", "whatif", uid, before={"status": row.status}, now=now)
    return JOBS.by_uid(uid)


def _ended(row: WhatIf, now: datetime) -> None:
    text = f"what-if {row.scenario['workload']}: {row.status}"
    announce(EventKind.WHATIF_FINISHED, str(row.uid), text, detail={"status": row.status}, now=now)


JOBS: Jobs[WhatIf] = Jobs(WhatIf, "whatif", TOPIC_JOB, TOPIC_PROGRESS, _ended)
claim, heartbeat, finish, reconcile = JOBS.claim, JOBS.heartbeat, JOBS.finish, JOBS.reconcile
