"""The load generator's loop: sends what is due, counts what comes back, and once a second looks at the machine."""

import asyncio
import math
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from agents.runtime.load.client import INFER_PATH, check_answer, encode_request
from agents.runtime.load.host import HostCpu
from agents.runtime.load.pacing import NS_PER_SECOND, PaceControl, PaceInputs, StreamClock
from agents.runtime.load.report import LoadStatus, Report
from agents.wire.messages import FleetFile, NodeAddress
from agents.workloads.request import Request, Workload

SLICE_SECONDS = 0.1  # longest sleep: a stop or a new pace is noticed within it
FORGIVE_NS = NS_PER_SECOND  # a backlog longer than this is dropped from the schedule, not sent as a flood
KEEPALIVE_SECONDS = 10.0  # below the router's idle limit, so that a reused connection is never one just closed
DRAIN_SECONDS = 1.0  # for answers still out when the run ends; the whole ending stays under two seconds
NODES_SECONDS = 0.5  # for a node to tell its state; a dead one must not delay the ending
NODES_EVERY_SECONDS = 5
LINE_EVERY_SECONDS = 10
SATURATED_EVERY_NS = 30 * NS_PER_SECOND  # said aloud, but not every second
LATENCY_COUNT_MIN = 50  # answers before a P99 may slow the stream
# Without the last, the HTTP client would ask for compressed answers, and their packing would be measured as serving.
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def saturation_sentence(cpu_ratio: float, lag_ms: float) -> str:
    """Both signs of a saturated host, for either alone is one: busy cores, or a generator that gets none in time."""
    return f"host saturated: CPU {100 * cpu_ratio:.0f} %, sending late by {lag_ms:.0f} ms; latencies are the machine's, not the fleet's"


class LoadSettings(NamedTuple):
    """How a run is made, beside its workload."""

    seed: int
    duration_seconds: float = math.inf
    concurrency: int = 64  # requests out at once; a node's queue is as long, more would only wait
    timeout_seconds: float = 10.0
    ready_seconds: float = 60.0
    status_path: Path | None = None


class NotReady(Exception):
    """The router did not become ready in time."""


class LoadGenerator:
    """One run against one router. All state belongs to the event loop's thread."""

    def __init__(
        self, fleet: FleetFile, workload: Workload, settings: LoadSettings, control: PaceControl, say: Callable[[str], None]
    ) -> None:
        self._fleet = fleet
        self._workload = workload
        self._settings = settings
        self._control = control
        self._say = say
        self._url = f"http://{fleet.router.host}:{fleet.router.port}"
        self._report = Report()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = StreamClock(0, control.pace)
        self._begin_ns = 0
        self._second_lag_ms = 0.0
        self._second_refused = 0
        self._second_requests = 0
        self._rate = 0.0
        self._saturated = ""  # in one sentence, when the last second was
        self._quiet_until_ns = 0
        self._background: set[asyncio.Task[None]] = set()
        self._nodes: dict[str, dict[str, float | None]] = {}

    def stop(self) -> None:
        """End the run; `run` returns within two seconds."""
        self._stop.set()

    async def run(self) -> dict[str, Any]:
        """Wait for the router, play the workload, return the summary."""
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        connector = aiohttp.TCPConnector(limit=self._settings.concurrency + 16, keepalive_timeout=KEEPALIVE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            self._write_status("waiting")
            await self._ready(session)
            self._begin_ns = time.monotonic_ns()
            self._clock = StreamClock(self._begin_ns, self._control.pace)
            ticker = asyncio.create_task(self._tick(session))
            try:
                await self._emit(session)
                await self._drain()
            finally:
                ticker.cancel()
                ended = await asyncio.gather(ticker, return_exceptions=True)
            if not isinstance(ended[0], asyncio.CancelledError):
                raise RuntimeError("the load generator lost its clock") from ended[0]
            elapsed = (time.monotonic_ns() - self._begin_ns) / NS_PER_SECOND
            await self._observe_nodes(session)
        self._write_status("done")
        return self._summary(elapsed)

    async def _ready(self, session: aiohttp.ClientSession) -> None:
        deadline = time.monotonic() + self._settings.ready_seconds
        while not self._stop.is_set():
            try:
                async with session.get(f"{self._url}/v2/health/ready", timeout=aiohttp.ClientTimeout(total=2.0)) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            if time.monotonic() >= deadline:
                raise NotReady(f"router at {self._url} is not ready after {self._settings.ready_seconds:g} s")
            await asyncio.sleep(0.2)

    async def _emit(self, session: aiohttp.ClientSession) -> None:
        """Send each request when it is due; never waits for an answer unless all slots are taken."""
        for request in self._workload.requests():
            body = encode_request(request)
            await self._until_due(request)
            if self._over():
                return
            lag_ns = time.monotonic_ns() - self._clock.due_ns(request.at_ns)
            self._second_lag_ms = max(self._second_lag_ms, lag_ns / 1e6)
            while len(self._tasks) >= self._settings.concurrency and not self._over():
                await asyncio.wait(self._tasks, timeout=SLICE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            late_ns = time.monotonic_ns() - self._clock.due_ns(request.at_ns)
            if late_ns > FORGIVE_NS:
                self._clock.forgive(late_ns)
            self._spawn(self._tasks, self._send(session, request.candidates.shape[0], body))

    async def _until_due(self, request: Request) -> None:
        while not self._over():
            wait = (self._clock.due_ns(request.at_ns) - time.monotonic_ns()) / NS_PER_SECOND
            if wait <= 0:
                return
            await asyncio.sleep(min(wait, SLICE_SECONDS))

    def _over(self) -> bool:
        return self._stop.is_set() or time.monotonic_ns() - self._begin_ns >= self._settings.duration_seconds * NS_PER_SECOND

    def _spawn(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _send(self, session: aiohttp.ClientSession, candidates: int, body: bytes) -> None:
        sent_ns = time.monotonic_ns()
        self._second_requests += 1
        try:
            async with session.post(self._url + INFER_PATH, data=body, headers=_HEADERS) as response:
                payload = await response.read()
        except TimeoutError:
            self._second_refused += 1
            self._report.failed("timeout")
        except aiohttp.ClientConnectorError:
            self._report.failed("cannot connect")
        except aiohttp.ClientError as error:
            self._report.failed(f"connection: {type(error).__name__}")
        else:
            latency_ms = (time.monotonic_ns() - sent_ns) / 1e6
            answer = check_answer(response.status, response.headers, payload, candidates)
            self._second_refused += response.status in (429, 503)
            self._report.answer(answer, latency_ms)

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        left = [*self._tasks, *self._background]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _tick(self, session: aiohttp.ClientSession) -> None:
        """Once a second: read the machine, set the pace, tell."""
        cpu, seconds = HostCpu(), 0
        cpu.read(time.monotonic_ns())
        while True:
            seconds += 1
            await asyncio.sleep(max(0.0, (self._begin_ns - time.monotonic_ns()) / NS_PER_SECOND + seconds))
            self._second(cpu.read(time.monotonic_ns()))
            self._write_status("running")
            if seconds % LINE_EVERY_SECONDS == 0:
                self._say(self._line())
            if seconds % NODES_EVERY_SECONDS == 0:
                self._spawn(self._background, self._observe_nodes(session))

    def _second(self, cpu_ratio: float) -> None:
        control = self._control
        starved = self._second_lag_ms > control.limits.lag_ms_max
        saturated = self._report.second(cpu_ratio, control.limits.cpu_ratio_max, starved)
        if saturated and time.monotonic_ns() >= self._quiet_until_ns:
            self._quiet_until_ns = time.monotonic_ns() + SATURATED_EVERY_NS
            self._say(saturation_sentence(cpu_ratio, self._second_lag_ms))
        self._saturated = saturation_sentence(cpu_ratio, self._second_lag_ms) if saturated else ""
        self._report.lag_ms_max = max(self._report.lag_ms_max, self._second_lag_ms)
        p99 = self._report.recent_ms(0.99, LATENCY_COUNT_MIN)
        pace = control.step(PaceInputs(cpu_ratio, p99, self._second_refused, self._second_lag_ms))
        self._clock.set_pace(time.monotonic_ns(), pace)
        self._rate, self._second_requests = float(self._second_requests), 0
        self._second_lag_ms, self._second_refused = 0.0, 0

    async def _observe_nodes(self, session: aiohttp.ClientSession) -> None:
        """Splits and hit ratios as the nodes tell them; a node that does not answer keeps what it said last."""
        await asyncio.gather(*(self._observe(session, node) for node in self._fleet.nodes))

    async def _observe(self, session: aiohttp.ClientSession, node: NodeAddress) -> None:
        headers = {"Authorization": f"Bearer {self._fleet.fleet_key}"}
        timeout = aiohttp.ClientTimeout(total=NODES_SECONDS)
        try:
            async with session.get(f"http://{node.host}:{node.port}/v1/status", headers=headers, timeout=timeout) as response:
                if response.status != 200:
                    return
                told = msgspec.json.decode(await response.read(), type=NodeFacts)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
            return
        seen = self._nodes.setdefault(node.name, {"emb_ratio_min": told.emb_ratio, "emb_ratio_max": told.emb_ratio})
        seen["emb_ratio_min"] = min(seen["emb_ratio_min"] or told.emb_ratio, told.emb_ratio)
        seen["emb_ratio_max"] = max(seen["emb_ratio_max"] or told.emb_ratio, told.emb_ratio)
        seen.update(msgspec.structs.asdict(told))

    def _summary(self, elapsed_seconds: float) -> dict[str, Any]:
        summary: dict[str, Any] = {"workload": self._workload.name, "seed": self._settings.seed, "pace": round(self._control.pace, 4)}
        summary |= self._report.summary(elapsed_seconds)
        nodes: dict[str, dict[str, Any]] = summary["nodes"]
        for name, facts in self._nodes.items():
            nodes.setdefault(name, {"requests": 0, "share": 0.0}).update(facts)
        return summary

    def _line(self) -> str:
        report, control = self._report, self._control
        p50, p99 = report.recent_ms(0.5, 1), report.recent_ms(0.99, 1)
        return (
            f"{self._rate:.0f} requests/s, P50 {p50:.1f} ms, P99 {p99:.1f} ms, host CPU {100 * control.cpu_ratio:.0f} %, "
            f"pace {control.pace:.2f} ({control.reason}), failures {report.failures_total}, shed {report.shed}"
            + (", HOST SATURATED" if self._saturated else "")
        )

    def _write_status(self, phase: str) -> None:
        path = self._settings.status_path
        if path is None:
            return
        report, cpu = self._report, self._control.cpu_ratio
        elapsed = (time.monotonic_ns() - self._begin_ns) / NS_PER_SECOND if self._begin_ns else 0.0
        status = LoadStatus(
            at_unix_ns=time.time_ns(),
            pid=os.getpid(),
            phase=phase,
            workload=self._workload.name,
            seed=self._settings.seed,
            elapsed_seconds=round(elapsed, 3),
            requests_total=report.requests,
            failures_total=report.failures_total,
            shed_total=report.shed,
            requests_per_second=self._rate,
            latency_ms_p50=_or_none(report.recent_ms(0.5, 1)),
            latency_ms_p99=_or_none(report.recent_ms(0.99, 1)),
            in_flight=len(self._tasks),
            pace=round(self._control.pace, 4),
            pace_reason=self._control.reason,
            host_cpu_ratio=_or_none(cpu),
            saturated=bool(self._saturated),
            saturated_seconds=report.saturated_seconds,
            message=self._saturated,
        )
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(msgspec.json.encode(status))
            partial.replace(path)
        except OSError as error:  # a full or vanished disk must not end the load
            self._say(f"cannot write {path}: {error.strerror}")


class NodeFacts(msgspec.Struct, frozen=True):
    """What the summary takes from a node's own telemetry."""

    emb_ratio: float
    target_emb_ratio: float | None = None
    emb_hit_ratio: float | None = None
    kv_hit_ratio: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p99: float | None = None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def say(text: str) -> None:
    """One line for the person at the terminal; standard output is the summary's."""
    print(f"load: {text}", file=sys.stderr, flush=True)
