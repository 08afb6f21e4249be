"""The best ratio of every moment, by replay: what a method's distance is measured to.

The stream is run once under a static ratio and the joint router, and the routes are kept. Then each of the grid's ratios
serves exactly the same requests on the same nodes (open loop), and the device time of each second is summed. The optimum of
a moment is the parabola-refined argmin of the service time in a centred 30 s window, per node; its plateau is
where the cost stays within 1 % of that minimum; its noise is half the mean difference between the optima of the even and
of the odd requests. Never from P99 per window, which jumps, and never from a controller's own estimator.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.sim.scenario import Scenario, fleet_for

GRID = np.linspace(0.1, 0.9, 17)
WINDOW_SECONDS = 30
PLATEAU_RATIO = 0.01


class Optimum(NamedTuple):
    """Per second (windows that fit; W) and node."""

    first_second: int  # of the first window's centre
    emb_ratio: NDArray[np.float64]  # [W, N]
    low: NDArray[np.float64]  # [W, N] edges of the plateau
    high: NDArray[np.float64]
    noise: float  # split-half, in ratio


def replayed_service_ms(scenario: Scenario, grid: NDArray[np.float64] = GRID) -> NDArray[np.float64]:
    """Device time [G, N, seconds, 2] of the scenario's requests at every ratio of the grid [G], on the routes of the scenario itself."""
    recorded = fleet_for(scenario)
    recorded.run()
    routed = np.concatenate(recorded.routes)
    costs = []
    for ratio in grid:
        replay = fleet_for(msgspec.structs.replace(scenario, method=f"static-{ratio:.2f}", emb_ratio_start=float(ratio)), routed=routed)
        replay.run()
        costs.append(replay.statistics.service_ms.copy())
    return np.stack(costs)


def find_optimum(service_ms: NDArray[np.float64], grid: NDArray[np.float64], warmup_seconds: int, seconds: int) -> Optimum:
    """Optimum of every window between warm-up and end from `service_ms` [G, N, seconds, 2]."""
    both = _windows(service_ms.sum(axis=3), warmup_seconds, seconds)
    ratios = np.apply_along_axis(refined_argmin, 0, both, grid)
    halves = [np.apply_along_axis(refined_argmin, 0, _windows(service_ms[..., half], warmup_seconds, seconds), grid) for half in (0, 1)]
    low, high = np.apply_along_axis(plateau, 0, both, grid)
    return Optimum(warmup_seconds + WINDOW_SECONDS // 2, ratios.T, low.T, high.T, float(np.abs(halves[0] - halves[1]).mean() / 2.0))


def _windows(cost: NDArray[np.float64], first: int, end: int) -> NDArray[np.float64]:
    """Sums over sliding windows, [G, N, W]."""
    total = np.concatenate([np.zeros((*cost.shape[:2], 1)), np.cumsum(cost[:, :, first:end], axis=2)], axis=2)
    return np.asarray(total[:, :, WINDOW_SECONDS:] - total[:, :, :-WINDOW_SECONDS])


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
    count = span.shape[0]
    outside = np.maximum(np.maximum(optimum.low[:count] - span, span - optimum.high[:count]), 0.0)
    return Distance(float(np.abs(span - optimum.emb_ratio[:count]).mean()), float(outside.mean()))
