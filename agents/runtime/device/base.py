"""What every device offers: one arena seen as rows and as pages, and the execution of a plan.

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

FLOAT_BYTES = 4


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
        if "can't allocate memory" not in str(error):  # what torch's CPU allocator says, it has no type for it
            raise
        raise DeviceOutOfMemory(what) from error


class Arena:
    """The pool's bytes, allocated once, with two views over the same memory.

    `rows` is `[pages * rows_per_page, row_floats]`, slot = page * rows_per_page + place; `pages` is
    `[pages, block_tokens * token_floats]`. What a page does not need for whole tokens stays unused.
    """

    def __init__(self, profile: Profile, device: torch.device) -> None:
        with refuse_out_of_memory(f"an arena of {profile.pool_bytes} bytes"):
            memory = torch.empty(profile.pool_bytes // FLOAT_BYTES, device=device).zero_()  # committed now, not under load
        self.token_floats = profile.kv_token_bytes // FLOAT_BYTES
        self.block_tokens = profile.block_tokens
        self.rows = memory.view(-1, profile.row_bytes // FLOAT_BYTES)
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


class DeviceExecutor(ABC):
    """The hands of a node: they move what the brain has booked and decide nothing."""

    name: str  # "cpu", "cuda"
    emulated: bool  # arena or link are not the real thing

    @abstractmethod
    def execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        """Run a booked batch: gather hits, fetch and insert misses, gather prefixes, attend, write new blocks.

        `actions` and `timestamps` (unix seconds) lie beside `batch.history_rows`, with the same offsets.
        """

    @abstractmethod
    def copy_rows(self, moves: Moves) -> None:
        """Copy rows inside the arena; the effect is that of copying one after the other."""

    @abstractmethod
    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """Write staged rows into their slots; a slot of -1 is skipped, nobody wants that row any more."""

    @abstractmethod
    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Bring rows from the host beside the arena, `[R, row_floats]`, as background traffic that yields."""

    @abstractmethod
    def link_counters(self) -> LinkCounters:
        """Bytes carried and time held back on the link."""
