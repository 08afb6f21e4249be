"""A scenario: what may be asked of the simulator, and the three runs it means (pure)."""

from typing import Any, NamedTuple

from agents.router.state import POLICIES as ROUTERS
from agents.workloads.demo import REGIMES as WORKLOADS

METHODS = ("b5",)
NODES_MAX = 64  # a worker's memory: each simulated node holds its own pool state
DURATION_SECONDS_MIN, DURATION_SECONDS_MAX = 10, 3600
RATE_PER_SECOND_MAX = 2_000.0
SEED_MAX = 2**31 - 1


class Run(NamedTuple):
    """One simulation of a scenario: the method's name as the simulator knows it, and its label."""

    method: str
    label: str


def runs(scenario: dict[str, Any]) -> list[Run]:
    """The static ratios first, then the controller, all on the same stream of requests."""
    static = [Run(f"static-{ratio:.2f}", f"static {ratio:.2f}") for ratio in scenario["static_ratios"]]
    return [*static, Run(scenario["method"], "controller")]


__all__ = ["METHODS", "ROUTERS", "WORKLOADS", "Run", "runs"]
