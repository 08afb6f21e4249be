"""What a device of this machine really takes: cost constants and their scatter, from batches that were served.

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
        tuple(np.quantile(ratios, (np.arange(QUANTILES) + 0.5) / QUANTILES).round(4).tolist()),
    )


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
