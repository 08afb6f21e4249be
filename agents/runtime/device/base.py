"""What every device offers: one arena seen as rows and as pages, and the execution of a plan.

A `Store` holds the arena and moves what a plan says: it is the device of somebody who computes
with a model of their own. An executor adds HELM's model; the engine knows executors only.

All methods but `stage_rows` are called from the node's one device thread, in booking order, and
return when their work is visible to the next call; a device with streams orders them itself.
`stage_rows` runs on a background thread beside them and touches no arena memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, Moves
from agents.profiles import Profile
from agents.wire.errors import ErrorCode, WireError

ELEMENT_TYPES = {2: torch.bfloat16, 4: torch.float32}  # by bytes, of rows and KV alike
OUT_OF_MEMORY_SAYINGS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # torch's CPU, CUDA's runtime, cuBLAS


class DeviceOutOfMemory(WireError):
    """The device could not allocate. Only the batch at hand is refused; its client may try again."""

    def __init__(self, what: str) -> None:
        super().__init__(ErrorCode.QUEUE_FULL, f"device memory is exhausted: {what}")


@contextmanager
def refuse_out_of_memory(what: str) -> Iterator[None]:
    """Turn an allocator's failure inside the block into a `DeviceOutOfMemory`; other errors pass."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise DeviceOutOfMemory(what) from error
    except RuntimeError as error:
        if not any(saying in str(error) for saying in OUT_OF_MEMORY_SAYINGS):  # allocators without a type for it
            raise
        raise DeviceOutOfMemory(what) from error


def element_type(profile: Profile) -> torch.dtype:
    """Type of the arena's elements, from the bytes of a row of `model.dim` elements; `ValueError` for any other size."""
    element_bytes, rest = divmod(profile.row_bytes, profile.model.dim)
    if rest or element_bytes not in ELEMENT_TYPES:
        raise ValueError(f"row_bytes is {profile.row_bytes}: a row of {profile.model.dim} has 2 (bfloat16) or 4 (float32) bytes an element")
    return ELEMENT_TYPES[element_bytes]


class Arena:
    """The pool's bytes, allocated once, with two views over the same memory.

    `rows` is `[pages * rows_per_page, dim]`, slot = page * rows_per_page + place; `pages` is
    `[pages, block_tokens * token_floats]`, both of `dtype`. What a page does not need for whole tokens stays unused.
    """

    def __init__(self, profile: Profile, device: torch.device) -> None:
        with refuse_out_of_memory(f"an arena of {profile.pool_bytes} bytes"):
            self.dtype = element_type(profile)
            element_bytes = self.dtype.itemsize
            memory = torch.empty(
                profile.pool_bytes // element_bytes, dtype=self.dtype, device=device
            ).zero_()  # committed now, not under load
        self.token_floats = profile.kv_token_bytes // element_bytes
        self.block_tokens = profile.block_tokens
        self.rows = memory.view(-1, profile.model.dim)
        self.pages = memory.view(profile.pages, -1)[:, : self.block_tokens * self.token_floats]


class DeviceTimings(NamedTuple):
    """Measured milliseconds of one executed batch, without the queue; B requests."""

    emb_ms: float
    kv_ms: float
    compute_ms: NDArray[np.float64]  # [B]
    service_ms: float


class Execution(NamedTuple):
    """What a batch came to: the scores of each request, in the order of its candidates."""

    scores: list[NDArray[np.float32]]
    timings: DeviceTimings


class LinkCounters(NamedTuple):
    """What the link between host and device has carried since the start."""

    foreground_bytes_total: int
    background_bytes_total: int
    throttled_seconds_total: float


class Stopwatch(ABC):
    """Laps on a device's own clock. Starts when it is made."""

    @abstractmethod
    def mark(self, least_ms: float = 0.0) -> None:
        """End a lap here and begin the next; an emulated device waits until the lap has lasted `least_ms`."""

    @abstractmethod
    def laps_ms(self) -> list[float]:
        """Milliseconds between the marks; the work up to the last of them must be done."""


class Gathered(NamedTuple):
    """Copies of what a plan reads, on the device: later writes to the arena do not reach them."""

    rows: torch.Tensor  # [sum of new tokens + candidates, dim], requests as in `row_offsets`
    prefixes: list[torch.Tensor]  # per request [cached tokens, token_floats]


class RowMover(ABC):
    """Work on the arena that is not a batch's."""

    name: str  # "cpu", "cuda"
    emulated: bool  # arena or link are not the real thing

    @abstractmethod
    def copy_rows(self, moves: Moves) -> None:
        """Copy rows inside the arena; the effect is that of copying one after the other."""

    @abstractmethod
    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """Write staged rows into their slots; a slot of -1 is skipped, nobody wants that row any more."""

    @abstractmethod
    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Bring rows from the host beside the arena, `[R, dim]`, as background traffic that yields."""

    @abstractmethod
    def link_counters(self) -> LinkCounters:
        """Bytes carried and time held back on the link."""


class DeviceExecutor(RowMover):
    """The hands of a node: they move what the brain has booked and decide nothing."""

    @abstractmethod
    def execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        """Run a booked batch: gather hits, fetch and insert misses, gather prefixes, attend, write new blocks.

        `actions` and `timestamps` (unix seconds) lie beside `batch.history_rows`, with the same offsets.
        """
