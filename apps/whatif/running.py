"""Carrying out one what-if: three simulations in a row, a sign of life beside them, one end."""

from collections.abc import Callable
from typing import Any, NamedTuple

from django.utils import timezone

from apps.jobs.pulse import Cancelled, Pulse, ending
from apps.whatif import actions
from apps.whatif.models import WhatIf
from apps.whatif.scenarios import Run, runs


class Outcome(NamedTuple):
    """One simulation's answer: a cell of figures and series over time."""

    cell: dict[str, Any]
    series: dict[str, list[Any]]


Simulate = Callable[[dict[str, Any], Run, Callable[[float], None], Callable[[], bool]], Outcome]


def carry_out(row: WhatIf, simulate: Simulate) -> None:
    """Run a claimed what-if to its end, whatever happens in between."""
    with ending(row, actions.finish):
        with Pulse(row.pk, actions.heartbeat) as pulse:
            result = {"runs": [_one(row, index, run, pulse, simulate) for index, run in enumerate(runs(row.scenario))]}
        actions.finish(row.pk, WhatIf.Status.SUCCEEDED, timezone.now(), result=result)


def _one(row: WhatIf, index: int, run: Run, pulse: Pulse, simulate: Simulate) -> dict[str, Any]:
    total = len(runs(row.scenario))
    pulse.stage = run.label

    def progress(share: float) -> None:
        pulse.progress = (index + min(max(share, 0.0), 1.0)) / total

    progress(0.0)
    outcome = simulate(row.scenario, run, progress, lambda: pulse.stop_wanted)
    if pulse.stop_wanted:
        raise Cancelled
    progress(1.0)
    return {"label": run.label, "method": run.method, "cell": outcome.cell, "series": outcome.series}
