"""Means and rates that forget with a half-life in time, not in samples.

Both are unbiased from the first sample on: the decayed sum is divided by the decayed weight (means)
or by the decayed length of the time observed (rates), never by its limit. Many meters stand in one
array of records, so that a kernel that feeds a dozen of them is handed one array.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

METER = np.dtype([("half_life_ns", "f8"), ("started_ns", "i8"), ("last_ns", "i8"), ("sum", "f8"), ("weight", "f8")], align=True)

_LN2 = math.log(2.0)
_AGE_SECONDS_MIN = 1.0  # one event in the first millisecond is not a thousand per second


def new_meters(half_lives_seconds: Sequence[float], now_ns: int = 0) -> NDArray[np.void]:
    """One empty METER per half-life; `ValueError` for a half-life that is no time."""
    if not all(math.isfinite(seconds) and seconds > 0.0 for seconds in half_lives_seconds):
        raise ValueError("half_lives_seconds must be finite and > 0")
    meters: NDArray[Any] = np.zeros(len(half_lives_seconds), METER)
    meters["half_life_ns"] = np.array(half_lives_seconds) * 1e9
    meters["started_ns"] = meters["last_ns"] = now_ns
    return meters


@kernel
def _forget(meter: Any, now_ns: int) -> None:
    """Bring sum and weight forward to `now_ns`; time that runs backwards stands still."""
    elapsed_ns = now_ns - meter.last_ns
    if elapsed_ns <= 0:
        return
    decay = 0.5 ** (elapsed_ns / meter.half_life_ns)
    meter.sum *= decay
    meter.weight *= decay
    meter.last_ns = now_ns


@kernel
def add_mean(meters: NDArray[np.void], place: int, now_ns: int, value: float, weight: float = 1.0) -> None:
    """Add a sample to a mean; one that is not finite, or weighs nothing, is left out."""
    if not math.isfinite(value) or not (math.isfinite(weight) and weight > 0.0):
        return
    meter = meters[place]
    if meter.weight == 0.0:
        meter.last_ns = now_ns
    _forget(meter, now_ns)
    meter.sum += value * weight
    meter.weight += weight


@kernel
def mean_of(meters: NDArray[np.void], place: int) -> float:
    """Present mean; NaN before the first sample."""
    meter = meters[place]
    return float(meter.sum / meter.weight) if meter.weight > 0.0 else np.nan


@kernel
def add_rate(meters: NDArray[np.void], place: int, now_ns: int, count: float = 1.0) -> None:
    """Count events of a rate at `now_ns`; a count that is not finite is left out."""
    if not math.isfinite(count):
        return
    meter = meters[place]
    _forget(meter, now_ns)
    meter.sum += count


@kernel
def rate_of(meters: NDArray[np.void], place: int, now_ns: int) -> float:
    """Events per second at `now_ns`, falling while nothing comes."""
    meter = meters[place]
    age_ns = max(max(now_ns, meter.last_ns) - meter.started_ns, int(_AGE_SECONDS_MIN * 1e9))
    seconds = meter.half_life_ns / 1e9 / _LN2 * -math.expm1(-_LN2 * age_ns / meter.half_life_ns)
    return float(meter.sum * 0.5 ** (max(0, now_ns - meter.last_ns) / meter.half_life_ns) / seconds)
