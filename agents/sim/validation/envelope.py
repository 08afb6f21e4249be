"""What was validated, and whether a question lies inside it.

A simulator's figure is worth what it was last held against. A validation is a live run's load, regime and fleet, the
device that was found in it, and how far off the prediction was. Questions about another profile, another regime, more
load or a longer time than that are answered all the same, and say so.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from agents.sim.scenario import Scenario

FILE = "validations.json"
LOAD_MARGIN_RATIO = 0.10  # beyond what was measured; a run's own load varies by that much
UNVARIED = ("steady", "sessions", "smooth")  # workloads that stay as they begin
KEPT_MAX = 64


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """One live run held against its prediction. Errors are the fleet's, in shares; hit ratios as differences."""

    at: str  # ISO 8601, UTC
    profile: str
    workload: str
    nodes: int
    rate_per_node: float  # requests a second that were answered
    utilisation: float  # of the busiest node
    seconds: float  # of the stream
    requests: int
    latency_p50_error: float
    latency_p99_error: float
    node_p50_error_max: float  # absolute, worst node, on the routes as they were
    node_p99_error_max: float
    hit_ratio_error: float
    host_cpu_ratio: float  # share of the machine's cores that was busy
    cost_factors: dict[str, float]  # the device as found, see `fitting`
    jitter: tuple[float, ...]
    hop_ms: float
    late_ms: tuple[float, ...] = ()


def applicable(validations: Sequence[Validation], profile: str, workload: str) -> Validation | None:
    """The newest of this profile and workload, else the newest of the profile, else of anything."""
    ranked = sorted(validations, key=lambda one: (one.profile == profile, one.profile == profile and one.workload == workload, one.at))
    return ranked[-1] if ranked else None


def as_measured(scenario: Scenario, found: Validation | None) -> Scenario:
    """The scenario on the device that was found, where it is of that kind."""
    if found is None or found.profile != scenario.profile:
        return scenario
    return msgspec.structs.replace(
        scenario, cost_factors=found.cost_factors, jitter=found.jitter, hop_ms=found.hop_ms, late_ms=found.late_ms
    )


def outside(found: Validation | None, scenario: Scenario, utilisation: float | None, throughput_per_second: float | None) -> list[str]:
    """Why an answer is not covered by the validation: one short sentence each, none when it is."""
    if found is None:
        return ["the simulator was never held against a live run on this machine"]
    if found.profile != scenario.profile:
        return [f"measured on profile {found.profile}, asked about {scenario.profile}"]
    reasons = []
    if found.workload != scenario.workload:
        reasons.append(f"measured under {found.workload}, asked about {scenario.workload}")
    elif found.workload not in UNVARIED and scenario.duration_seconds > found.seconds:
        reasons.append(f"of {found.workload} only the first {found.seconds:.0f} s were measured")
    most = 1.0 + LOAD_MARGIN_RATIO
    per_node = None if throughput_per_second is None else throughput_per_second / scenario.nodes
    if per_node is not None and per_node > most * found.rate_per_node:
        reasons.append(f"{per_node:.1f} requests/s a node, measured up to {found.rate_per_node:.1f}")
    elif utilisation is not None and utilisation > most * found.utilisation:
        reasons.append(f"utilisation {utilisation:.2f}, measured up to {found.utilisation:.2f}")
    return reasons


# --- where they are kept ------------------------------------------------------------------


def read_validations(folder: Path) -> list[Validation]:
    """What was kept in a state folder; nothing of a file that is missing or of another version."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Validation])
    except (OSError, msgspec.MsgspecError):
        return []


def keep_validation(folder: Path, found: Validation) -> None:
    """Put it in the place of the one of the same profile and workload."""
    others = [one for one in read_validations(folder) if (one.profile, one.workload) != (found.profile, found.workload)]
    part = folder / f"{FILE}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode([*others[-KEPT_MAX:], found])))
    part.replace(folder / FILE)
