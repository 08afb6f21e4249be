"""B5: the optimum of the sampled value curves, with hysteresis.

    U(r) = emb_value(r) + kv_value(1 - r)          ms saved per second at ratio r
    r*   = argmax of U on 129 points inside the floors, ties towards the present
    cost = |r* - r| * pool * interference + 0.5 * gain * refill time
    move when gain * horizon > 1.5 * cost and gain > 1 % of U(r)

Two caches make the exact scan trivial, so no cliff of a curve can trap it. The horizon is half the
median time between changes of the traffic: a gain that will not last must be larger to be worth a move.
"""

import math
from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation, Proposal
from agents.numerics.detectors import PageHinkley
from agents.numerics.jit import allocating_kernel
from agents.wire.messages import GuardRails

GRID_POINTS = 129  # a step of 0.006 with the default floors, under the guard's dead-band
_GAIN_RATIO_MIN = 0.01  # under it the curves' own noise decides
_COST_MARGIN = 1.5
_HORIZON_SECONDS_MAX = 120.0
_HORIZON_SECONDS_MIN = 10.0  # two decisions: changes seen closer together are one change
_CHANGES_KEPT = 16
_TIE_RATIO = 1e-12  # equal up to rounding of sums in another order


class B5:
    """Value-curve optimum. `unit` and `kv_stream` say which curves the node must put into the observation.

    "ms" values hits by what they save and "cluster" takes KV reuse from the router's whole stream;
    "hits" and "node" are the two well-known mistakes, kept for comparison.
    """

    period_ns = 5_000_000_000

    def __init__(self, rails: GuardRails, *, unit: Literal["ms", "hits"] = "ms", kv_stream: Literal["cluster", "node"] = "cluster") -> None:
        self.name = "b5" + ("-hits" if unit == "hits" else "") + ("-node-stream" if kv_stream == "node" else "")
        self.unit = unit
        self.kv_stream = kv_stream
        self.uses_cluster_reuse = kv_stream == "cluster"
        self._rails = rails
        self._changes = ChangeTimes()

    def propose(self, observation: Observation) -> Proposal:
        """Best ratio if it pays to go there, else the present one."""
        present = observation.emb_ratio
        lost_ratio = _lost_value_ratio(observation)
        horizon = self._changes.horizon_seconds(observation.now_ns, observation.requests_per_second_fast, lost_ratio)
        best, value_best, value_now = best_ratio(
            observation.capacity_ratio,
            observation.emb_value,
            observation.kv_value,
            self._rails.emb_ratio_min,
            self._rails.emb_ratio_max,
            present,
        )
        gain = value_best - value_now
        cost = _move_cost_ms(observation, abs(best - present), gain)
        layers = {"best": best, "gain_ms_per_second": gain, "cost_ms": cost, "horizon_seconds": horizon}
        if not math.isfinite(gain):
            return Proposal(present, "curves_not_finite", {"best": present})
        if not gain > _GAIN_RATIO_MIN * value_now:
            return Proposal(present, "gain_small", layers)
        if not gain * horizon > _COST_MARGIN * cost:
            return Proposal(present, "gain_under_cost", layers)
        return Proposal(best, "gain", layers)


class ChangeTimes:
    """Times at which arrivals or the share of value lost changed level, and the horizon they suggest."""

    def __init__(self) -> None:
        # thresholds in units of log rate and of share: a lasting change by a third is seen in about 4 decisions
        self._arrivals = PageHinkley(threshold=0.8, tolerance=0.1)
        self._lost = PageHinkley(threshold=0.4, tolerance=0.05)
        self._gaps_seconds: deque[float] = deque(maxlen=_CHANGES_KEPT)
        self._changed_ns: int | None = None

    def horizon_seconds(self, now_ns: int, requests_per_second: float, lost_ratio: float) -> float:
        """Half the median time between changes, inside its bounds."""
        by_arrivals = self._arrivals.update(math.log(requests_per_second) if requests_per_second > 0.0 else math.nan)
        by_loss = self._lost.update(lost_ratio)
        if by_arrivals or by_loss:
            if self._changed_ns is not None:
                self._gaps_seconds.append((now_ns - self._changed_ns) / 1e9)
            self._changed_ns = now_ns
        if not self._gaps_seconds:
            return _HORIZON_SECONDS_MAX
        half_median = 0.5 * float(np.median(self._gaps_seconds))
        return min(max(half_median, _HORIZON_SECONDS_MIN), _HORIZON_SECONDS_MAX)


@allocating_kernel
def best_ratio(
    capacity_ratio: NDArray[np.float64],
    emb_value: NDArray[np.float64],
    kv_value: NDArray[np.float64],
    emb_ratio_min: float,
    emb_ratio_max: float,
    present: float,
) -> tuple[float, float, float]:
    """The grid's best ratio, U there, and U at the present ratio; all in one scan."""
    value_now = _total(capacity_ratio, emb_value, kv_value, present)
    best, value_best = present, -np.inf
    for point in range(GRID_POINTS):
        ratio = emb_ratio_min + (emb_ratio_max - emb_ratio_min) * point / (GRID_POINTS - 1)
        value = _total(capacity_ratio, emb_value, kv_value, ratio)
        tie = _TIE_RATIO * abs(value_best)
        nearer = abs(ratio - present) < abs(best - present)
        if value > value_best + tie or value_best == -np.inf or (nearer and value >= value_best - tie):
            best, value_best = ratio, value
    if emb_ratio_min <= present <= emb_ratio_max and value_now >= value_best:
        return present, value_now, value_now
    return best, value_best, value_now


@allocating_kernel
def _total(capacity_ratio: NDArray[np.float64], emb_value: NDArray[np.float64], kv_value: NDArray[np.float64], ratio: float) -> float:
    return float(np.interp(ratio, capacity_ratio, emb_value) + np.interp(1.0 - ratio, capacity_ratio, kv_value))


def _move_cost_ms(observation: Observation, distance_ratio: float, gain: float) -> float:
    """Interference of the refill, and half of the gain missed while it lasts."""
    moved_bytes = distance_ratio * observation.pool_bytes
    refill_seconds = moved_bytes / observation.refill_bytes_per_second if observation.refill_bytes_per_second > 0.0 else 0.0
    return moved_bytes * observation.interference_ms_per_byte + 0.5 * gain * refill_seconds


def _lost_value_ratio(observation: Observation) -> float:
    """Share of all savable milliseconds that the present split does not save: a value-weighted miss rate."""
    offered = observation.emb_value_total + observation.kv_value_total
    if not offered > 0.0:
        return math.nan
    saved = _total(observation.capacity_ratio, observation.emb_value, observation.kv_value, observation.emb_ratio)
    return 1.0 - saved / offered
