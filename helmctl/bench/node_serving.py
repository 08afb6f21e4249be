"""Serving while the split moves: does anybody notice, and what would the naive way have cost?

One node, in this process, under an open-loop load well below saturation: requests arrive by a Poisson clock whether
or not the ones before were answered, and a latency counts from the moment a request should have been sent. Each pair
is two runs of like requests at the same instants: first with the split at rest, then while it moves from 0.3 to
0.7 or back in steps of 4 % without a pause. The next pair rests where the last one arrived, so rest is measured at
both ends. Between runs the load goes on unmeasured, until what a move left to refill is refilled.

For comparison the naive resize, really done on the same node: nothing more is booked until what runs has ended, all
pages are emptied and change hands at once, the rows that were resident come back over the link, hottest first, as many
as the new split holds, and only then serving goes on. Prefixes are lost. Once in a run is enough to show it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import uvloop
from numpy.typing import NDArray

from agents.runtime.device.executor import TorchExecutor
from agents.runtime.device.store import Store
from agents.wire.errors import WireError
from agents.wire.messages import ControlRequest, Mode
from helmctl.bench.demo_node import Bench, answer, answer_all, demo_bodies, demo_device, demo_profile, running_engine
from helmctl.bench.report import Result, Say, ratio_of, result_of

LOW, HIGH, STEP = 0.3, 0.7, 0.04
PAIRS_MIN = 10  # a P99 of one run is a few requests: fewer pairs say nothing
STOP_RUNS_MAX = 3  # the naive way is worse by an order, that needs no interval
SETTLE_RATIO = 0.5  # of a run, between runs
REQUESTS_PER_SECOND = 30.0  # about a third of what one core of the demo profile serves
SECONDS = 20.0  # the actuator's 2 % a second, over 40 %
WARM_REQUESTS = 400
AT_ONCE = 4
AT_ONCE_PER_SECOND = 1e6  # the whole pool between two ticks
COPY_ROWS = 4_096  # 1 MiB at a time
DEADLINE_MS = 60_000.0  # a stopped node is waited for, so that the stop is seen in full


class Run(NamedTuple):
    """One stretch of load: latencies of what was answered, and how many were."""

    latencies_ms: NDArray[np.float64]
    offered: int
    seconds: float

    @property
    def p99_ms(self) -> float:
        """The latency that one request in a hundred exceeds."""
        return float(np.quantile(self.latencies_ms, 0.99))

    @property
    def per_second(self) -> float:
        """Answers per second, until the last one."""
        return float(self.latencies_ms.shape[0]) / self.seconds


def measure(runs: int, say: Say, seconds: float = SECONDS) -> list[Result]:
    """`migration_p99_ratio`, `migration_throughput_ratio`, `stop_and_copy_p99_ratio`. At least ten pairs, unless shortened."""
    pairs = runs if seconds < SECONDS else max(runs, PAIRS_MIN)
    with TemporaryDirectory(prefix="helm-bench-") as folder:
        return uvloop.run(_measure(pairs, say, seconds, Path(folder)))


async def _measure(pairs: int, say: Say, seconds: float, folder: Path) -> list[Result]:
    device = demo_device(demo_profile(), folder)
    moving = await _moving(pairs, say, seconds, device)
    return _results(moving, await _stopped(min(pairs, STOP_RUNS_MAX), say, seconds, device))


async def _moving(pairs: int, say: Say, seconds: float, device: TorchExecutor) -> list[tuple[Run, Run]]:
    """(while the split moves, at rest) of each pair."""
    runs: list[tuple[Run, Run]] = []
    async with running_engine(demo_profile(move_ratio_per_second=(HIGH - LOW) / seconds), device) as bench:
        stage = Stage(bench, seconds)
        await stage.warm()
        for pair in range(pairs):
            start, stop = _ends(pair)
            runs.append(await stage.pair(pair, partial(_sweep, bench, start, stop, seconds)))
            say(f"migration {pair + 1}/{pairs}: P99 {_p99s(runs[-1])}, {start} to {stop}")
    return runs


async def _stopped(pairs: int, say: Say, seconds: float, device: TorchExecutor) -> list[tuple[Run, Run]]:
    """(with a stop in it, at rest) of each pair, on a node whose pages may all move in one tick."""
    runs: list[tuple[Run, Run]] = []
    async with running_engine(demo_profile(move_ratio_per_second=AT_ONCE_PER_SECOND), device) as bench:
        stage = Stage(bench, seconds)
        await stage.warm()
        for pair in range(pairs):
            stop = _ends(pair)[1]
            runs.append(await stage.pair(pairs + pair, partial(_stop_and_copy, bench, device.store, stop, seconds)))
            say(f"stop and copy {pair + 1}/{pairs}: P99 {_p99s(runs[-1])}, to {stop}")
    return runs


class Stage:
    """A node under load, run after run, each with its own requests and instants."""

    def __init__(self, bench: Bench, seconds: float) -> None:
        self._bench = bench
        self._seconds = seconds
        self._count = int(REQUESTS_PER_SECOND * seconds)

    async def warm(self) -> None:
        """Fill both caches at the lower end."""
        _pin(self._bench, LOW)
        await answer_all(self._bench, demo_bodies(self._bench.profile, WARM_REQUESTS), AT_ONCE, DEADLINE_MS)
        await self._settled(0)

    async def pair(self, seed: int, disturb: Callable[[], Awaitable[None]]) -> tuple[Run, Run]:
        """(disturbed, at rest) at the same instants; the load goes on, unmeasured, before each.

        The requests are different ones of the same stream's law: whoever came second with the same would find his rows there.
        """
        await self._settled(2 * seed + 1)
        rest = await offer(self._bench, self._bodies(2 * seed + 1), seed)
        await self._settled(2 * seed + 2)
        disturbance = asyncio.ensure_future(disturb())
        disturbed = await offer(self._bench, self._bodies(2 * seed + 2), seed)
        await disturbance
        return disturbed, rest

    def _bodies(self, seed: int) -> list[bytes]:
        return demo_bodies(self._bench.profile, self._count, seed=seed)

    async def _settled(self, seed: int) -> None:
        count = int(self._count * SETTLE_RATIO)
        await offer(self._bench, demo_bodies(self._bench.profile, count, seed=1_000 + seed), seed)


async def offer(bench: Bench, bodies: Sequence[bytes], seed: int) -> Run:
    """Send `bodies` at Poisson instants, whatever becomes of them; what is refused has no latency."""
    due = np.cumsum(np.random.default_rng(seed).exponential(1.0 / REQUESTS_PER_SECOND, len(bodies)))
    latencies: list[float] = []
    begun = time.perf_counter()

    async def send(body: bytes, due_seconds: float) -> None:
        await asyncio.sleep(begun + due_seconds - time.perf_counter())
        try:
            await answer(bench, body, DEADLINE_MS)
        except WireError:
            return
        latencies.append((time.perf_counter() - begun - due_seconds) * 1e3)

    await asyncio.gather(*(send(body, float(at)) for body, at in zip(bodies, due, strict=True)))
    return Run(np.array(latencies), len(bodies), time.perf_counter() - begun)


async def _sweep(bench: Bench, start: float, stop: float, seconds: float) -> None:
    """Step by step from one end to the other; each step takes as long as the actuator needs for it."""
    steps = round(abs(stop - start) / STEP)
    for step in range(1, steps + 1):
        _pin(bench, start + (stop - start) * step / steps)
        await asyncio.sleep(seconds / steps)


def _pin(bench: Bench, emb_ratio: float) -> None:
    bench.engine.control(ControlRequest(mode=Mode.PIN, emb_ratio=emb_ratio, reason="bench"))


def _ends(pair: int) -> tuple[float, float]:
    """(from, to) of a pair: back and forth."""
    return (LOW, HIGH) if pair % 2 == 0 else (HIGH, LOW)


async def _stop_and_copy(bench: Bench, store: Store, emb_ratio: float, seconds: float) -> None:
    """In the middle of a run: stop, empty, hand over, copy back. Without an `await` between, so that nothing is booked."""
    await asyncio.sleep(seconds / 4)
    while bench.engine.queue_depth:  # noqa: ASYNC110 - a moment of a lightly loaded node
        await asyncio.sleep(0)
    held = _resident_rows(bench)
    bench.node.version_flip(bench.engine.clock.now_ns())
    _pin(bench, emb_ratio)
    bench.engine.tick()  # moves every page
    rows = held[: bench.node.emb_pages * bench.node.rows_per_page]
    slots = bench.node.refill_commit(bench.engine.clock.now_ns(), rows)
    await bench.engine.on_device(partial(_copy_back, store, rows, slots))


def _resident_rows(bench: Bench) -> NDArray[np.int64]:
    """Row ids in the pool, most used first."""
    slots = bench.node.state.slots
    held = np.flatnonzero(slots["row"] >= 0)
    order = np.argsort(-slots["uses"][held].astype(np.int64), kind="stable")
    return np.ascontiguousarray(slots["row"][held[order]], np.int64)


def _copy_back(store: Store, rows: NDArray[np.int64], slots: NDArray[np.int32]) -> None:
    """Rows over the link as fast as it goes, on the device thread: whatever comes meanwhile waits."""
    for start in range(0, rows.shape[0], COPY_ROWS):
        store.write_rows(slots[start : start + COPY_ROWS], store.fetch(rows[start : start + COPY_ROWS]))


def _p99s(pair: tuple[Run, Run]) -> str:
    return f"{pair[0].p99_ms:.1f} ms, at rest {pair[1].p99_ms:.1f} ms"


def _results(moving: list[tuple[Run, Run]], stopped: list[tuple[Run, Run]]) -> list[Result]:
    return [
        ratio_of("migration_p99_ratio", [(moved.p99_ms, rest.p99_ms) for moved, rest in moving]),
        ratio_of("migration_throughput_ratio", [(moved.per_second, rest.per_second) for moved, rest in moving]),
        result_of("migration_p99_ms", [moved.p99_ms for moved, _ in moving], "ms"),
        result_of("rest_p99_ms", [rest.p99_ms for _, rest in moving], "ms"),
        ratio_of("stop_and_copy_p99_ratio", [(copied.p99_ms, rest.p99_ms) for copied, rest in stopped]),
        ratio_of("stop_and_copy_answered_ratio", [(float(copied.latencies_ms.shape[0]), float(copied.offered)) for copied, _ in stopped]),
    ]
