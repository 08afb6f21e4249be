"""Reading what-if runs."""

from typing import Any

from django.db.models import QuerySet

from apps.fleet.queries import iso
from apps.whatif.models import WhatIf


def runs() -> QuerySet[WhatIf]:
    """All runs, newest first."""
    return WhatIf.objects.order_by("-id")


def document(row: WhatIf, *, whole: bool = True) -> dict[str, Any]:
    """A run as clients see it; `whole=False` leaves the series out of the result."""
    return {
        "id": str(row.uid),
        "status": row.status,
        "scenario": row.scenario,
        "created_by": row.created_by,
        "created_at": iso(row.created_at),
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
        "progress": row.progress,
        "eta_seconds": row.eta_seconds,
        "stage": row.stage,
        "error": row.error,
        "result": _result(row, whole),
    }


def _result(row: WhatIf, whole: bool) -> dict[str, Any] | None:
    if row.result is None or whole:
        return row.result
    return {**row.result, "runs": [{key: value for key, value in run.items() if key != "series"} for run in row.result["runs"]]}
