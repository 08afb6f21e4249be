"""Change detectors: a burst of arrivals, and a lasting change of a level. Told the time, or sample by sample."""

import math


class BurstDetector:
    """Hysteresis on fast rate / slow rate: on at `on_ratio`, off under `off_ratio`.

    A rate estimated over about a second from few arrivals doubles by chance alone, so a burst must
    also stand `sigmas_min` standard deviations of a Poisson count above the slow rate.
    """

    __slots__ = ("_fast_seconds", "_off_ratio", "_on_ratio", "_sigmas_min", "active")

    def __init__(self, on_ratio: float = 2.0, off_ratio: float = 1.3, fast_half_life_seconds: float = 1.0, sigmas_min: float = 5.0) -> None:
        if not 1.0 <= off_ratio < on_ratio:
            raise ValueError("off_ratio must be >= 1 and below on_ratio")
        self._on_ratio = on_ratio
        self._off_ratio = off_ratio
        self._sigmas_min = sigmas_min
        # an exponentially weighted rate varies like a count over 2 / ln 2 half-lives
        self._fast_seconds = 2.0 * fast_half_life_seconds / math.log(2.0)
        self.active = False

    def update(self, fast_per_second: float, slow_per_second: float) -> bool:
        """Judge the present pair of rates; rates that are not finite change nothing."""
        if not (math.isfinite(fast_per_second) and math.isfinite(slow_per_second)):
            return self.active
        if self.active:
            self.active = fast_per_second >= self._off_ratio * slow_per_second and fast_per_second > 0.0
        else:
            noise = math.sqrt(max(slow_per_second, 0.0) / self._fast_seconds)
            least = max(self._on_ratio * slow_per_second, slow_per_second + self._sigmas_min * noise)
            self.active = slow_per_second > 0.0 and fast_per_second >= least
        return self.active


class PageHinkley:
    """Two-sided Page-Hinkley test: a sum of deviations from the running mean leaves its extreme by `threshold`.

    Deviations within `tolerance` are no change. After an alarm it starts afresh at the new level.
    """

    __slots__ = ("_count", "_down", "_mean", "_samples_min", "_threshold", "_tolerance", "_up")

    def __init__(self, threshold: float, tolerance: float, samples_min: int = 10) -> None:
        if not (threshold > 0.0 and tolerance >= 0.0 and samples_min >= 1):
            raise ValueError("threshold must be > 0, tolerance >= 0, samples_min >= 1")
        self._threshold = threshold
        self._tolerance = tolerance
        self._samples_min = samples_min
        self._count = 0
        self._mean = 0.0
        self._up = 0.0
        self._down = 0.0

    def update(self, value: float) -> bool:
        """Add a sample; True when the level has changed. A value that is not finite is left out."""
        if not math.isfinite(value):
            return False
        self._count += 1
        self._mean += (value - self._mean) / self._count
        deviation = value - self._mean
        self._up = max(0.0, self._up + deviation - self._tolerance)
        self._down = max(0.0, self._down - deviation - self._tolerance)
        changed = self._count >= self._samples_min and max(self._up, self._down) > self._threshold
        if changed:
            self._count = 0
            self._mean = self._up = self._down = 0.0
        return changed
