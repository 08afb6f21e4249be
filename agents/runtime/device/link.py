"""An emulated link from host to device: a thread waits until the bytes would have arrived.

The link is one lane in virtual time. Foreground traffic takes it at once, behind at most one
background chunk in flight. Background traffic goes chunk by chunk: each chunk waits for its turn
in a token bucket and for a moment without foreground traffic. A sleep that ends late is a credit
for the next one, and a wait too short to sleep is a debt, so the rate is right on average.
"""

import threading
import time
from collections.abc import Callable

from agents.runtime.device.base import LinkCounters
from agents.runtime.device.pacing import TokenBucket

CHUNK_BYTES = 16_384  # 0.65 ms of a 25 MB/s link: the longest a foreground fetch stands behind a refill
SLEEP_SECONDS_MIN = 60e-6  # the kernel's timer slack is about this long, so a shorter sleep means nothing
CREDIT_SECONDS_MAX = 1e-3  # a late wake-up of more than this was a busy host, not a coarse timer


class Link:
    """One lane of `bytes_per_second`, of which background traffic may use `background_bytes_per_second`."""

    def __init__(
        self,
        bytes_per_second: float,
        background_bytes_per_second: float,
        chunk_bytes: int = CHUNK_BYTES,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.chunk_bytes = chunk_bytes
        self._seconds_per_byte = 1.0 / bytes_per_second
        self._bucket = TokenBucket(background_bytes_per_second, chunk_bytes)
        self.clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._busy_until = -1e30  # end of what is on the lane, foreground or chunk
        self._credit_seconds = 0.0
        self._foreground_bytes = 0
        self._background_bytes = 0
        self._throttled_seconds = 0.0

    def foreground(self, size_bytes: int, started: float | None = None) -> None:
        """Return when `size_bytes` have crossed, counted from `started` (by `clock`; now if not given)."""
        with self._lock:
            now = self.clock()
            begin = max(now if started is None else started, self._busy_until)
            finish = begin + size_bytes * self._seconds_per_byte - self._credit_seconds
            self._foreground_bytes += size_bytes
            if finish <= now + SLEEP_SECONDS_MIN:
                # A debt if the wait was too short, no new credit if the host's own gather was slower than the link.
                self._credit_seconds = min(self._credit_seconds, now - finish) if finish <= now else now - finish
                return
            self._busy_until = finish
        self._sleep(finish - now)
        with self._lock:
            self._credit_seconds = min(self.clock() - finish, CREDIT_SECONDS_MAX)

    def background(self, size_bytes: int) -> None:
        """Return when `size_bytes` have crossed in chunks, none of them beside foreground traffic."""
        for start in range(0, size_bytes, self.chunk_bytes):
            self._background_chunk(min(self.chunk_bytes, size_bytes - start))

    def counters(self) -> LinkCounters:
        """Totals since the start, consistent with each other."""
        with self._lock:
            return LinkCounters(self._foreground_bytes, self._background_bytes, self._throttled_seconds)

    def _background_chunk(self, size_bytes: int) -> None:
        with self._lock:
            due = self._bucket.take(size_bytes, self.clock())
        self._throttle(due)
        while (wait := self._take_lane(size_bytes)) > 0:
            self._throttle(wait)
        with self._lock:
            rest = self._busy_until - self.clock()
        if rest > 0:
            self._sleep(rest)

    def _take_lane(self, size_bytes: int) -> float:
        """Put a chunk on a free lane and return 0, or return the seconds until the lane may be free."""
        with self._lock:
            now = self.clock()
            if self._busy_until > now:
                return self._busy_until - now
            self._busy_until = now + size_bytes * self._seconds_per_byte
            self._background_bytes += size_bytes
            return 0.0

    def _throttle(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)
            with self._lock:
                self._throttled_seconds += seconds
