"""The best ratio of every moment: what a method's distance is measured to, and what clairvoyant schedules are made from.

Static splits serve the same stream, each in closed loop: the router follows the split, as it would follow a moving one. Recorded
routes would not do: users are where the recorded split could keep them, and the recorded split looks best
(docs/decisions/0007). The optimum of a moment is the parabola-refined argmin of the fleet's device time in a centred 30 s
window; its plateau is where the cost stays within 1 % of that minimum; its noise is half the mean difference between the
optima of the even and of the odd requests. Never from P99 per window, which jumps, and never from a controller's own estimator.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GRID = np.linspace(0.1, 0.9, 17)
WINDOW_SECONDS = 30
PLATEAU_RATIO = 0.01


class Optimum(NamedTuple):
    """Per second (windows that fit; W), of the whole fleet."""

    first_second: int  # of the first window's centre
    emb_ratio: NDArray[np.float64]  # [W]
    low: NDArray[np.float64]  # [W] edges of the plateau
    high: NDArray[np.float64]
    noise: float  # split-half, in ratio


def find_optimum(service_ms: NDArray[np.float64], grid: NDArray[np.float64], warmup_seconds: int, seconds: int) -> Optimum:
    """Optimum of every window between warm-up and end from `service_ms` [G, seconds, 2], by half of the requests."""
    both = _windows(service_ms.sum(axis=2), warmup_seconds, seconds)
    ratios = np.apply_along_axis(refined_argmin, 0, both, grid)
    halves = [np.apply_along_axis(refined_argmin, 0, _windows(service_ms[..., half], warmup_seconds, seconds), grid) for half in (0, 1)]
    low, high = np.apply_along_axis(plateau, 0, both, grid)
    return Optimum(warmup_seconds + WINDOW_SECONDS // 2, ratios, low, high, float(np.abs(halves[0] - halves[1]).mean() / 2.0))


def _windows(cost: NDArray[np.float64], first: int, end: int) -> NDArray[np.float64]:
    """Sums over sliding windows, [G, W]."""
    total = np.concatenate([np.zeros((cost.shape[0], 1)), np.cumsum(cost[:, first:end], axis=1)], axis=1)
    return np.asarray(total[:, WINDOW_SECONDS:] - total[:, :-WINDOW_SECONDS])


def refined_argmin(cost: NDArray[np.float64], grid: NDArray[np.float64]) -> float:
    """Ratio of the lowest cost [G], moved to the vertex of the parabola through it and its neighbours."""
    best = int(np.argmin(cost))
    if best in (0, cost.shape[0] - 1):
        return float(grid[best])
    before, here, after = cost[best - 1 : best + 2]
    bend = before - 2.0 * here + after
    shift = 0.0 if bend <= 0.0 else 0.5 * (before - after) / bend
    return float(grid[best] + shift * (grid[1] - grid[0]))


def plateau(cost: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest and highest ratio at which the cost [G], linear between the grid's points, is within 1 % of its minimum."""
    fine = np.linspace(grid[0], grid[-1], 16 * (grid.shape[0] - 1) + 1)
    inside = fine[np.interp(fine, grid, cost) <= cost.min() * (1.0 + PLATEAU_RATIO)]
    return np.array([inside[0], inside[-1]])


class Distance(NamedTuple):
    """How far a run's ratios were from the optimum, means over nodes and time."""

    to_point: float
    to_plateau: float


def distance(ratios: NDArray[np.float64], optimum: Optimum) -> Distance:
    """`ratios` [samples, N], one a second from the stream's start."""
    span = ratios[optimum.first_second : optimum.first_second + optimum.emb_ratio.shape[0]]
    best, low, high = (part[: span.shape[0], None] for part in (optimum.emb_ratio, optimum.low, optimum.high))
    outside = np.maximum(np.maximum(low - span, span - high), 0.0)
    return Distance(float(np.abs(span - best).mean()), float(outside.mean()))
