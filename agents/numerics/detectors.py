"""A change detector for the level of a signal, told sample by sample."""

import math


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
