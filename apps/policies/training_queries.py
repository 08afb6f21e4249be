"""Reading training runs."""

from typing import Any

from django.db.models import QuerySet

from apps.fleet.queries import iso
from apps.policies.models import TrainingRun


def runs() -> QuerySet[TrainingRun]:
    """All runs, newest first."""
    return TrainingRun.objects.select_related("parent", "result").defer(*_BYTES).order_by("-id")


_BYTES = ("parent__weights", "parent__card", "result__weights", "result__card")


def document(row: TrainingRun, *, whole: bool = True) -> dict[str, Any]:
    """A run as clients see it; `whole=False` leaves all of the curve but its last point out."""
    result = row.result
    return {
        "id": str(row.uid),
        "status": row.status,
        "trigger": row.trigger,
        "parent": {"digest": row.parent.digest, "label": row.parent.label},
        "options": row.options,
        "created_by": row.created_by,
        "created_at": iso(row.created_at),
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
        "progress": row.progress,
        "eta_seconds": row.eta_seconds,
        "stage": row.stage,
        "error": row.error,
        "curve": row.curve if whole else row.curve[-1:],
        "result": None if result is None else {"digest": result.digest, "label": result.label},
    }
