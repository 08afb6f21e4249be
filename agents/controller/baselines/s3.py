"""S3: the best schedule that a clairvoyant could have driven, and the controller that drives one.

The true cost of every window at every ratio of a grid comes from replaying the same requests. A dynamic programme
finds the cheapest path through them under the actuator's limit. A grown EMB cache is worth its new
size only once it is filled, so a rise pays the interference of its refill and half of the gain while it fills.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation, Proposal

SPACING_RATIO = 0.0125  # of the ratios a schedule may take: fine enough to end within the optimum's plateau


class Refill(NamedTuple):
    """The actuator: how fast the ratio moves, how fast grown EMB pages fill, and what a refilled byte costs."""

    pool_bytes: int
    move_ratio_per_second: float
    refill_bytes_per_second: float
    interference_ms_per_byte: float


class Plan(NamedTuple):
    """A ratio per window, and the cost of the whole path in the unit of the windows' costs."""

    emb_ratios: NDArray[np.float64]  # [W]
    cost: float


def clairvoyant_plan(
    cost_ms: NDArray[np.float64], grid: NDArray[np.float64], window_seconds: float, refill: Refill, start_ratio: float | None = None
) -> Plan:
    """Cheapest path. `cost_ms` [W, G]: total service milliseconds of window w at ratio `grid[g]` (increasing).

    Without `start_ratio` the first window may begin anywhere, as a fleet that starts stationary does.
    """
    _check(cost_ms, grid, window_seconds)
    count = max(2, round((grid[-1] - grid[0]) / SPACING_RATIO) + 1)
    ratios = np.linspace(grid[0], grid[-1], count)
    costs = np.stack([np.interp(ratios, grid, window) for window in cost_ms])
    reach = max(1, math.floor(refill.move_ratio_per_second * window_seconds / (ratios[1] - ratios[0]) + 1e-9))
    total, origins = _first(costs[0], ratios, reach, start_ratio), [np.arange(count)]
    for window in costs[1:]:
        total, came_from = _advance(total, window, ratios, reach, window_seconds, refill)
        origins.append(came_from)
    return Plan(ratios[_walk_back(int(np.argmin(total)), origins)], float(np.min(total)))


def _check(cost_ms: NDArray[np.float64], grid: NDArray[np.float64], window_seconds: float) -> None:
    if cost_ms.ndim != 2 or cost_ms.shape[0] < 1 or cost_ms.shape[1] != grid.shape[0] or grid.shape[0] < 2:
        raise ValueError("cost_ms must be [windows, grid] with at least one window and two ratios")
    if not (np.isfinite(cost_ms).all() and np.isfinite(grid).all() and (np.diff(grid) > 0.0).all()):
        raise ValueError("cost_ms must be finite and grid increasing")
    if not (math.isfinite(window_seconds) and window_seconds > 0.0):
        raise ValueError("window_seconds must be finite and > 0")


def _first(costs: NDArray[np.float64], ratios: NDArray[np.float64], reach: int, start_ratio: float | None) -> NDArray[np.float64]:
    if start_ratio is None:
        return costs.copy()
    start = int(np.argmin(np.abs(ratios - start_ratio)))
    return np.where(np.abs(np.arange(ratios.shape[0]) - start) <= reach, costs, np.inf)


def _advance(
    total: NDArray[np.float64], window: NDArray[np.float64], ratios: NDArray[np.float64], reach: int, seconds: float, refill: Refill
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cheapest total at every ratio after one more window, and where each came from; standing still wins ties."""
    best, came_from = total + window, np.arange(ratios.shape[0])
    for shift in [sign * size for size in range(1, reach + 1) for sign in (-1, 1)]:
        moved = np.full(ratios.shape[0], np.inf)
        to, source = (slice(shift, None), slice(None, -shift)) if shift > 0 else (slice(None, shift), slice(-shift, None))
        moved[to] = total[source] + window[to] + _transition(window[source], window[to], shift * (ratios[1] - ratios[0]), seconds, refill)
        better = moved < best
        best = np.where(better, moved, best)
        came_from = np.where(better, np.arange(ratios.shape[0]) - shift, came_from)
    return best, came_from


def _transition(
    stayed: NDArray[np.float64], moved: NDArray[np.float64], rise_ratio: float, seconds: float, refill: Refill
) -> NDArray[np.float64]:
    """Cost of the move itself: a fall has none beyond its window's, a rise must be refilled first."""
    if rise_ratio <= 0.0:
        return np.zeros(moved.shape[0])
    rise_bytes = rise_ratio * refill.pool_bytes
    filling = min(1.0, rise_bytes / refill.refill_bytes_per_second / seconds)
    return rise_bytes * refill.interference_ms_per_byte + 0.5 * filling * np.maximum(0.0, stayed - moved)


def _walk_back(end: int, origins: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    path = [end]
    for came_from in reversed(origins[1:]):
        path.append(int(came_from[path[-1]]))
    return np.array(path[::-1], np.int64)


class Schedule:
    """Proposes the ratio that a schedule has for the moment; before its start the first one."""

    period_ns = 1_000_000_000
    uses_cluster_reuse = False

    def __init__(
        self, starts_ns: NDArray[np.int64], emb_ratios: NDArray[np.float64], name: str = "s3", *, from_first: bool = False
    ) -> None:
        """`starts_ns` [W] increasing times from which `emb_ratios` [W] are in force, on the node's clock or `from_first` decision on."""
        if starts_ns.shape != emb_ratios.shape or starts_ns.ndim != 1 or starts_ns.shape[0] < 1:
            raise ValueError("starts_ns and emb_ratios must be of one length, at least 1")
        if not (np.diff(starts_ns) > 0).all():
            raise ValueError("starts_ns must increase")
        if not ((emb_ratios > 0.0) & (emb_ratios < 1.0)).all():
            raise ValueError("emb_ratios must lie inside (0, 1)")
        self.name = name
        self._starts_ns = starts_ns
        self._emb_ratios = emb_ratios
        self._zero_ns: int | None = None if from_first else 0

    def propose(self, observation: Observation) -> Proposal:
        """The ratio in force now."""
        if self._zero_ns is None:
            self._zero_ns = observation.now_ns
        window = max(0, int(np.searchsorted(self._starts_ns, observation.now_ns - self._zero_ns, side="right")) - 1)
        ratio = float(self._emb_ratios[window])
        return Proposal(ratio, "schedule", {"schedule": ratio})


def parse_schedule(text: str) -> Schedule:
    """`0:0.50,60:0.35`: from the first decision on 0.50, from 60 s after it on 0.35."""
    try:
        pairs = [(float(at), float(ratio)) for at, ratio in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise ValueError(f"schedule: {text!r} is not SECONDS:RATIO,SECONDS:RATIO,...") from None
    if not all(math.isfinite(at) and abs(at) < 1e9 for at, _ in pairs):
        raise ValueError("schedule: seconds must be finite")
    starts_ns = np.array([round(at * 1e9) for at, _ in pairs], np.int64)
    return Schedule(starts_ns, np.array([ratio for _, ratio in pairs]), name=f"schedule-{text}", from_first=True)
