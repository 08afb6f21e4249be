"""Celery shells around what-if runs. The simulator is imported inside the body: the web process must not load it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from apps.jobs.pulse import Cancelled
from apps.whatif import actions, pieces
from apps.whatif.running import Outcome, carry_out
from apps.whatif.scenarios import Question

if TYPE_CHECKING:
    from agents.sim.scenario import Scenario
    from agents.sim.validation.envelope import Validation

WARMUP_SECONDS = 30.0
# of a validation, what a reader of an answer needs; the rest is the device as it was found
TOLD = (
    "at",
    "profile",
    "workload",
    "nodes",
    "rate_per_node",
    "utilisation",
    "latency_p50_error",
    "latency_p99_error",
    "node_p50_error_max",
    "node_p99_error_max",
    "hit_ratio_error",
)


@shared_task(name="whatif.run")
def run(uid: str) -> None:
    """Spread one what-if over the workers; seeing it twice is harmless."""
    now = timezone.now()
    row = actions.claim(uid, now)
    if row is not None:
        pieces.begin(row, now)


@shared_task(name="whatif.piece")
def piece(uid: str) -> None:
    """Carry out one simulation of a what-if; seeing it twice is harmless."""
    row = pieces.claim(uid, timezone.now())
    if row is not None:
        carry_out(row, simulate)


@shared_task(name="whatif.reconcile")
def reconcile() -> int:
    """End runs whose worker is gone."""
    return pieces.reconcile(timezone.now())


def simulate(scenario: dict[str, Any], question: Question, progress: Callable[[float], None], cancelled: Callable[[], bool]) -> Outcome:
    """One simulation on the sim body, of the device as this machine's last live run showed it."""
    from agents.sim.scenario import run as simulate_scenario
    from agents.sim.validation.envelope import applicable, as_measured, outside, read_validations

    asked = scenario_of(scenario, question)
    found = applicable(read_validations(settings.STATE_DIR), asked.profile, asked.workload)
    result = simulate_scenario(as_measured(asked, found), progress=progress, cancelled=cancelled)
    if result is None:
        raise Cancelled
    cell = finite(result.cell)
    reasons = outside(found, asked, cell["utilisation"], cell["throughput_per_second"])
    return Outcome(cell, finite(result.series), {"measured": _told(found), "outside": reasons})


def scenario_of(scenario: dict[str, Any], question: Question) -> "Scenario":
    """The simulator's words for one question of a what-if."""
    from agents.sim.scenario import Scenario

    return Scenario(
        profile=scenario["profile"],
        workload=scenario["workload"],
        nodes=scenario["nodes"],
        method=question.run.method,
        router=scenario["router"],
        seed=question.seed,
        duration_seconds=scenario["duration_seconds"],
        rate_per_second=scenario.get("rate_per_second"),
        admission="shipped",
        # Cold caches are not the question; a short run still keeps three quarters of itself for the answer.
        warmup_seconds=min(WARMUP_SECONDS, scenario["duration_seconds"] / 4),
    )


def _told(found: "Validation | None") -> dict[str, Any] | None:
    return None if found is None else {name: getattr(found, name) for name in TOLD}


def finite(value: Any) -> Any:
    """The same figures with null where JSON knows no number, and plain Python types throughout."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
