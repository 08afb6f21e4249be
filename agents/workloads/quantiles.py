"""Laws of chance as tables of quantiles, in whole numbers.

Drawing is then an addition and a shift, an order faster than a logarithm, and a stream's bytes cannot differ between
two processors whose mathematical libraries round the last bit differently: tables are rounded far above it.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

STEP_BITS = 12
STEPS = 1 << STEP_BITS
ONE = 1 << 20  # fixed-point one of tables whose mean is 1
RANK_ONE = 1 << 8  # fixed-point one of rank tables: head ranks are narrower than a step

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STEP_SHIFT = np.uint64(64 - STEP_BITS)
_FRACTION_SHIFT = np.uint64(64 - STEP_BITS - 32)
_FRACTION_MASK = np.uint64(0xFFFFFFFF)


@kernel
def mixed(seed: np.uint64, number: np.uint64) -> np.uint64:
    """64 well-mixed bits of a number under a seed (the splitmix64 finaliser): chance without a state."""
    x = seed + (number + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@kernel
def drawn(table: NDArray[np.int64], bits: np.uint64) -> int:
    """The quantile at `bits / 2 ** 64`, linear between two entries, which must lie under 2 ** 31 apart."""
    step = np.int64(bits >> _STEP_SHIFT)
    fraction = np.int64((bits >> _FRACTION_SHIFT) & _FRACTION_MASK)
    low = table[step]
    return int(low + (((table[step + 1] - low) * fraction) >> 32))


def exponential_table() -> NDArray[np.int64]:
    """Exponential law of mean `ONE`. Its last step holds that step's mean, so the tail ends at 10.3 means."""
    inner = [-math.log1p(-step / STEPS) for step in range(STEPS)]
    return _mean_one([*inner, inner[-1] + 2.0])


def lognormal_table(sigma: float) -> NDArray[np.int64]:
    """Log-normal law of shape `sigma` and mean `ONE`."""
    return _mean_one(_lognormal(0.0, sigma))


def length_biased_table(sigma: float) -> NDArray[np.int64]:
    """Intervals of that law as an outsider finds them, in units of its mean: long ones are met more often."""
    biased = _lognormal(sigma * sigma / 2.0, sigma)  # bias by length moves mu from -sigma^2 / 2 by sigma^2
    return np.array([round(value * ONE) for value in biased], np.int64)


def gap_table(mu: float, sigma: float, longest_seconds: float, compression: float) -> NDArray[np.int64]:
    """Microseconds of the stream between two requests of a visit: LN(mu, sigma) in ln log seconds, cut and compressed."""
    return np.array([round(1e6 * min(value, longest_seconds) / compression) for value in _lognormal(mu, sigma)], np.int64)


def zipf_mandelbrot_table(ids: int, exponent: float, shift: float) -> NDArray[np.int64]:
    """Ranks 0..ids-1 in units of 1 / `RANK_ONE`, weights `(rank + 1 + shift) ** -exponent` as a continuous law."""
    low, high = 0.5 + shift, ids + 0.5 + shift
    return np.array(
        [min(round((_inverse(step / STEPS, exponent, low, high) - low) * RANK_ONE), ids * RANK_ONE) for step in range(STEPS + 1)]
    )


def _inverse(u: float, exponent: float, low: float, high: float) -> float:
    """Quantile of the density `x ** -exponent` on [low, high]."""
    if abs(exponent - 1.0) < 1e-9:
        return float(low * (high / low) ** u)
    power = 1.0 - exponent
    return float((low**power + u * (high**power - low**power)) ** (1.0 / power))


def _lognormal(mu: float, sigma: float) -> list[float]:
    """Quantiles; the open ends stand at half a step."""
    normal = NormalDist(mu, sigma)
    return [math.exp(normal.inv_cdf(min(max(step, 0.5), STEPS - 0.5) / STEPS)) for step in range(STEPS + 1)]


def _mean_one(quantiles: list[float]) -> NDArray[np.int64]:
    mean = (sum(quantiles) - (quantiles[0] + quantiles[-1]) / 2.0) / STEPS
    return np.array([round(value / mean * ONE) for value in quantiles], np.int64)
