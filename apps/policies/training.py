"""Carrying out one training run in a worker: a sign of life and a curve beside it, a new version or an end at its end."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from agents.artifacts.policy_file import PolicyFile
from agents.wire.events import EventKind
from agents.workloads.journal import SUFFIX, part_of
from apps.audit.actions import SYSTEM, announce, record
from apps.jobs.pulse import Cancelled, Pulse, ending
from apps.policies import training_actions as actions
from apps.policies.artefacts import checked_file
from apps.policies.models import PolicyVersion, TrainingRun
from apps.policies.registry import Known, NewVersion, keep

POINTS_MAX = 2_000  # of a curve: some two megabytes of steps; a longer one is thinned to every other point


class Question(NamedTuple):
    """What is tuned, on what, and how much."""

    parent: PolicyFile
    journals: list[Path]
    options: dict[str, Any]


class Told(NamedTuple):
    """How the one who tunes tells of it: a stage with its share of the whole, a point of the curve, and whether to go on."""

    stage: Callable[[str, float], None]
    point: Callable[[dict[str, Any]], None]
    cancelled: Callable[[], bool]


class Answer(NamedTuple):
    """A new artefact and how it compares."""

    weights: bytes
    card: bytes
    evaluation: dict[str, Any]


Tune = Callable[[Question, Told], Answer | None]


class _Lost(Exception):
    """The run had ended while its last version was being written."""


def newest_journals(count: int) -> list[Path]:
    """The journals that nodes wrote last, newest first, of a run in parts the last one; none where nothing is recorded."""
    folder: Path = settings.JOURNAL_DIR
    if count == 0 or not folder.is_dir():
        return []
    newest: dict[Path, Path] = {}  # by the run's first part
    for path in sorted((path for path in folder.rglob(f"*{SUFFIX}") if path.is_file()), key=_written_ns):
        first, _ = part_of(path)
        newest.pop(first, None)
        newest[first] = path
    return list(reversed(newest.values()))[:count]


def _written_ns(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, part_of(path)[1]


def carry_out(row: TrainingRun, tune: Tune) -> None:
    """Run a claimed training run to its end, whatever happens in between."""
    with ending(row, actions.finish):
        with Pulse(row.pk, actions.heartbeat) as pulse:
            answer = tune(_question(row), _told(pulse))
        if answer is None or pulse.stop_wanted:
            raise Cancelled
        _keep(row, answer, pulse.more.get("curve", []), timezone.now())


def _question(row: TrainingRun) -> Question:
    parent = PolicyVersion.objects.get(pk=row.parent_id)
    options = dict(row.options)
    journals = newest_journals(options.pop("journals"))
    return Question(PolicyFile(bytes(parent.weights), parent.card.encode(), parent.digest), journals, options)


def _told(pulse: Pulse) -> Told:
    def stage(text: str, share: float) -> None:
        pulse.stage, pulse.progress = text, min(max(share, pulse.progress), 1.0)

    def point(one: dict[str, Any]) -> None:
        curve = [*pulse.more.get("curve", []), one]
        pulse.more = {"curve": curve if len(curve) <= POINTS_MAX else curve[::2]}  # replaced as a whole: the pulse reads it meanwhile

    return Told(stage, point, lambda: pulse.stop_wanted)


def _keep(row: TrainingRun, answer: Answer, curve: list[dict[str, Any]], now: datetime) -> None:
    checked = checked_file(answer.weights, answer.card)
    verdict, reason = answer.evaluation["verdict"], answer.evaluation["reason"]
    new = NewVersion(checked, PolicyVersion.Source.TUNED, verdict, row.created_by, reason, row.parent, answer.evaluation)
    try:
        _add(row, new, curve, now)
    except Known as known:  # the same seed on the same traffic gives the same bytes: nothing to add, and nothing went wrong
        stage = f"succeeded, the same as {known.version.label}"
        actions.finish(row.pk, TrainingRun.Status.SUCCEEDED, now, stage=stage, result=known.version, curve=curve)
    except _Lost:
        return


def _add(row: TrainingRun, new: NewVersion, curve: list[dict[str, Any]], now: datetime) -> None:
    with transaction.atomic():
        version = keep(new, now)
        after = {"label": version.label, "digest": version.digest, "state": version.state, "run": str(row.uid)}
        record(SYSTEM, "policy.tune", "policy", version.label, reason=new.state_reason, after=after, now=now)
        text = f"{version.label} was tuned from {row.parent.label}: {new.state}, {new.state_reason}"
        announce(EventKind.POLICY_ADDED, version.label, text, detail={"state": new.state}, now=now)
        if not actions.finish(row.pk, TrainingRun.Status.SUCCEEDED, now, result=version, curve=curve):
            raise _Lost
