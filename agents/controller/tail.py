"""The share of requests that a split would let miss the SLO: a queue with two kinds of requests.

A request finds its prefix (served in `hit_ms`) or does not (`miss_extra_ms` more). With Poisson arrivals the
mean wait is Pollaczek and Khinchine's, and a wait beyond w has about the probability busy * exp(-w * busy / mean
wait), which is exact for exponential service and the usual approximation in heavy traffic for any other.
"""

import math
from typing import NamedTuple

import numpy as np

from agents.controller.interface import Observation
from agents.controller.value import value_at
from agents.numerics.jit import kernel

_HIT_SHARE_MIN = 0.05  # of the mean: a request always costs something
SLO_MISS_COST = 10.0  # a request over the SLO weighs like ten mean requests' work


class TailModel(NamedTuple):
    """Two kinds of requests at the present split. A rate of zero means unknown, and predicts nothing."""

    hit_ms: float
    miss_extra_ms: float
    kv_hit_ratio: float
    requests_per_second: float
    slo_ms: float
    emb_value_now: float  # ms per second
    kv_value_now: float


def tail_model(observation: Observation) -> TailModel:
    """From what is measured: mean service = busy share / rate, and what a KV hit saves = KV value / hits."""
    rate, hits = observation.requests_per_second_slow, observation.kv_hit_ratio
    emb_now = value_at(observation.emb_value, observation.emb_ratio)
    kv_now = value_at(observation.kv_value, 1.0 - observation.emb_ratio)
    measured = (rate, hits, observation.utilisation, observation.slo_ms, emb_now, kv_now)
    if not (all(math.isfinite(each) for each in measured) and rate > 0.0 and hits > 0.0 and observation.utilisation > 0.0):
        return TailModel(0.0, 0.0, 0.0, 0.0, observation.slo_ms, emb_now, kv_now)
    mean_ms = 1e3 * observation.utilisation / rate
    extra_ms = kv_now / (rate * hits)
    hit_ms = max(mean_ms - (1.0 - hits) * extra_ms, _HIT_SHARE_MIN * mean_ms)
    return TailModel(hit_ms, extra_ms, hits, rate, observation.slo_ms, emb_now, kv_now)


@kernel
def slo_miss_ratio(tail: TailModel, emb_value: float, kv_value: float, load: float) -> float:
    """Predicted share over the SLO when the caches save these ms per second and `load` times as many requests come."""
    if not tail.requests_per_second > 0.0:
        return 0.0
    rate = tail.requests_per_second
    hits = min(1.0, tail.kv_hit_ratio * kv_value / tail.kv_value_now) if tail.kv_value_now > 0.0 else tail.kv_hit_ratio
    hit_ms = max(tail.hit_ms - (emb_value - tail.emb_value_now) / rate, _HIT_SHARE_MIN * tail.hit_ms)
    miss_ms = hit_ms + tail.miss_extra_ms
    arrivals_per_ms = rate * load / 1e3
    busy = arrivals_per_ms * (hits * hit_ms + (1.0 - hits) * miss_ms)
    if not busy < 1.0:
        return 1.0
    wait_ms = arrivals_per_ms * (hits * hit_ms**2 + (1.0 - hits) * miss_ms**2) / (2.0 * (1.0 - busy))
    late_hits = _late_ratio(tail.slo_ms - hit_ms, busy, wait_ms)
    return hits * late_hits + (1.0 - hits) * _late_ratio(tail.slo_ms - miss_ms, busy, wait_ms)


@kernel
def _late_ratio(slack_ms: float, busy: float, wait_ms: float) -> float:
    return 1.0 if slack_ms <= 0.0 else busy * np.exp(-slack_ms * busy / wait_ms)


@kernel
def slo_miss_cost(tail: TailModel, miss_ratio: float, target_ratio: float, load: float) -> float:
    """What missing the SLO more often than `target_ratio` weighs, in ms per second, beside the value of hits."""
    mean_ms = tail.hit_ms + (1.0 - tail.kv_hit_ratio) * tail.miss_extra_ms
    return SLO_MISS_COST * mean_ms * tail.requests_per_second * load * max(0.0, miss_ratio - target_ratio)
