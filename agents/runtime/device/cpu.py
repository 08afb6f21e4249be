"""The CPU device: real torch memory and compute, an emulated arena and an emulated link.

What the link would carry is really gathered from host memory; the wait fills up the time that the link would
have taken. Of a paced profile compute waits in the same way: it is done for real, and is over when a device of that
profile would have ended. The device is then as fast on one host as on another, whatever else the host does meanwhile.
"""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from agents.profiles import Profile
from agents.runtime.device.base import LinkCounters, Stopwatch
from agents.runtime.device.link import Link
from agents.runtime.device.store import RowSource, Store


class CpuStore(Store):
    """An arena in host memory behind an emulated link, used by one torch thread."""

    name = "cpu"
    emulated = True

    def __init__(
        self,
        profile: Profile,
        table: RowSource,
        link: Link,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(profile, table, torch.device("cpu"))
        self._link = link
        self._clock = clock
        self._sleep = sleep

    def stopwatch(self) -> Stopwatch:
        """Laps of the host's clock."""
        return _HostStopwatch(self._clock, self._sleep)

    def upload(self, *parts: NDArray[np.integer]) -> list[torch.Tensor]:
        """The same memory where it is int64 already."""
        return [torch.from_numpy(part.astype(np.int64, copy=False)) for part in parts]

    def download(self, parts: list[torch.Tensor]) -> list[NDArray[np.float32]]:
        """The same memory as arrays."""
        return [part.numpy() for part in parts]

    def fetch(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Rows from the table, when the link would have brought them."""
        started = self._link.clock()
        rows = self.table.gather(row_ids)
        self._link.foreground(row_ids.shape[0] * self.row_bytes, started)
        return rows

    def _stage(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        staged = torch.empty(row_ids.shape[0], self.table.row_floats, dtype=self.arena.dtype)
        step = max(1, self._link.chunk_bytes // self.row_bytes)
        for start in range(0, row_ids.shape[0], step):
            chunk = self.table.gather(row_ids[start : start + step])
            self._link.background(chunk.shape[0] * self.row_bytes)
            staged[start : start + step] = chunk
        return staged

    def link_counters(self) -> LinkCounters:
        """Bytes carried and time held back on the emulated link."""
        return self._link.counters()


class _HostStopwatch(Stopwatch):
    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._readings = [clock()]

    def mark(self, least_ms: float = 0.0) -> None:
        if least_ms > 0.0:
            self._sleep(max(0.0, self._readings[-1] + least_ms / 1e3 - self._clock()))
        self._readings.append(self._clock())

    def laps_ms(self) -> list[float]:
        return [(later - earlier) * 1e3 for earlier, later in pairwise(self._readings)]
