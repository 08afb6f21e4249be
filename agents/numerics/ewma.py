"""Means and rates that forget with a half-life in time, not in samples.

Both are unbiased from the first sample on: the decayed sum is divided by the decayed weight (means)
or by the decayed length of the time observed (rates), never by its limit.
"""

import math

_LN2 = math.log(2.0)
_AGE_SECONDS_MIN = 1.0  # one event in the first millisecond is not a thousand per second


class EwmaMean:
    """Decaying mean of samples at any times; NaN before the first."""

    __slots__ = ("_half_life_ns", "_last_ns", "_sum", "_weight")

    def __init__(self, half_life_seconds: float) -> None:
        self._half_life_ns = _positive(half_life_seconds) * 1e9
        self._last_ns = 0
        self._sum = 0.0
        self._weight = 0.0

    def add(self, now_ns: int, value: float, weight: float = 1.0) -> None:
        """Add a sample; one that is not finite, or weighs nothing, is left out."""
        if not math.isfinite(value) or not (math.isfinite(weight) and weight > 0.0):
            return
        elapsed_ns = now_ns - self._last_ns if self._weight else 0
        decay = 0.5 ** (max(0, elapsed_ns) / self._half_life_ns)
        self._sum = self._sum * decay + value * weight
        self._weight = self._weight * decay + weight
        self._last_ns = max(now_ns, self._last_ns) if elapsed_ns else now_ns

    @property
    def mean(self) -> float:
        """Present mean; NaN while empty."""
        return self._sum / self._weight if self._weight else math.nan


class EwmaRate:
    """Decaying rate of events per second."""

    __slots__ = ("_half_life_ns", "_last_ns", "_started_ns", "_sum")

    def __init__(self, half_life_seconds: float, now_ns: int) -> None:
        self._half_life_ns = _positive(half_life_seconds) * 1e9
        self._started_ns = now_ns
        self._last_ns = now_ns
        self._sum = 0.0

    def add(self, now_ns: int, count: float = 1.0) -> None:
        """Count events at `now_ns`; time that runs backwards stands still."""
        if not math.isfinite(count):
            return
        self._sum = self._sum * self._decay(now_ns) + count
        self._last_ns = max(self._last_ns, now_ns)

    def per_second(self, now_ns: int) -> float:
        """Rate at `now_ns`, falling while nothing comes."""
        age_ns = max(now_ns - self._started_ns, self._last_ns - self._started_ns)
        age_ns = max(age_ns, int(_AGE_SECONDS_MIN * 1e9))
        seconds = self._half_life_ns / 1e9 / _LN2 * -math.expm1(-_LN2 * age_ns / self._half_life_ns)
        return self._sum * self._decay(now_ns) / seconds

    def _decay(self, now_ns: int) -> float:
        return float(0.5 ** (max(0, now_ns - self._last_ns) / self._half_life_ns))


class RatePair:
    """The same events with a fast and a slow half-life; their ratio shows a burst."""

    __slots__ = ("fast", "slow")

    def __init__(self, now_ns: int, fast_seconds: float = 1.0, slow_seconds: float = 60.0) -> None:
        self.fast = EwmaRate(fast_seconds, now_ns)
        self.slow = EwmaRate(slow_seconds, now_ns)

    def add(self, now_ns: int, count: float = 1.0) -> None:
        """Count events in both."""
        self.fast.add(now_ns, count)
        self.slow.add(now_ns, count)


def _positive(half_life_seconds: float) -> float:
    if not (math.isfinite(half_life_seconds) and half_life_seconds > 0.0):
        raise ValueError("half_life_seconds must be finite and > 0")
    return half_life_seconds
