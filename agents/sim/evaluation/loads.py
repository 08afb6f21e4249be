"""How many requests a second make a cell's load normal or high.

A load is a utilisation at the best static ratio: 0.75-0.80 normal, 0.85-0.88 high. It is that of the *busiest minute*: the
work of a trend doubles over its five minutes and a burst is over in one, so a mean of 0.78 would end in saturation,
where latencies grow with the length of the run and comparisons mean nothing. Found once, under the paper's admission
and our router, and kept in `loads.json`, so that every method and admission of a cell meets the same arrivals.
"""

import json
import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import NamedTuple

import msgspec
import numpy as np

from agents.sim.scenario import Scenario, fleet_for

LOADS: dict[str, tuple[float, float]] = {"normal": (0.75, 0.80), "high": (0.85, 0.88)}
HARDWARE = "a100-80g"
NODES = 4
SECONDS = 300.0
_RATIOS = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
_RATE_START = 120.0
_ROUNDS = 7
_MARGIN = 0.005
_MINUTE = 60
SEARCHED_SEED = 101  # not among the seeds of any suite


class Found(NamedTuple):
    """One cell's load."""

    rate_per_node: float
    utilisation: float  # of the busiest minute at `emb_ratio`
    emb_ratio: float


def rate_per_node(catalogue: str, regime: str, load: str) -> float:
    """Requests per second and node, from the kept table; `ValueError` for a cell that is not in it."""
    table = json.loads(resources.files("agents.sim.evaluation").joinpath("loads.json").read_text("utf-8"))
    key = f"{catalogue}/{regime}/{load}"
    if key not in table:
        raise ValueError(f"load: none is known for {key!r}, choose one of {', '.join(sorted(table))}")
    return float(table[key]["rate_per_node"])


def searched(catalogue: str, regime: str) -> Scenario:
    """What is run to find a cell's load."""
    return Scenario(
        profile=HARDWARE,
        workload=f"{catalogue}/{regime}",
        nodes=NODES,
        admission="none",
        seed=SEARCHED_SEED,
        duration_seconds=SECONDS,
    )


def busiest_minute(scenario: Scenario) -> float:
    """Utilisation of a run's busiest minute."""
    fleet = fleet_for(scenario)
    fleet.run()
    return peak_utilisation(fleet.statistics.service_ms, scenario.warmup_seconds)


def find_load(
    scenario: Scenario,
    load: str,
    rate_start: float = _RATE_START,
    *,
    ratios: Sequence[float] = _RATIOS,
    utilisation: Callable[[Scenario], float] = busiest_minute,
) -> Found:
    """Search the rate at which the busiest minute of the best static ratio is as busy as the load says; rates are a node's."""
    low, high = LOADS[load]
    goal, rate, best = (low + high) / 2, rate_start, Found(rate_start, 1.0, 0.0)
    seen: list[Found] = []
    for _ in range(_ROUNDS):
        tried = [Found(rate, utilisation(_held(scenario, rate, ratio)), ratio) for ratio in _near(best.emb_ratio, ratios)]
        best = min(tried, key=lambda found: found.utilisation)
        if low + _MARGIN < best.utilisation < high - _MARGIN:
            break
        seen.append(best)
        rate *= (goal / best.utilisation) ** (1.0 / _elasticity(seen))
    return best


def _elasticity(seen: list[Found]) -> float:
    """Percent of utilisation per percent of rate: above 1, because more users between two visits of one evict more."""
    if len(seen) < 2:
        return 1.2
    (rate_before, before, _), (rate, now, _) = seen[-2:]
    return min(3.0, max(0.8, math.log(now / before) / math.log(rate / rate_before)))


def _near(ratio: float, ratios: Sequence[float]) -> Sequence[float]:
    """Where to look: everywhere at first, then around the best one."""
    return tuple(r for r in ratios if abs(r - ratio) < 0.15) or ratios


def _held(scenario: Scenario, rate: float, ratio: float) -> Scenario:
    return msgspec.structs.replace(scenario, method=f"static-{ratio:.2f}", rate_per_second=rate * scenario.nodes)


def peak_utilisation(service_ms: np.ndarray, warmup_seconds: float) -> float:
    """Of the busiest minute after the warm-up, the fleet's mean; `service_ms` is [N, seconds, 2]."""
    busy = service_ms.sum(axis=2).mean(axis=0)[int(warmup_seconds) : -1] / 1e3
    if busy.shape[0] <= _MINUTE:
        return float(busy.mean())
    return float(np.convolve(busy, np.full(_MINUTE, 1.0 / _MINUTE), mode="valid").max())
