"""A tiny node for tests: real brain, a device that can be held, failed and listened to."""

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, Moves
from agents.node.node import Node, NodeConfig
from agents.numerics.prefix import block_hashes
from agents.profiles import Profile, load_profile
from agents.runtime.device.base import DeviceExecutor, DeviceTimings, Execution, LinkCounters
from agents.runtime.engine import Engine
from agents.runtime.ranking import RankRequest
from agents.runtime.versions import Serving

PATIENCE_SECONDS = 20.0  # how long a test waits for a real thread before it fails


def tiny_profile(**changes: object) -> Profile:
    """A pool of 32 pages; small enough that a test can name every page."""
    small = {
        "name": "tiny",
        "pool_bytes": 32 * 4_096,
        "page_bytes": 4_096,
        "row_bytes": 256,
        "rows": 1_000,
        "kv_token_bytes": 1_024,
        "candidates": 8,
        "batch_max": 2,
        "queue_max": 4,
        "move_ratio_per_second": 1.0,
    }
    base = load_profile("cpu-demo")
    model = msgspec.structs.replace(base.model, tokens_max=32)
    return msgspec.structs.replace(base, model=model, **{**small, **changes})


class MovableClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ns: int = 1_000_000_000, unix_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._unix_ns = unix_ns

    def now_ns(self) -> int:
        return self._now_ns

    def unix_ns(self) -> int:
        return self._unix_ns

    def forward(self, seconds: float) -> None:
        """Both clocks go on."""
        self._now_ns += round(seconds * 1e9)
        self._unix_ns += round(seconds * 1e9)


class ListeningDevice(DeviceExecutor):
    """Scores are candidate rows divided by 1,000. `log` has every call in order."""

    name = "listening"
    emulated = True

    def __init__(self) -> None:
        self.log: list[str] = []
        self.plans: list[BatchPlan] = []
        self.failures: list[Exception] = []  # the next batches raise these, in order
        self.write_failure: Exception | None = None
        self.scores: Callable[[NDArray[np.int64]], NDArray[np.float32]] = lambda rows: (rows / 1_000).astype(np.float32)
        self.staged_bytes = 0
        self._open = threading.Event()
        self._open.set()
        self.entered = threading.Event()

    def hold(self) -> None:
        """From now on batches wait on the device."""
        self.entered.clear()
        self._open.clear()

    def release(self) -> None:
        """Let them through."""
        self._open.set()

    def execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        self.entered.set()
        assert self._open.wait(PATIENCE_SECONDS)
        self.log.append(f"batch {batch.user_keys.tolist()}")
        self.plans.append(plan)
        assert actions.shape == timestamps.shape == batch.history_rows.shape
        if self.failures:
            raise self.failures.pop(0)
        offsets = batch.candidate_offsets
        scores = [self.scores(batch.candidate_rows[start:stop]) for start, stop in pairwise(offsets)]
        return Execution(scores, DeviceTimings(1.0, 2.0, np.full(len(scores), 3.0), 6.0))

    def copy_rows(self, moves: Moves) -> None:
        self.log.append(f"copy {len(moves.source_slots)}")
        if self.write_failure is not None:
            raise self.write_failure

    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        assert len(slots) == len(rows)
        self.log.append(f"write {int((slots >= 0).sum())}")
        if self.write_failure is not None:
            raise self.write_failure

    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        self.staged_bytes += 256 * len(row_ids)
        return torch.zeros(len(row_ids), 64)

    def link_counters(self) -> LinkCounters:
        return LinkCounters(0, self.staged_bytes, 0.0)


class Parts:
    """An engine on the running loop with everything a test wants to touch."""

    def __init__(self, profile: Profile | None = None, config: NodeConfig | None = None) -> None:
        self.profile = profile or tiny_profile()
        self.clock = MovableClock()
        self.device = ListeningDevice()
        self.node = Node("node-0", self.profile, config or NodeConfig(admission="none"))
        self.engine = Engine(self.node, self.device, self.profile, self.clock, 100_000_000, Serving("1"))

    async def __aenter__(self) -> "Parts":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.device.release()
        await self.engine.close()

    async def device_entered(self) -> None:
        """Wait until a batch is held on the device."""
        assert await asyncio.to_thread(self.device.entered.wait, PATIENCE_SECONDS)


def request_of(user: int, tokens: int = 8, candidates: int = 4, profile: Profile | None = None, **changes: object) -> RankRequest:
    """A request whose rows are `user * 10 ...`; same user and length, same history."""
    profile = profile or tiny_profile()
    items = (np.arange(tokens, dtype=np.int64) + 10 * user) % profile.rows
    actions = np.zeros(tokens, np.int64)
    timestamps = np.arange(tokens, dtype=np.int64)
    request = RankRequest(
        user_key=user,
        items=items,
        actions=actions,
        timestamps=timestamps,
        block_hashes=block_hashes(items, actions, timestamps, profile.block_tokens),
        candidates=(np.arange(candidates, dtype=np.int64) + 500 + user) % profile.rows,
    )
    return request._replace(**changes)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; threads and sockets finish in their own time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - nobody could set an event for what a test asks
            await asyncio.sleep(0.002)


async def settle() -> None:
    """Let everything that is ready on the loop run."""
    for _ in range(5):
        await asyncio.sleep(0)
