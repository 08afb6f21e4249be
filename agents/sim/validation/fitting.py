"""What a device and a hop of this machine really take: cost constants, a constant, and the scatter of both.

A profile's constants are those of the machine they were measured on, alone. A simulator that answers for *this* machine,
with everything else it does, takes them from the first part of a live run and is judged by the rest.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.least_squares import nonnegative
from agents.profiles import CostConstants
from agents.sim.replay import Served

BATCHES_MIN = 200  # three factors and a scatter from fewer would be noise
QUANTILES = 256  # of the scatter: its last one stands for one batch in so many
FACTOR_MIN = 1e-3  # a constant that fits as zero still has to be above it
_PASSES = 3


class Device(NamedTuple):
    """A profile's cost constants by name, multiplied; and equally likely factors on a batch's time, mean about 1."""

    cost_factors: dict[str, float]
    jitter: tuple[float, ...]


class Hop(NamedTuple):
    """Router and gateway: milliseconds each way, and equally likely ones more before an answer is there."""

    hop_ms: float
    late_ms: tuple[float, ...]


def fit_device(served: Sequence[Served], cost: CostConstants) -> Device:
    """Least squares of relative errors over three causes. `ValueError` for too few batches.

    Rows found, candidates and what is fixed hardly vary from one request to the next, and long histories are also
    the squares, so no stream tells these apart: what the host does for any request gets one factor, the link one,
    the compute of histories one.
    """
    if len(served) < BATCHES_MIN:
        raise ValueError(f"{len(served)} batches are too few to fit a device to, {BATCHES_MIN} are the least")
    expected, measured = _expected_ms(served, cost), np.array([one.service_ms for one in served])
    factors = np.ones(expected.shape[1])
    for _ in range(_PASSES):
        weight = 1.0 / (expected @ factors)
        factors = np.maximum(nonnegative(measured * weight, expected * weight[:, None]), FACTOR_MIN)
    ratios = measured / (expected @ factors)
    host, link, compute = (float(factor) for factor in factors)
    return Device(
        {
            "ms_fixed": host,
            "ms_per_candidate": host,
            "ms_per_hit_row": host,
            "ms_per_missing_row": link,
            "ms_per_token": compute,
            "ms_per_token_squared": compute,
        },
        _scatter(ratios),
    )


def fit_hop(outside_ms: NDArray[np.float64], hand_over_ms: float) -> Hop:
    """From what requests spent outside queue and device, NaN where one was not answered, and until an idle device takes one.

    What even the quickest spends is the same both ways; what others spend more comes on the way back, where it delays nobody else.
    `ValueError` for too few requests.
    """
    known = outside_ms[np.isfinite(outside_ms)]
    if known.size < BATCHES_MIN:
        raise ValueError(f"{known.size} requests are too few to fit a hop to, {BATCHES_MIN} are the least")
    took_ms = np.maximum(np.array(_scatter(known)) + hand_over_ms, 0.0)
    return Hop(float(took_ms[0]) / 2.0, tuple((took_ms - took_ms[0]).round(4).tolist()))


def _scatter(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Equally likely values that stand for all of these, in order."""
    return tuple(np.quantile(values, (np.arange(QUANTILES) + 0.5) / QUANTILES).round(4).tolist())


def _expected_ms(served: Sequence[Served], cost: CostConstants) -> NDArray[np.float64]:
    """What each batch would take with the constants as they are, [B, 3]: host, link, compute of histories."""
    return np.array(
        [
            [
                cost.ms_fixed * one.requests + cost.ms_per_candidate * one.candidates + cost.ms_per_hit_row * one.rows_found,
                cost.ms_per_missing_row * one.rows_missing,
                cost.ms_per_token * one.tokens + cost.ms_per_token_squared * one.tokens_squared,
            ]
            for one in served
        ],
        dtype=np.float64,
    )
