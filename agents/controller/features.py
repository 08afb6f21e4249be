"""What the learned policies look at: two sets of features, computed in one pass without allocation.

Both are normalised with the statistics frozen in a policy's card and cut at five deviations. A signal that is not a
number keeps its last good value and is counted in a bit mask, so that the node can say which one was missing.

`helm` (20, in this order):

    emb_ratio                    share of the pool granted to EMB
    emb_hit_ratio, kv_hit_ratio  last minute
    emb_marginal_log             ln(1 + ms saved per second by one more GiB of EMB)
    kv_marginal_log              the same for KV
    best_distance_ratio          best split of the value curves minus the present one
    best_gain_ratio              what it would save more, as a share of all that caches could save
    slope_ratio                  what a tenth of the pool more for EMB would save, in the same unit
    arrivals_log                 ln(1 + requests per second), 60 s half-life
    surge_log                    ln(fast / slow arrivals)
    queue_slo_ratio              ln(1 + queued ms / SLO)
    utilisation                  share of time the device works
    p99_slo_log                  ln(P99 / SLO)
    slo_violation_ratio          share of requests over the SLO
    tokens_log                   ln(tokens per request)
    revisit_ratio                share of requests whose user came lately
    drift_ratio                  change of the hot set: area between the EMB curve's shape and its memory
    backlog_ratio                refill still to do, as a share of the pool
    since_move_log               ln(1 + seconds since the last move), at most ten minutes
    kv_used_ratio                used / granted KV pages

`paper` (7): hot-user share, KV and EMB hit ratio, mean length in thousands of tokens, SLO violations, ratio, P99 / SLO.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.controller.value import Curve, best_ratio, value_at
from agents.numerics.jit import kernel

HELM = (
    "emb_ratio",
    "emb_hit_ratio",
    "kv_hit_ratio",
    "emb_marginal_log",
    "kv_marginal_log",
    "best_distance_ratio",
    "best_gain_ratio",
    "slope_ratio",
    "arrivals_log",
    "surge_log",
    "queue_slo_ratio",
    "utilisation",
    "p99_slo_log",
    "slo_violation_ratio",
    "tokens_log",
    "revisit_ratio",
    "drift_ratio",
    "backlog_ratio",
    "since_move_log",
    "kv_used_ratio",
)
PAPER = ("hot_user_ratio", "kv_hit_ratio", "emb_hit_ratio", "kilotokens", "slo_violation_ratio", "emb_ratio", "p99_slo_ratio")
FEATURE_SETS = (HELM, PAPER)
FEATURES_MAX = 32
BEST_POINTS = 65  # of the scan for the best split: half the guard's dead-band apart and more would not be acted on
DEVIATIONS_MAX = 5.0
_SHAPE_POINTS = 32
_SHAPE_HALF_LIFE_SECONDS = 120.0
_MARGIN_RATIO = 1.0 / 64.0  # over which a marginal value is taken
_GIB = float(1 << 30)
_SINCE_SECONDS_MAX = 600.0

SIGHT = np.dtype(
    [
        ("raw", "f8", (FEATURES_MAX,)),  # before normalisation
        ("good", "f8", (FEATURES_MAX,)),  # normalised, last good values
        ("shape", "f8", (_SHAPE_POINTS,)),  # slow memory of the EMB curve's shape
        ("shape_ns", "i8"),  # 0: nothing remembered
        ("best_ratio", "f8"),  # best split of the curves at this decision
        ("slope_per_ms", "f8"),  # predicted change of ln(service time) per unit of ratio; NaN while unknown
        ("missing", "i8"),  # bit i: feature i was not a number
    ],
    align=True,
)


@kernel
def look(sight: Any, moment: Any, emb_value: Curve, kv_value: Curve, emb_ratio_min: float, emb_ratio_max: float, ratio: float) -> None:
    """The helm set into `sight.raw`. `ratio` is where the caller takes the node to be."""
    raw = sight.raw
    best, value_best, value_now = best_ratio(emb_value, kv_value, emb_ratio_min, emb_ratio_max, ratio, BEST_POINTS)
    offered = moment.emb_value_total + moment.kv_value_total
    emb_slope = _slope(emb_value, ratio)
    kv_slope = _slope(kv_value, 1.0 - ratio)
    pool_gib = moment.pool_bytes / _GIB
    raw[0] = ratio
    raw[1] = moment.emb_hit_ratio
    raw[2] = moment.kv_hit_ratio
    raw[3] = math.log1p(emb_slope / pool_gib)
    raw[4] = math.log1p(kv_slope / pool_gib)
    raw[5] = best - ratio
    raw[6] = (value_best - value_now) / offered
    raw[7] = 0.1 * (emb_slope - kv_slope) / offered
    raw[8] = math.log1p(moment.requests_per_second_slow)
    raw[9] = math.log(moment.requests_per_second_fast / moment.requests_per_second_slow)
    raw[10] = math.log1p(moment.queue_ms / moment.slo_ms)
    raw[11] = moment.utilisation
    raw[12] = math.log(moment.latency_ms_p99 / moment.slo_ms)
    raw[13] = moment.slo_violation_ratio
    raw[14] = math.log(moment.tokens_per_request)
    raw[15] = moment.revisit_ratio
    raw[16] = _drift(sight, moment.now_ns, emb_value, moment.emb_value_total)
    raw[17] = moment.refill_backlog_bytes / moment.pool_bytes
    raw[18] = math.log1p(min(moment.since_last_move_ns / 1e9, _SINCE_SECONDS_MAX))
    raw[19] = moment.kv_used_ratio
    sight.best_ratio = ratio if math.isnan(value_best) else best
    work_ms = moment.service_ms * moment.requests_per_second_slow
    sight.slope_per_ms = (kv_slope - emb_slope) / work_ms if work_ms > 0.0 else np.nan


@kernel
def look_as_paper(sight: Any, moment: Any, ratio: float) -> None:
    """The paper's seven into `sight.raw`; call after `look`, which finds what the other layers need."""
    raw = sight.raw
    raw[0] = moment.revisit_ratio
    raw[1] = moment.kv_hit_ratio
    raw[2] = moment.emb_hit_ratio
    raw[3] = moment.tokens_per_request / 1e3
    raw[4] = moment.slo_violation_ratio
    raw[5] = ratio
    raw[6] = moment.latency_ms_p99 / moment.slo_ms


@kernel
def normalise(sight: Any, weights: NDArray[np.float32], features: int) -> None:
    """`raw` to `good`: (x - mean) / scale, cut at five deviations; means stand first in `weights`, then 1 / scale."""
    raw, good = sight.raw, sight.good
    missing = 0
    for feature in range(features):
        value = (raw[feature] - weights[feature]) * weights[features + feature]
        if math.isnan(value):
            missing |= 1 << feature
        else:
            good[feature] = min(max(value, -DEVIATIONS_MAX), DEVIATIONS_MAX)
    sight.missing = missing


@kernel
def _slope(value: Curve, ratio: float) -> float:
    """Milliseconds per second that one more pool would save at this size."""
    low, high = max(ratio - _MARGIN_RATIO, 0.0), min(ratio + _MARGIN_RATIO, 1.0)
    return (value_at(value, high) - value_at(value, low)) / (high - low)


@kernel
def _drift(sight: Any, now_ns: int, emb_value: Curve, total: float) -> float:
    """Mean distance between the curve's shape now and its memory (0..1); the memory then follows."""
    shape = sight.shape
    if not total > 0.0:
        return np.nan
    if sight.shape_ns == 0:
        for point in range(_SHAPE_POINTS):
            shape[point] = value_at(emb_value, (point + 1) / _SHAPE_POINTS) / total
        sight.shape_ns = max(now_ns, 1)
        return 0.0
    keep = 0.5 ** (max(0, now_ns - sight.shape_ns) / 1e9 / _SHAPE_HALF_LIFE_SECONDS)
    distance = 0.0
    for point in range(_SHAPE_POINTS):
        now = value_at(emb_value, (point + 1) / _SHAPE_POINTS) / total
        distance += abs(now - shape[point])
        if not math.isnan(now):
            shape[point] = keep * shape[point] + (1.0 - keep) * now
    sight.shape_ns = max(now_ns, sight.shape_ns)
    return distance / _SHAPE_POINTS
