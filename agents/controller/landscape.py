"""The landscape: predicted mean milliseconds per request at every ratio, from the value curves.

Moving from the present ratio to another changes the milliseconds saved per second by the difference of
the curves; divided by the request rate that is a change of the mean service time. Quantiles are not a
function of the curves and are not guessed here.
"""

import math
from typing import NamedTuple

import numpy as np

from agents.controller.interface import Observation
from agents.wire.messages import GuardRails

GRID_POINTS = 17  # the grid of the static references


class LandscapePoint(NamedTuple):
    """Mean service time predicted at a ratio."""

    emb_ratio: float
    mean_ms: float


def landscape(observation: Observation, mean_service_ms: float, rails: GuardRails) -> list[LandscapePoint]:
    """17 points inside the rails; empty while rate, mean or curves are unknown.

    `mean_service_ms` is the measured mean at the present ratio, without the queue: queueing follows from
    utilisation and is not additive in the curves.
    """
    rate = observation.requests_per_second_slow
    if not (math.isfinite(mean_service_ms) and rate > 0.0):
        return []
    ratios = np.linspace(rails.emb_ratio_min, rails.emb_ratio_max, GRID_POINTS)
    saved = _saved_ms_per_second(observation, np.append(ratios, observation.emb_ratio))
    means = mean_service_ms + (saved[-1] - saved[:-1]) / rate
    if not np.isfinite(means).all():
        return []
    return [LandscapePoint(float(ratio), max(0.0, float(mean))) for ratio, mean in zip(ratios, means, strict=True)]


def _saved_ms_per_second(observation: Observation, ratios: np.ndarray) -> np.ndarray:
    emb = np.interp(ratios, observation.capacity_ratio, observation.emb_value)
    kv = np.interp(1.0 - ratios, observation.capacity_ratio, observation.kv_value)
    return np.asarray(emb + kv)
