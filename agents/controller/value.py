"""Kernels that read value curves: what a cache of some size saves, what a split saves, and the best split.

A curve is [G] milliseconds saved per second over [G] increasing shares of the pool. Nothing here allocates.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

Curve = NDArray[np.float64]
_TIE_RATIO = 1e-12  # equal up to rounding of sums in another order


class ValueCurves(NamedTuple):
    """The two curves of an observation on their common grid."""

    capacity_ratio: Curve
    emb_value: Curve
    kv_value: Curve


@kernel
def value_at(capacity_ratio: Curve, value: Curve, ratio: float) -> float:
    """Linear interpolation, level beyond the ends; found in one step on an even grid, by walking on any other."""
    last = capacity_ratio.shape[0] - 1
    if ratio <= capacity_ratio[0]:
        return float(value[0])
    if ratio >= capacity_ratio[last]:
        return float(value[last])
    point = int((ratio - capacity_ratio[0]) / (capacity_ratio[last] - capacity_ratio[0]) * last)
    point = min(max(point, 0), last - 1)
    while point > 0 and capacity_ratio[point] > ratio:
        point -= 1
    while point < last - 1 and capacity_ratio[point + 1] < ratio:
        point += 1
    share = (ratio - capacity_ratio[point]) / (capacity_ratio[point + 1] - capacity_ratio[point])
    return float(value[point] + share * (value[point + 1] - value[point]))


@kernel
def split_value(curves: ValueCurves, ratio: float, kv_weight: float) -> float:
    """Milliseconds per second that a split saves when every KV hit counts `kv_weight` times."""
    emb = value_at(curves.capacity_ratio, curves.emb_value, ratio)
    return emb + kv_weight * value_at(curves.capacity_ratio, curves.kv_value, 1.0 - ratio)


@kernel
def better(value: float, best: float, distance: float, best_distance: float) -> bool:
    """Whether a candidate beats the best so far; equals go to the one nearer to the present."""
    if best == -np.inf:
        return True
    tie = _TIE_RATIO * abs(best)
    return value > best + tie or (distance < best_distance and value >= best - tie)


@kernel
def best_ratio(curves: ValueCurves, emb_ratio_min: float, emb_ratio_max: float, present: float, points: int) -> tuple[float, float, float]:
    """Best of an even grid of `points` inside the floors, its value, and the value at the present ratio."""
    value_now = split_value(curves, present, 1.0)
    best, value_best = present, -np.inf
    for point in range(points):
        ratio = emb_ratio_min + (emb_ratio_max - emb_ratio_min) * point / (points - 1)
        value = split_value(curves, ratio, 1.0)
        if better(value, value_best, abs(ratio - present), abs(best - present)):
            best, value_best = ratio, value
    if emb_ratio_min <= present <= emb_ratio_max and value_now >= value_best:
        return present, value_now, value_now
    return best, value_best, value_now
