"""One simulated run: what is asked, checked before any work starts, and what comes back."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agents.caches.policy import cache_policy
from agents.controller.registry import make_controller
from agents.profiles import Profile, load_profile
from agents.router.state import POLICIES
from agents.sim.fleet import SimulatedFleet
from agents.wire.messages import GuardRails
from agents.workloads.demo import DemoParameters, synthetic_workload
from agents.workloads.replay import Pace, ReplayRules, open_trace
from agents.workloads.request import Workload

NODES_MAX = 1024  # the router's pick is O(nodes); beyond this a run would not end in a coffee break
DURATION_SECONDS_MAX = 86_400.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to simulate. `rate_per_second` is the fleet's base rate."""

    profile: str = "cpu-demo"
    workload: str = "demo"
    nodes: int = 4
    method: str = "b5"
    router: str = "joint"
    seed: int = 1
    duration_seconds: float = 600.0
    rate_per_second: float | None = None
    admission: str = "shipped"
    warmup_seconds: float = 30.0
    emb_ratio_start: float | None = None
    trace: str | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        """Refuse the impossible, naming the field."""
        _require(0 < self.nodes <= NODES_MAX, f"nodes: must be 1 to {NODES_MAX}")
        _require(
            math.isfinite(self.duration_seconds) and 0 < self.duration_seconds <= DURATION_SECONDS_MAX, "duration_seconds: out of range"
        )
        _require(0 <= self.warmup_seconds < self.duration_seconds, "warmup_seconds: must be shorter than the run")
        _require(self.router in POLICIES, f"router: unknown {self.router!r}, choose one of {', '.join(POLICIES)}")
        rate = self.rate_per_second
        _require(rate is None or (math.isfinite(rate) and 0 < rate <= 1e6), "rate_per_second: must be above zero")
        speed = self.speed
        _require(speed is None or (math.isfinite(speed) and speed > 0), "speed: must be above zero")
        start = self.emb_ratio_start
        _require(start is None or 0.0 < start < 1.0, "emb_ratio_start: must lie inside (0, 1)")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


class SimResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures: `cell` as `figures` names them, `nodes` per node, `series` over time for plots."""

    cell: dict[str, Any]
    nodes: list[dict[str, Any]]
    series: dict[str, list[float | None]]


DEMO_RATE_PER_SECOND = 40.0  # four emulated nodes at about 0.6 utilisation


def run(
    scenario: Scenario, *, progress: Callable[[float], None] | None = None, cancelled: Callable[[], bool] | None = None
) -> SimResult | None:
    """Simulate; `None` when `cancelled()` became true. `ValueError` names a bad field before any work starts."""
    profile = load_profile(scenario.profile)
    make_controller(scenario.method, GuardRails())  # unknown method: refused here, not after a minute
    cache_policy(scenario.admission, profile.rows_per_page)
    workload = workload_of(scenario, profile)
    fleet = SimulatedFleet(profile, scenario)
    finished = fleet.run(workload, progress=progress, cancelled=cancelled)
    if not finished:
        return None
    return SimResult(cell=fleet.statistics.cell(scenario), nodes=fleet.statistics.per_node(), series=fleet.statistics.series())


def workload_of(scenario: Scenario, profile: Profile) -> Workload:
    """The request stream of a scenario: a log if one is named, else a generator."""
    rate = scenario.rate_per_second or DEMO_RATE_PER_SECOND
    if scenario.trace is not None:
        pace = Pace(speed=scenario.speed, rate_per_second=scenario.rate_per_second)
        return open_trace(Path(scenario.trace), ReplayRules.for_profile(profile), pace, scenario.seed, loop=True)[0]
    parameters = DemoParameters.for_profile(profile)
    return synthetic_workload(scenario.workload, scenario.seed, rate, loop=True, parameters=parameters)
