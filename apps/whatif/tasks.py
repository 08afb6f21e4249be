"""Celery shells around what-if runs. The simulator is imported inside the body: the web process must not load it."""

import math
from collections.abc import Callable
from typing import Any

from celery import shared_task
from django.utils import timezone

from apps.jobs.pulse import Cancelled
from apps.whatif import actions
from apps.whatif.running import Outcome, carry_out
from apps.whatif.scenarios import Run

WARMUP_SECONDS = 30.0


@shared_task(name="whatif.run")
def run(uid: str) -> None:
    """Carry out one what-if; seeing it twice is harmless."""
    row = actions.claim(uid, timezone.now())
    if row is not None:
        carry_out(row, simulate)


@shared_task(name="whatif.reconcile")
def reconcile() -> int:
    """End runs whose worker is gone."""
    return actions.reconcile()


def simulate(scenario: dict[str, Any], one: Run, progress: Callable[[float], None], cancelled: Callable[[], bool]) -> Outcome:
    """One simulation on the sim body."""
    from agents.sim.scenario import Scenario
    from agents.sim.scenario import run as simulate_scenario

    result = simulate_scenario(
        Scenario(
            profile=scenario["profile"],
            workload=scenario["workload"],
            nodes=scenario["nodes"],
            method=one.method,
            router=scenario["router"],
            seed=scenario["seed"],
            duration_seconds=scenario["duration_seconds"],
            rate_per_second=scenario.get("rate_per_second"),
            admission="shipped",
            # Cold caches are not the question; a short run still keeps three quarters of itself for the answer.
            warmup_seconds=min(WARMUP_SECONDS, scenario["duration_seconds"] / 4),
        ),
        progress=progress,
        cancelled=cancelled,
    )
    if result is None:
        raise Cancelled
    return Outcome(finite(result.cell), finite(result.series))


def finite(value: Any) -> Any:
    """The same figures with null where JSON knows no number, and plain Python types throughout."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
