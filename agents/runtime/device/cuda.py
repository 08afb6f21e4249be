"""The CUDA device: arena on the GPU, table in pinned host memory, copies on streams of their own.

Compute runs on the device thread's current stream. Misses come over on a stream that compute waits for
by event; staged rows on a third, of lower priority, in chunks that start between foreground copies.
Pinned buffers come from torch's caching allocator, which gives one out again only after the copy
that reads it has finished.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from agents.profiles import Profile
from agents.runtime.device.base import LinkCounters, Stopwatch, element_type, refuse_out_of_memory
from agents.runtime.device.pacing import SharedLink
from agents.runtime.device.store import Store
from agents.runtime.device.table import HostTable, TableInMemory

CHUNK_BYTES = 1 << 20  # of staged rows: 40 us of a 24 GB/s link, the longest a foreground copy stands behind one
COPY_PRIORITY = -1  # of CUDA streams; lower is sooner, compute has 0
CHUNK_TOKENS = 256  # queries at a time in attention: products large enough for a GPU, scores small enough for its memory


def refuse_without_cuda() -> None:
    """`ValueError` when torch finds no GPU here."""
    if not torch.cuda.is_available():
        raise ValueError(f"device cuda: torch {torch.__version__} finds no CUDA device here")


def pinned_table(table: HostTable) -> TableInMemory:
    """The whole table in page-locked memory; `DeviceOutOfMemory` when the host has not that much to lock."""
    size_bytes = table.rows * table.row_floats * table.dtype.itemsize
    with refuse_out_of_memory(f"a pinned table of {size_bytes} bytes"):
        return TableInMemory(table, _pinned((table.rows, table.row_floats), table.dtype))


class CudaStore(Store):
    """An arena on the current CUDA device."""

    name = "cuda"
    emulated = False

    def __init__(self, profile: Profile, table: TableInMemory) -> None:
        refuse_without_cuda()
        super().__init__(profile, table, _current_device())
        self._dtype = element_type(profile)
        self._link = SharedLink(profile.refill_bytes_per_second, CHUNK_BYTES)
        self._copies = torch.cuda.Stream(self.device, priority=COPY_PRIORITY)
        self._staging = torch.cuda.Stream(self.device)

    def stopwatch(self) -> Stopwatch:
        """Laps between events on the compute stream."""
        return _EventStopwatch()

    def upload(self, *parts: NDArray[np.integer]) -> list[torch.Tensor]:
        """All parts in one copy, in the order of the compute stream."""
        sizes = [part.shape[0] for part in parts]
        pinned = _pinned((sum(sizes),), torch.int64)
        np.concatenate(parts, out=pinned.numpy(), casting="same_kind")
        return list(pinned.to(self.device, non_blocking=True).split(sizes))

    def download(self, parts: list[torch.Tensor]) -> list[NDArray[np.float32]]:
        """One copy of all parts; it waits for the compute stream, so everything before it is done."""
        host = torch.cat(parts).float().cpu().numpy()
        return np.split(host, np.cumsum([part.shape[0] for part in parts])[:-1])

    def fetch(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Rows from the pinned table; looked up by the host while the GPU does what was asked before."""
        with self._link.foreground(row_ids.shape[0] * self.row_bytes) as copies:
            rows = self._copy(row_ids, self._copies)
            arrived = torch.cuda.Event()
            arrived.record(self._copies)
            copies.append(arrived.query)
        compute = torch.cuda.current_stream(self.device)
        compute.wait_event(arrived)
        rows.record_stream(compute)
        return rows

    def _copy(self, row_ids: NDArray[np.int64], stream: torch.cuda.Stream) -> torch.Tensor:
        pinned = _pinned((row_ids.shape[0], self.table.row_floats), self._dtype)
        self.table.gather(row_ids, out=pinned)
        with torch.cuda.stream(stream):
            return pinned.to(self.device, non_blocking=True)

    def _stage(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        step = max(1, self._link.chunk_bytes // self.row_bytes)
        chunks = [self._stage_chunk(row_ids[start : start + step]) for start in range(0, row_ids.shape[0], step)]
        with torch.cuda.stream(self._staging):
            staged = torch.cat(chunks) if chunks else torch.empty(0, self.table.row_floats, dtype=self._dtype, device=self.device)
        self._staging.synchronize()
        return staged

    def _stage_chunk(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        self._link.background(row_ids.shape[0] * self.row_bytes)
        chunk = self._copy(row_ids, self._staging)
        self._staging.synchronize()  # the next one asks again whether it may go
        return chunk

    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """Write staged rows into their slots; a slot of -1 is skipped."""
        rows.record_stream(torch.cuda.current_stream(self.device))  # it was allocated on the staging stream
        super().write_rows(slots, rows)

    def recover(self) -> None:
        """Let the refused batch's work end and give the allocator's unused memory back."""
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()

    def link_counters(self) -> LinkCounters:
        """Bytes copied and time that background copies were held back."""
        return self._link.counters()


class _EventStopwatch(Stopwatch):
    def __init__(self) -> None:
        self._events = [_recorded_event()]

    def mark(self, least_ms: float = 0.0) -> None:
        self._events.append(_recorded_event())

    def laps_ms(self) -> list[float]:
        self._events[-1].synchronize()
        return [earlier.elapsed_time(later) for earlier, later in pairwise(self._events)]


def _current_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


def _pinned(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=True)


def _recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
