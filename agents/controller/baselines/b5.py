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

from agents.controller.interface import Observation, Proposal
from agents.controller.tail import TailModel, slo_miss_cost, slo_miss_ratio, tail_model
from agents.controller.value import Curve, best_ratio, better, split_value, value_at
from agents.numerics.detectors import PageHinkley
from agents.numerics.jit import kernel
from agents.wire.messages import GuardRails

GRID_POINTS = 129  # a step of 0.006 with the default floors, under the guard's dead-band
_GAIN_RATIO_MIN = 0.01  # under it the curves' own noise decides
_COST_MARGIN = 1.5
_HORIZON_SECONDS_MAX = 120.0
_HORIZON_SECONDS_MIN = 10.0  # two decisions: changes seen closer together are one change
_CHANGES_KEPT = 16


class B5:
    """Value-curve optimum. `unit` and `kv_stream` say which curves the node must put into the observation.

    "ms" values hits by what they save and "cluster" takes KV reuse from the router's whole stream;
    "hits" and "node" are the two well-known mistakes, kept for comparison. With `tail` the predicted
    misses of the SLO are priced as well.
    """

    period_ns = 5_000_000_000

    def __init__(
        self,
        rails: GuardRails,
        *,
        unit: Literal["ms", "hits"] = "ms",
        kv_stream: Literal["cluster", "node"] = "cluster",
        tail: bool = False,
    ) -> None:
        self.name = "b5" + ("-hits" if unit == "hits" else "") + ("-node-stream" if kv_stream == "node" else "") + ("-p99" if tail else "")
        self._tail = tail
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
        best, value_best, value_now = self._best(observation)
        gain = value_best - value_now
        cost = move_cost_ms(observation, abs(best - present), gain)
        layers = {"best": best, "gain_ms_per_second": gain, "cost_ms": cost, "horizon_seconds": horizon}
        if not math.isfinite(gain):
            return Proposal(present, "curves_not_finite", {"best": present})
        if not gain > _GAIN_RATIO_MIN * abs(value_now):
            return Proposal(present, "gain_small", layers)
        if not gain * horizon > _COST_MARGIN * cost:
            return Proposal(present, "gain_under_cost", layers)
        return Proposal(best, "gain", layers)

    def _best(self, observation: Observation) -> tuple[float, float, float]:
        emb, kv, floor, ceiling = observation.emb_value, observation.kv_value, self._rails.emb_ratio_min, self._rails.emb_ratio_max
        if self._tail:
            return best_ratio_with_tail(emb, kv, floor, ceiling, observation.emb_ratio, GRID_POINTS, tail_model(observation))
        return best_ratio(emb, kv, floor, ceiling, observation.emb_ratio, GRID_POINTS)


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


@kernel
def best_ratio_with_tail(
    emb_value: Curve, kv_value: Curve, emb_ratio_min: float, emb_ratio_max: float, present: float, points: int, tail: TailModel
) -> tuple[float, float, float]:
    """As `best_ratio`, with the predicted misses of the SLO priced into every split."""
    value_now = _tail_value(emb_value, kv_value, present, tail)
    best, value_best = present, -np.inf
    for point in range(points):
        ratio = emb_ratio_min + (emb_ratio_max - emb_ratio_min) * point / (points - 1)
        value = _tail_value(emb_value, kv_value, ratio, tail)
        if better(value, value_best, abs(ratio - present), abs(best - present)):
            best, value_best = ratio, value
    if emb_ratio_min <= present <= emb_ratio_max and value_now >= value_best:
        return present, value_now, value_now
    return best, value_best, value_now


@kernel
def _tail_value(emb_value: Curve, kv_value: Curve, ratio: float, tail: TailModel) -> float:
    emb = value_at(emb_value, ratio)
    kv = value_at(kv_value, 1.0 - ratio)
    return emb + kv - slo_miss_cost(tail, slo_miss_ratio(tail, emb, kv, 1.0), 0.0, 1.0)


def move_cost_ms(observation: Observation, distance_ratio: float, gain: float) -> float:
    """Interference of the refill, and half of the gain missed while it lasts."""
    moved_bytes = distance_ratio * observation.pool_bytes
    refill_seconds = moved_bytes / observation.refill_bytes_per_second if observation.refill_bytes_per_second > 0.0 else 0.0
    return moved_bytes * observation.interference_ms_per_byte + 0.5 * gain * refill_seconds


def _lost_value_ratio(observation: Observation) -> float:
    """Share of all savable milliseconds that the present split does not save: a value-weighted miss rate."""
    offered = observation.emb_value_total + observation.kv_value_total
    if not offered > 0.0:
        return math.nan
    saved = split_value(observation.emb_value, observation.kv_value, observation.emb_ratio, 1.0)
    return 1.0 - saved / offered
