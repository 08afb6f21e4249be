"""The landscape: predicted mean and P99 latency at every ratio, from the value curves, the cost model and the arrivals.

Another ratio changes the milliseconds saved per second by the difference of the curves; divided by the request rate that
is a change of the mean service time. Service is a mixture of requests that find their prefix and of requests that do not,
each spread by the residuals of the cost regression; the node is taken as one server with Poisson arrivals, first
come first served (`numerics.queueing` states the formulas). A node batches, and its arrivals are not quite Poisson: so
both predictions are scaled by what is measured over what the model says at the present ratio.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation
from agents.numerics.queueing import Service, latency_quantile_ms, mean_latency_ms
from agents.wire.messages import GuardRails

GRID_POINTS = 17  # the grid of the static references
_SPREAD_POINTS = 9  # of each class of requests, at equal probabilities
_SPREAD = np.array([NormalDist().inv_cdf((i + 0.5) / _SPREAD_POINTS) for i in range(_SPREAD_POINTS)])
_SERVICE_MIN_RATIO = 0.05  # of the mean: no prediction says that a request costs next to nothing
_ANCHOR_MAX = 3.0  # a measurement further from the model than this belongs to other traffic
_NORMAL_95 = 1.96


class Measured(NamedTuple):
    """What the node knows of the present beside the observation; NaN where nothing is known yet."""

    service_ms: float  # mean per request, without the queue
    latency_ms: float  # mean
    latency_ms_p99: float
    residual_ms_sigma: float  # of the cost regression, per request
    residual_samples: float  # behind it, forgetting included
    emb_samples: float  # keys behind the value curves
    kv_samples: float


class LandscapePoint(NamedTuple):
    """Latency predicted at a ratio; `low_ms..high_ms` is the 95 % interval of the mean."""

    emb_ratio: float
    mean_ms: float
    p99_ms: float
    low_ms: float
    high_ms: float


class _Curves(NamedTuple):
    """Milliseconds saved per second at the ratios [R] of the grid and, last, at the present one."""

    emb: NDArray[np.float64]
    kv: NDArray[np.float64]


def landscape(observation: Observation, measured: Measured, rails: GuardRails) -> list[LandscapePoint]:
    """17 points inside the rails; empty while rate, service, or curves are unknown."""
    rate = observation.requests_per_second_slow
    if not (measured.service_ms > 0.0 and rate > 0.0):
        return []
    ratios = np.append(np.linspace(rails.emb_ratio_min, rails.emb_ratio_max, GRID_POINTS), observation.emb_ratio)
    curves = _curves(observation, ratios)
    service_ms = measured.service_ms + ((curves.emb + curves.kv)[-1] - (curves.emb + curves.kv)) / rate
    if not np.isfinite(service_ms).all():
        return []
    service_ms = np.maximum(service_ms, _SERVICE_MIN_RATIO * measured.service_ms)
    off_ms = _NORMAL_95 * _service_sigma_ms(observation, measured, curves)
    means, lows, highs = (
        mean_latency_ms(rate, _service(observation, measured, curves, np.maximum(mean, _SERVICE_MIN_RATIO * measured.service_ms)))
        for mean in (service_ms, service_ms - off_ms, service_ms + off_ms)
    )
    p99s = latency_quantile_ms(rate, _service(observation, measured, curves, service_ms), 0.99)
    mean_scale, p99_scale = _anchor(measured.latency_ms, means[-1]), _anchor(measured.latency_ms_p99, p99s[-1])
    table = np.column_stack([ratios, means * mean_scale, p99s * p99_scale, lows * mean_scale, highs * mean_scale])
    return [LandscapePoint(*row) for row in table[:-1].tolist()]


def _curves(observation: Observation, ratios: NDArray[np.float64]) -> _Curves:
    return _Curves(
        np.interp(ratios, observation.capacity_ratio, observation.emb_value),
        np.interp(1.0 - ratios, observation.capacity_ratio, observation.kv_value),
    )


def _service(observation: Observation, measured: Measured, curves: _Curves, mean_ms: NDArray[np.float64]) -> Service:
    """Requests with and without their prefix, each at equally probable points around its own mean."""
    found = _found_share(observation, curves)
    apart_ms = curves.kv / observation.requests_per_second_slow / np.maximum(found, 1e-9)  # what a found prefix saves
    apart_ms = np.where(found > 0.0, apart_ms, 0.0)
    sigma_ms = 0.0 if math.isnan(measured.residual_ms_sigma) else measured.residual_ms_sigma
    centres = np.stack([mean_ms - (1.0 - found) * apart_ms, mean_ms + found * apart_ms], axis=1)
    floor = _SERVICE_MIN_RATIO * mean_ms[:, None, None]
    points = np.maximum(centres[:, :, None] + sigma_ms * _SPREAD, floor).reshape(mean_ms.shape[0], -1)
    weights = np.repeat(np.stack([found, 1.0 - found], axis=1), _SPREAD_POINTS, axis=1) / _SPREAD_POINTS
    points *= (mean_ms / (points * weights).sum(axis=1))[:, None]  # the floor must not make a node slower
    return Service(points, weights)


def _found_share(observation: Observation, curves: _Curves) -> NDArray[np.float64]:
    """Share of requests that find a prefix at each ratio: as measured now, in proportion to what prefixes save."""
    now = observation.kv_hit_ratio
    if not (now > 0.0 and curves.kv[-1] > 0.0):
        return np.zeros_like(curves.kv)
    return np.asarray(np.clip(now * curves.kv / curves.kv[-1], 0.0, 1.0))


def _service_sigma_ms(observation: Observation, measured: Measured, curves: _Curves) -> NDArray[np.float64]:
    """Standard error of the mean service time at each ratio, [R].

    From the regression sigma / sqrt(n); from each curve, of which a share p lies between the present and the other
    capacity, total * sqrt(p (1 - p / 2) / keys), a binomial that does not shrink again for large shares: nothing at
    the present ratio, more the further away.
    """
    rate = observation.requests_per_second_slow
    squares = np.zeros_like(curves.emb)
    if measured.residual_samples > 0.0 and measured.residual_ms_sigma >= 0.0:
        squares += measured.residual_ms_sigma**2 / measured.residual_samples
    for value, total, samples in (
        (curves.emb, observation.emb_value_total, measured.emb_samples),
        (curves.kv, observation.kv_value_total, measured.kv_samples),
    ):
        if total > 0.0:
            between = np.clip(np.abs(value - value[-1]) / total, 0.0, 1.0)
            squares += (total / rate) ** 2 * between * (1.0 - between / 2.0) / max(1.0, samples)
    return np.sqrt(squares)


def _anchor(measured_ms: float, predicted_ms: float) -> float:
    """What the model's latencies have to be multiplied with; 1 while nothing is measured."""
    if not (measured_ms > 0.0 and predicted_ms > 0.0):
        return 1.0
    return min(max(measured_ms / predicted_ms, 1.0 / _ANCHOR_MAX), _ANCHOR_MAX)
