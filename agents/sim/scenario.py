"""One simulated run: what is asked, checked before any work starts, and what comes back."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.caches.policy import cache_policy
from agents.controller.interface import Controller
from agents.controller.registry import make_controller
from agents.profiles import Profile, load_profile
from agents.router.state import POLICIES
from agents.sim.faults import Fault, parse_fault
from agents.sim.fleet import FleetSetup, SimulatedFleet
from agents.sim.possible import require_possible
from agents.sim.settle import Beginnings
from agents.sim.world import HOP_NS
from agents.wire.messages import GuardRails
from agents.workloads.block_adapter import ROW_SHIFT_MAX, BlockAdapter
from agents.workloads.blocks import BlockWorkload
from agents.workloads.catalogues import ROW_SHIFT, fleet_workload
from agents.workloads.demo import DemoParameters, synthetic_workload
from agents.workloads.fleet_workload import VERSION
from agents.workloads.replay import Pace, ReplayRules, open_trace
from agents.workloads.request import Workload

NODES_MAX = 1024  # the router's pick is O(nodes); beyond this a run would not end in a coffee break
DURATION_SECONDS_MAX = 86_400.0
DEMO_RATE_PER_SECOND = 40.0  # four emulated nodes at about 0.6 utilisation
PROBE_RATE_PER_SECOND = 10.0  # what a request asks for does not depend on the pace, and a block of a slow stream is soon drawn
CATALOGUE_RATE_PER_NODE = 180.0  # a node of 80 GB at about 0.65 utilisation


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to simulate. `rate_per_second` is the fleet's base rate.

    `profile` names one kind of node, or a mix: `a100-80g*3,h100-80g*1` for four nodes. `workload` is a demo regime or
    `CATALOGUE/REGIME`. Rows are sampled, one id in `2 ** row_shift`; left out, what suits the workload.
    """

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
    row_shift: int | None = None
    faults: tuple[str, ...] = ()
    settled: bool = True
    cost_factors: dict[str, float] = {}  # on the profiles' cost constants, by name
    rent: bool = True  # the joint router charges for the copy that a second copy displaces
    hop_ms: float = HOP_NS / 1e6  # router and gateway, each way
    jitter: tuple[float, ...] = ()  # equally likely factors on a batch's device time, where a device was measured
    late_ms: tuple[float, ...] = ()  # equally likely delays of an answer beyond the hop, where one was measured

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
        _require(self.seed >= 0, "seed: must not be negative")
        _require(self.row_shift is None or 0 <= self.row_shift <= ROW_SHIFT_MAX, f"row_shift: must be 0 to {ROW_SHIFT_MAX}")
        _require(math.isfinite(self.hop_ms) and 0.0 <= self.hop_ms <= 1e4, "hop_ms: must be 0 to 10000")
        _require(all(math.isfinite(one) and one > 0.0 for one in self.jitter), "jitter: must be above zero")
        _require(all(math.isfinite(one) and 0.0 <= one <= 1e4 for one in self.late_ms), "late_ms: must be 0 to 10000")
        for fault in self.parsed_faults:
            _require(fault.node < self.nodes, f"fault: there is no node {fault.node} among {self.nodes}")

    @property
    def parsed_faults(self) -> tuple[Fault, ...]:
        """What goes wrong, in order as given."""
        return tuple(parse_fault(text) for text in self.faults)

    @property
    def digest(self) -> str:
        """Identity of the question; the same digest gives the same figures."""
        return hashlib.sha256(msgspec.json.encode((VERSION, msgspec.to_builtins(self)))).hexdigest()[:32]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


class SimResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures: `cell` as `figures` names them, `nodes` per node, `series` over time for plots."""

    cell: dict[str, Any]
    nodes: list[dict[str, Any]]
    series: dict[str, list[float | None]]


def run(
    scenario: Scenario, *, progress: Callable[[float], None] | None = None, cancelled: Callable[[], bool] | None = None
) -> SimResult | None:
    """Simulate; `None` when `cancelled()` became true. `ValueError` names a bad field before any work starts."""
    fleet = fleet_for(scenario)
    if not fleet.run(progress=progress, cancelled=cancelled):
        return None
    statistics = fleet.statistics
    return SimResult(cell=asked(scenario) | statistics.cell(), nodes=statistics.per_node(), series=statistics.series())


def fleet_for(
    scenario: Scenario,
    *,
    routed: NDArray[np.void] | None = None,
    controllers: Callable[[int], Controller] | None = None,
    emb_ratio_start: float | None = None,
    stream: BlockWorkload | None = None,
    beginnings: Beginnings | None = None,
) -> SimulatedFleet:
    """The fleet that a scenario describes, ready to run.

    `routed` makes it an open loop over recorded routes; `controllers` gives each node one of its own, from `emb_ratio_start`.
    `stream` takes the place of the workload that the scenario names. `beginnings` are for many runs in one process.
    """
    profiles, workload = checked(scenario)
    setup = FleetSetup(
        profiles=profiles,
        method=scenario.method,
        admission=scenario.admission,
        router=scenario.router,
        seed=scenario.seed,
        duration_seconds=scenario.duration_seconds,
        warmup_seconds=scenario.warmup_seconds,
        emb_ratio_start=_start_ratio(scenario) if emb_ratio_start is None else emb_ratio_start,
        settled=scenario.settled,
        faults=scenario.parsed_faults,
        routed=routed,
        controllers=controllers,
        hop_ns=round(scenario.hop_ms * 1e6),
        jitter=scenario.jitter,
        late_ms=scenario.late_ms,
        router_settings={} if scenario.rent else {"rent_weight": 0.0},
    )
    return SimulatedFleet(setup, workload if stream is None else stream, beginnings)


def checked(scenario: Scenario) -> tuple[tuple[Profile, ...], BlockWorkload]:
    """One profile per node, and the stream; `ValueError` names what is unknown, unusable or more than any fleet of these could serve."""
    profiles = profiles_of(scenario)
    make_controller(scenario.method, GuardRails())
    cache_policy(scenario.admission, profiles[0].rows_per_page)
    workload = workload_of(scenario, profiles[0])
    slow = msgspec.structs.replace(scenario, rate_per_second=PROBE_RATE_PER_SECOND)
    require_possible(profiles, workload if scenario.trace else workload_of(slow, profiles[0]), _known_rate(scenario))
    return profiles, workload


def _known_rate(scenario: Scenario) -> float | None:
    """Base rate of the fleet; a log replayed at a speed has whatever rate it has."""
    if scenario.rate_per_second is not None or scenario.trace is not None:
        return scenario.rate_per_second
    return CATALOGUE_RATE_PER_NODE * scenario.nodes if "/" in scenario.workload else DEMO_RATE_PER_SECOND


def asked(scenario: Scenario) -> dict[str, Any]:
    """What a cell's figures belong to."""
    return {
        "profile": scenario.profile,
        "regime": scenario.workload if scenario.trace is None else "trace",
        "nodes": scenario.nodes,
        "admission": scenario.admission,
        "method": scenario.method,
        "router": scenario.router,
        "seed": scenario.seed,
    }


def profiles_of(scenario: Scenario) -> tuple[Profile, ...]:
    """One profile per node; `ValueError` for an unknown one, for counts that do not add up, or for other block sizes in a mix."""
    return tuple(_scaled(profile, scenario.cost_factors) for profile in _named_profiles(scenario))


def _scaled(profile: Profile, factors: dict[str, float]) -> Profile:
    """The profile with some of its cost constants multiplied."""
    known = type(profile.cost).__struct_fields__
    for name, factor in factors.items():
        _require(name in known, f"cost_factors: unknown {name!r}, choose from {', '.join(known)}")
        _require(math.isfinite(factor) and factor > 0.0, f"cost_factors: {name} must be multiplied by a number above zero")
    changed = {name: getattr(profile.cost, name) * factor for name, factor in factors.items()}
    return msgspec.structs.replace(profile, cost=msgspec.structs.replace(profile.cost, **changed))


def _named_profiles(scenario: Scenario) -> tuple[Profile, ...]:
    if "*" not in scenario.profile:
        return (load_profile(scenario.profile),) * scenario.nodes
    found = [profile for name, count in mix_of(scenario.profile) for profile in [load_profile(name)] * count]
    _require(len(found) == scenario.nodes, f"profile: {scenario.profile!r} names {len(found)} nodes, nodes says {scenario.nodes}")
    same = all(profile.block_tokens == found[0].block_tokens and profile.row_bytes == found[0].row_bytes for profile in found)
    _require(same, "profile: the kinds of node in a mix must agree on tokens per page and bytes per row")
    return tuple(found)


def mix_of(text: str) -> list[tuple[str, int]]:
    """Names and counts of `NAME*COUNT,NAME*COUNT`; `ValueError` names the part that is something else."""
    parts = [part.strip().rpartition("*") for part in text.split(",")]
    for part, (name, _, count) in zip(text.split(","), parts, strict=True):
        _require(name != "" and count.isdecimal() and 0 < int(count) <= NODES_MAX, f"profile: {part!r} is not NAME*COUNT")
    return [(name, int(count)) for name, _, count in parts]


def workload_of(scenario: Scenario, profile: Profile) -> BlockWorkload:
    """The request stream of a scenario: a log if one is named, else a generator."""
    if scenario.trace is None and "/" in scenario.workload:
        return _catalogue_workload(scenario)
    row_shift = scenario.row_shift or 0
    return BlockAdapter(_live_workload(scenario, profile), profile.rows, row_shift, scenario.seed.to_bytes(8, "little"))


def _catalogue_workload(scenario: Scenario) -> BlockWorkload:
    catalogue, _, regime = scenario.workload.partition("/")
    rate = scenario.rate_per_second or CATALOGUE_RATE_PER_NODE * scenario.nodes
    return fleet_workload(
        catalogue,
        regime,
        nodes=scenario.nodes,
        rate_per_second=rate,
        seed=scenario.seed,
        duration_seconds=scenario.duration_seconds,
        row_shift=ROW_SHIFT if scenario.row_shift is None else scenario.row_shift,
    )


def _live_workload(scenario: Scenario, profile: Profile) -> Workload:
    """A stream as a live load generator would send it."""
    if scenario.trace is not None:
        pace = Pace(speed=scenario.speed, rate_per_second=scenario.rate_per_second)
        return open_trace(Path(scenario.trace), ReplayRules.for_profile(profile), pace, scenario.seed, loop=True, sort=False)[0]
    parameters = DemoParameters.for_profile(profile)
    rate = scenario.rate_per_second or DEMO_RATE_PER_SECOND
    return synthetic_workload(scenario.workload, scenario.seed, rate, loop=True, parameters=parameters)


def _start_ratio(scenario: Scenario) -> float | None:
    """A static method starts where it stays."""
    if scenario.emb_ratio_start is not None:
        return scenario.emb_ratio_start
    if scenario.method.startswith("static-"):
        return float(scenario.method.removeprefix("static-"))
    return None
