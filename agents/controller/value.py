"""Kernels that read value curves: what a cache of some size saves, what a split saves, and the best split.

A curve is [G] milliseconds saved per second by caches of 0, 1/(G-1), ..., 1 of the pool, so that any size is found in
one step. Curves come as plain arrays: handing a kernel a tuple of them costs more than the whole scan.
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

Curve = NDArray[np.float64]
_TIE_RATIO = 1e-12  # equal up to rounding of sums in another order


@kernel
def value_at(value: Curve, ratio: float) -> float:
    """Linear interpolation; level beyond the ends, NaN for a ratio that is NaN."""
    last = value.shape[0] - 1
    place = min(max(ratio, 0.0), 1.0) * last
    point = min(max(int(place), 0), last - 1)
    return float(value[point] + (place - point) * (value[point + 1] - value[point]))


@kernel
def split_value(emb_value: Curve, kv_value: Curve, ratio: float, kv_weight: float) -> float:
    """Milliseconds per second that a split saves when every KV hit counts `kv_weight` times."""
    return value_at(emb_value, ratio) + kv_weight * value_at(kv_value, 1.0 - ratio)


@kernel
def better(value: float, best: float, distance: float, best_distance: float) -> bool:
    """Whether a candidate beats the best so far; equals go to the one nearer to the present."""
    if best == -np.inf:
        return True
    tie = _TIE_RATIO * abs(best)
    return value > best + tie or (distance < best_distance and value >= best - tie)


@kernel
def best_ratio(
    emb_value: Curve, kv_value: Curve, emb_ratio_min: float, emb_ratio_max: float, present: float, points: int
) -> tuple[float, float, float]:
    """Best of an even grid of `points` inside the floors, its value, and the value at the present ratio."""
    value_now = split_value(emb_value, kv_value, present, 1.0)
    best, value_best = present, -np.inf
    for point in range(points):
        ratio = emb_ratio_min + (emb_ratio_max - emb_ratio_min) * point / (points - 1)
        value = split_value(emb_value, kv_value, ratio, 1.0)
        if better(value, value_best, abs(ratio - present), abs(best - present)):
            best, value_best = ratio, value
    if emb_ratio_min <= present <= emb_ratio_max and value_now >= value_best:
        return present, value_now, value_now
    return best, value_best, value_now
