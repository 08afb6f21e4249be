"""How background traffic keeps to its rate and out of the way of requests, on any link."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agents.runtime.device.base import LinkCounters

BUCKET_CHUNKS = 2  # saved up while idle; more would let a refill start with a burst
POLL_SECONDS = 100e-6  # between two looks at a copy in flight: a tenth of a large foreground copy
YIELD_SECONDS_MAX = 1.0  # a foreground that never pauses must not stop refills for good


class TokenBucket:
    """A rate in virtual time; its owner guards it and waits."""

    def __init__(self, bytes_per_second: float, chunk_bytes: int) -> None:
        self._seconds_per_byte = 1.0 / bytes_per_second
        self._depth_seconds = BUCKET_CHUNKS * chunk_bytes * self._seconds_per_byte
        self._due = -1e30  # when the bucket holds the next chunk

    def take(self, size_bytes: int, now: float) -> float:
        """Book `size_bytes`; returns the seconds until they are there, not above zero when they are."""
        due = max(self._due, now - self._depth_seconds)
        self._due = due + size_bytes * self._seconds_per_byte
        return due - now


class SharedLink:
    """A real link: counts what crosses it, and lets background chunks start only between foreground copies.

    `foreground` brackets the look-up and the start of a copy; what it is given tells whether the copy
    has arrived. Two threads use it, one for each kind of traffic.
    """

    def __init__(
        self,
        background_bytes_per_second: float,
        chunk_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.chunk_bytes = chunk_bytes
        self._bucket = TokenBucket(background_bytes_per_second, chunk_bytes)
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._looking_up = False
        self._arrived: Callable[[], bool] = _always
        self._foreground_bytes = 0
        self._background_bytes = 0
        self._throttled_seconds = 0.0

    @contextmanager
    def foreground(self, size_bytes: int) -> "Iterator[list[Callable[[], bool]]]":
        """Around look-up and copy of `size_bytes`; append to the list what tells that the copy has arrived."""
        with self._lock:
            self._looking_up = True
            self._foreground_bytes += size_bytes
        copies: list[Callable[[], bool]] = []
        try:
            yield copies
        finally:
            with self._lock:
                self._looking_up = False
                self._arrived = copies[-1] if copies else _always

    def background(self, size_bytes: int) -> None:
        """Return when a chunk of `size_bytes` may be copied."""
        began = self._clock()
        with self._lock:
            wait = self._bucket.take(size_bytes, began)
        if wait > 0:
            self._sleep(wait)
        latest = self._clock() + YIELD_SECONDS_MAX
        while self._foreground_busy() and self._clock() < latest:
            self._sleep(POLL_SECONDS)
        with self._lock:
            self._background_bytes += size_bytes
            self._throttled_seconds += self._clock() - began

    def counters(self) -> LinkCounters:
        """Totals since the start, consistent with each other."""
        with self._lock:
            return LinkCounters(self._foreground_bytes, self._background_bytes, self._throttled_seconds)

    def _foreground_busy(self) -> bool:
        with self._lock:
            return self._looking_up or not self._arrived()


def _always() -> bool:
    return True
