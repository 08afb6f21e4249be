"""What keeps failures from spreading: a breaker per node, and budgets for extra attempts. Told the time, no clock."""

import random

import numpy as np
from numpy.typing import NDArray

from agents.router.state import Filter
from agents.runtime.router.limits import Limits

_EXCLUDED = int(Filter.EXCLUDED)
NO_TRIAL = 0


class Budget:
    """Extra attempts may be a share of requests, with a burst: of retries when a node takes its whole queue with it."""

    def __init__(self, ratio: float, burst: float) -> None:
        self._ratio = ratio
        self._burst = burst
        self.tokens = burst

    def request(self) -> None:
        """A new request earns its share of an extra attempt."""
        self.tokens = min(self._burst, self.tokens + self._ratio)

    def allows(self) -> bool:
        """Whether there is an extra attempt to spend."""
        return self.tokens >= 1.0

    def take(self) -> bool:
        """Spend one extra attempt if there is one."""
        if not self.allows():
            return False
        self.tokens -= 1.0
        return True


class Breakers:
    """One circuit breaker per node; `mask` is what the pick is barred from.

    The one request that tries a half-open breaker is told its number by `picked` and hands it in at its end: requests
    sent before say nothing of the trial.
    """

    def __init__(self, nodes: int, limits: Limits, chance: random.Random) -> None:
        self.mask: NDArray[np.int8] = np.zeros(nodes, dtype=np.int8)
        self._limits = limits
        self._chance = chance
        self._failures = [0] * nodes
        self._open_seconds = [0.0] * nodes  # 0: closed
        self._until_ns = [0] * nodes
        self._trial = [NO_TRIAL] * nodes  # the number of the one that is under way
        self._trials = NO_TRIAL

    def is_open(self, node: int) -> bool:
        """Whether the node has not proved itself since it failed."""
        return self._open_seconds[node] > 0.0

    def succeeded(self, node: int) -> None:
        """A good answer, or the node's own word that it is ready again: closed."""
        self._failures[node] = 0
        if self._open_seconds[node] > 0.0:
            self._trial[node] = NO_TRIAL
            self._open_seconds[node] = 0.0
            self.mask[node] = 0

    def failed(self, node: int, now_ns: int, trial: int = NO_TRIAL) -> None:
        """A broken connection, no answer in time or one that says that the node is broken; not a refusal, which is an answer."""
        self._failures[node] += 1
        if self._ended(node, trial) or (self._open_seconds[node] == 0.0 and self._failures[node] >= self._limits.breaker_failures):
            longer = min(self._limits.breaker_open_seconds_max, 2.0 * self._open_seconds[node])
            self._open_seconds[node] = longer or self._limits.breaker_open_seconds
            self._until_ns[node] = now_ns + int(self._open_seconds[node] * self._chance.uniform(0.8, 1.2) * 1e9)
            self.mask[node] = _EXCLUDED

    def picked(self, node: int) -> int:
        """Number of this request's trial of an open breaker, `NO_TRIAL` when it is none; nobody else goes there until it ends."""
        if self._open_seconds[node] == 0.0 or self._trial[node]:
            return NO_TRIAL
        self.mask[node] = _EXCLUDED
        self._trials += 1
        self._trial[node] = self._trials
        return self._trials

    def released(self, node: int, trial: int) -> None:
        """A request ended without a verdict (the client went away); if it was the trial, the next sweep lets another try."""
        self._ended(node, trial)

    def _ended(self, node: int, trial: int) -> bool:
        """Whether this was the trial under way."""
        if trial == NO_TRIAL or self._trial[node] != trial:
            return False
        self._trial[node] = NO_TRIAL
        return True

    def sweep(self, now_ns: int) -> None:
        """Half-open what has waited long enough."""
        for node, seconds in enumerate(self._open_seconds):
            if seconds > 0.0 and now_ns >= self._until_ns[node] and not self._trial[node]:
                self.mask[node] = 0
