"""Verbs about training runs."""

import logging
from collections import Counter
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max

from agents.wire.events import EventKind
from agents.wire.messages import ControllerMode
from apps.accounts.policies import require
from apps.audit.actions import SYSTEM, Actor, announce, record
from apps.fleet import queries as fleet
from apps.jobs.life import Jobs
from apps.jobs.models import OPEN
from apps.lib.permissions import Permission
from apps.lib.problems import Conflict, Problem
from apps.policies import queries
from apps.policies.models import PolicyVersion, TrainingRun

TOPIC_JOB, TOPIC_PROGRESS = "policies.tune", "training.progress"
DEFAULT_NAME = "helm"  # tuned where no node decides by a version yet
SEEDS = 5_000  # taken in turn: a run every night meets its first seed again after thirteen years
logger = logging.getLogger(__name__)


def start(actor: Actor, parent: str, options: dict[str, Any], now: datetime, trigger: str = TrainingRun.Trigger.PERSON) -> TrainingRun:
    """Queue a run from a version (by default the one that decides); one at a time, since it takes a worker's whole core."""
    require(actor, Permission.POLICY_MANAGE)
    with transaction.atomic():
        version = queries.by_digest(parent) if parent else active_version()
        row = _queued(parent=version, options=_seeded(options), trigger=trigger, created_by=actor.name, created_at=now)
        after = {"parent": version.label, "trigger": trigger, **row.options}
        record(actor, "training.start", "training", str(row.uid), after=after, now=now)
        text = f"{actor.name} began to tune {version.label}"
        announce(EventKind.TRAINING_STARTED, version.label, text, actor=actor.name, detail={"run": str(row.uid)}, now=now)
        JOBS.queue(row, now)
    return row


def start_on_schedule(options: dict[str, Any], now: datetime) -> TrainingRun | None:
    """What the clock asks for. One that cannot start is left out, and operators hear of it: nobody waits for the answer."""
    options = dict(options)
    try:
        return start(SYSTEM, str(options.pop("parent", "")), options, now, TrainingRun.Trigger.SCHEDULE)
    except Problem as problem:
        text = f"a scheduled training run was left out: {problem.detail}"
        logger.warning(text)
        with transaction.atomic():
            announce(EventKind.TRAINING_LEFT_OUT, "schedule", text, detail={"code": problem.code}, now=now)
        return None


def cancel(actor: Actor, uid: str, now: datetime) -> TrainingRun:
    """Cancel a run: at once while queued, at the trainer's next step while running. A finished one stays as it is."""
    require(actor, Permission.POLICY_MANAGE)
    with transaction.atomic():
        row = JOBS.by_uid(uid)
        if JOBS.request_cancel(row, now):
            record(actor, "training.cancel", "training", uid, before={"status": row.status}, now=now)
    return JOBS.by_uid(uid)


def active_version() -> PolicyVersion:
    """The version that most nodes decide by, else the newest one that came with the product."""
    active = Counter(node.policy_digest for node in fleet.nodes() if node.policy_digest and node.controller == ControllerMode.ACTIVE)
    for digest, _ in active.most_common():
        found = queries.versions().filter(digest=digest).first()
        if found is not None:
            return found
    shipped = queries.versions().filter(source=PolicyVersion.Source.SHIPPED, name=DEFAULT_NAME).first()
    if shipped is None:
        raise Conflict("no_parent", "No node decides by a version and none came with the product: say which one to tune.")
    return shipped


def _seeded(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the seed that was asked for, else the number after the newest run: a repeated seed would only repeat a run."""
    if options.get("seed") is not None:
        return options
    newest = TrainingRun.objects.aggregate(Max("pk"))["pk__max"] or 0
    return {**options, "seed": (newest + 1) % SEEDS}


def _queued(**values: Any) -> TrainingRun:
    """A new row. That none is open beside it is said by the database: two may ask at the same moment."""
    try:
        with transaction.atomic():
            return TrainingRun.objects.create(stage="queued", **values)
    except IntegrityError:
        busy = TrainingRun.objects.filter(status__in=OPEN).first()
        if busy is None:
            raise Conflict("concurrent_write", "Another run was open until this moment: try again.") from None
        raise Conflict("training_open", f"A run is {busy.status} already: cancel it or wait for its end.", run=str(busy.uid)) from None


def _ended(row: TrainingRun, now: datetime) -> None:
    detail = {"status": row.status, "run": str(row.uid)}
    announce(EventKind.TRAINING_FINISHED, row.parent.label, f"tuning of {row.parent.label}: {row.stage}", detail=detail, now=now)


JOBS: Jobs[TrainingRun] = Jobs(TrainingRun, "training", TOPIC_JOB, TOPIC_PROGRESS, _ended)
finish, heartbeat = JOBS.finish, JOBS.heartbeat
