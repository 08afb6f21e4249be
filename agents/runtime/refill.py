"""Refill in the background: stage wanted rows beside the arena, chunk by chunk, hand them to the owner.

One thread, one chunk on the way: the next is staged only after the last was booked and written,
so that refill can never queue up in front of requests. A new wish replaces the old one.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.profiles import Profile

CHUNK_SECONDS = 0.02  # of the refill budget: the longest a withdrawn wish is still being fetched
CHUNK_ROWS_MIN = 16
CHUNK_ROWS_MAX = 4_096  # 1 MiB of 256 B rows: one write of it is well below a batch
RATE_READINGS = 21  # one a tick: two seconds
RETRY_SECONDS = 1.0  # after a failed chunk; memory that is short now is not there a millisecond later

log = structlog.get_logger(__name__)


def chunk_rows(profile: Profile) -> int:
    """Rows staged at once for a profile's refill budget."""
    rows = int(profile.refill_bytes_per_second * CHUNK_SECONDS / profile.row_bytes)
    return min(max(rows, CHUNK_ROWS_MIN), CHUNK_ROWS_MAX)


class RefillRate:
    """Bytes a second over the last seconds, from totals read now and then."""

    def __init__(self) -> None:
        self._readings: deque[tuple[int, int]] = deque(maxlen=RATE_READINGS)

    def read(self, now_ns: int, bytes_total: int) -> None:
        """Note what has been refilled so far."""
        self._readings.append((now_ns, bytes_total))

    @property
    def bytes_per_second(self) -> float:
        """Zero before there are two readings."""
        if len(self._readings) < 2:
            return 0.0
        (first_ns, before), (last_ns, after) = self._readings[0], self._readings[-1]
        return (after - before) * 1e9 / max(1, last_ns - first_ns)


class RefillFeeder:
    """Stages wishes on its own thread. `deliver(rows, staged, written)` runs on the loop; it must call `written`."""

    def __init__(
        self,
        profile: Profile,
        stage: Callable[[NDArray[np.int64]], Any],
        deliver: Callable[[NDArray[np.int64], Any, Callable[[], None]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._row_bytes = profile.row_bytes
        self._chunk_rows = chunk_rows(profile)
        self._stage = stage
        self._deliver = deliver
        self._loop = loop
        self._wish: NDArray[np.int64] = np.zeros(0, np.int64)
        self._on_the_way = 0
        self._held = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="refill", daemon=True)
        self._thread.start()

    def want(self, rows: NDArray[np.int64]) -> None:
        """Replace the wish; hottest first."""
        with self._changed:
            self._wish = rows
            self._changed.notify_all()

    @property
    def backlog_bytes(self) -> int:
        """Bytes wanted and not yet in the arena."""
        with self._changed:
            return (len(self._wish) + self._on_the_way) * self._row_bytes

    def hold(self, seconds_max: float) -> bool:
        """Stage nothing more until `resume`; blocks until what was staged is written, False when that takes longer."""
        with self._changed:
            self._held = True
            return self._changed.wait_for(lambda: self._on_the_way == 0, seconds_max)

    def resume(self) -> None:
        """Stage again."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread after the chunk at hand."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (rows := self._next_chunk()) is not None:
            try:
                staged = self._stage(rows)
            except Exception as error:
                log.warning("refill_failed", error=str(error), rows=rows.shape[0])
                self._written()
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)
                continue
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, rows, staged, self._written)

    def _next_chunk(self) -> NDArray[np.int64] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or (self._wish.shape[0] > 0 and self._on_the_way == 0 and not self._held))
            if self._closing:
                return None
            rows, self._wish = self._wish[: self._chunk_rows], self._wish[self._chunk_rows :]
            self._on_the_way = rows.shape[0]
            return rows

    def _written(self) -> None:
        with self._changed:
            self._on_the_way = 0
            self._changed.notify_all()
