"""A node inside the bench's own process: the product's engine on the demo profile, and requests for it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, Moves
from agents.node.node import Node, NodeConfig
from agents.profiles import Profile, load_profile
from agents.runtime import oip
from agents.runtime.clock import SystemClock
from agents.runtime.config import NodeSettings
from agents.runtime.device.base import DeviceExecutor, DeviceTimings, Execution, LinkCounters
from agents.runtime.device.executor import TorchExecutor
from agents.runtime.engine import Engine
from agents.runtime.keys import UserKeys
from agents.runtime.load.client import encode_request
from agents.runtime.memory import keep_what_is_alive
from agents.runtime.node_daemon import make_device
from agents.runtime.ranking import rank_request
from agents.runtime.rehearsal import rehearse
from agents.runtime.versions import Serving
from agents.workloads.demo import DemoParameters, synthetic_workload

PROFILE = "cpu-demo"
TICK_NS = 100_000_000
_KEYS = UserKeys(b"bench", "bench")


class NullDevice(DeviceExecutor):
    """Answers at once: what is left of a request's time is everything but model math and gathers."""

    name = "null"
    emulated = True

    def __init__(self) -> None:
        self.batches = 0

    def execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        """Zeros of the right shape."""
        self.batches += 1
        scores = [np.zeros(stop - start, np.float32) for start, stop in pairwise(batch.candidate_offsets.tolist())]
        return Execution(scores, DeviceTimings(0.0, 0.0, np.zeros(len(scores)), 0.0))

    def copy_rows(self, moves: Moves) -> None:
        """Nothing to copy."""

    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """Nothing to write."""

    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Nothing to fetch."""
        return torch.zeros(row_ids.shape[0], 1)

    def link_counters(self) -> LinkCounters:
        """A link that carries nothing."""
        return LinkCounters(0, 0, 0.0)


class Bench(NamedTuple):
    """An engine and what it was made of."""

    engine: Engine
    profile: Profile
    node: Node


def demo_profile(**changes: object) -> Profile:
    """The demo's profile with other limits."""
    return msgspec.structs.replace(load_profile(PROFILE), **changes)


def demo_device(profile: Profile, folder: Path) -> TorchExecutor:
    """The device a node of that profile has; its table is written to `folder` once."""
    return make_device(
        NodeSettings(name="bench", host="127.0.0.1", port=0, profile=profile, fleet_key="bench", salt=b"bench", state_folder=folder)
    )


def demo_bodies(profile: Profile, count: int, workload: str = "steady", seed: int = 1) -> list[bytes]:
    """The first requests of a synthetic stream, as a client sends them."""
    stream = synthetic_workload(workload, seed, parameters=DemoParameters.for_profile(profile), loop=True)
    return [encode_request(request) for request in islice(stream.requests(), count)]


@asynccontextmanager
async def running_engine(profile: Profile, device: DeviceExecutor, ticking: bool = True) -> AsyncIterator[Bench]:
    """An engine that is warm and ticks, as a node process runs it; closed at the end. Its ratio stays where it is put."""
    node = Node("bench", profile, NodeConfig(controller="static-0.50", tick_ns=TICK_NS))
    engine = Engine(node, device, profile, SystemClock(), TICK_NS, Serving("bench"))
    await engine.on_device(lambda: rehearse(profile, device))
    if ticking:
        engine.start()
    keep_what_is_alive()  # as a node does
    try:
        yield Bench(engine, profile, node)
    finally:
        gc.unfreeze()
        await engine.close()


async def answer(bench: Bench, body: bytes, deadline_ms: float | None = None) -> bytes:
    """One request from the bytes of its body to the bytes of its answer, without HTTP; `WireError` when refused."""
    inputs = oip.decode_infer(body, bench.profile)
    request = rank_request(inputs, _KEYS, bench.profile.block_tokens, deadline_ms=deadline_ms)
    result = await bench.engine.infer(request)
    return oip.encode_result(inputs, result.scores, "bench").body


async def answer_all(bench: Bench, bodies: Iterable[bytes], at_once: int, deadline_ms: float) -> None:
    """Serve all of them, `at_once` at any time."""
    waiting = iter(bodies)

    async def client() -> None:
        for body in waiting:
            await answer(bench, body, deadline_ms)

    await asyncio.gather(*(client() for _ in range(at_once)))
