"""The engine: one loop owns the node's brain, one device thread does what it has booked.

Requests wait in a bounded queue; a batch is closed by the rule in `agents.node.queue`, booked on
the loop, run on the device thread, completed on the loop. At most one batch runs while one more is
prepared. Ticks, refills and commands go through the same loop, so the brain has one owner and its
calls one order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from agents.node.batch import BatchPlan, MissReason, StageTimings
from agents.node.node import TickInputs
from agents.node.report import BodyFacts, PolicyFacts
from agents.numerics.decimals import all_finite
from agents.profiles import Profile
from agents.runtime.clock import Clock
from agents.runtime.device.base import DeviceExecutor, Execution
from agents.runtime.device_thread import DeviceThread
from agents.runtime.journal_writer import Brain
from agents.runtime.ranking import RankRequest, RankResult, batch_of
from agents.runtime.refill import RefillFeeder, RefillRate
from agents.runtime.seen_log import SeenLog
from agents.runtime.versions import Serving, Tables
from agents.runtime.waiting_room import Waiting, WaitingRoom, retry_after_seconds
from agents.wire.errors import ErrorCode, WireError
from agents.wire.events import EventKind
from agents.wire.messages import (
    ClusterReuse,
    ControllerMode,
    ControlRequest,
    DecisionRecord,
    NodeLoad,
    NodeSpec,
    NodeTelemetry,
    Phase,
    UsersSeen,
    VersionPart,
)

PIPELINE_BATCHES = 2  # one running, one prepared: a third would be booked upon guesses and only add wait
REFILL_HOLD_SECONDS_MAX = 30.0  # a chunk is 20 ms of the refill budget; longer means that the device stands still
DECISIONS_KEPT = 512  # for `GET /v1/decisions`; older ones live in the control plane
DEADLINE_SLO_MULTIPLE = 8  # default deadline: an answer later than 8 SLOs is of no use to a page

_MISS_REASONS = tuple(MissReason)  # by number

log = structlog.get_logger(__name__)

Event = tuple[EventKind, dict[str, str]]


@dataclass(eq=False)
class _Flight:
    """A booked batch on its way through the device."""

    ticket: int
    plan: BatchPlan
    members: list[Waiting]
    fence: int
    model_version: str
    started_ns: int = 0
    discarded: bool = False
    users: list[int] = field(default_factory=list)

    @property
    def work_ns(self) -> int:
        return sum(member.work_ns for member in self.members)


class Engine:
    """Serves requests on one node. Every method runs on the event loop it was made on."""

    def __init__(self, brain: Brain, device: DeviceExecutor, profile: Profile, clock: Clock, tick_ns: int, serving: Serving) -> None:
        self.name = brain.name
        self.profile = profile
        self.model_version = serving.model_version
        self.feature_schema = serving.feature_schema
        self._tables = serving.tables
        brain.lay_out_tables(serving.tables.first_rows)
        self.phase = Phase.READY
        self.policy_facts = PolicyFacts()
        self.failures_total = 0
        self.requests_total = 0
        self.rejections_total: dict[ErrorCode, int] = {}
        self.on_answer: list[Callable[[RankResult], None]] = []
        self.on_batch: list[Callable[[Execution], None]] = []
        self.on_decision: list[Callable[[DecisionRecord], None]] = []
        self.on_event: list[Callable[[Event], None]] = []
        self.residency_watchers: set[asyncio.Event] = set()
        self.seen = SeenLog()
        self.broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._brain = brain
        self._device = device
        self.clock = clock
        self._tick_ns = tick_ns
        self._loop = asyncio.get_running_loop()
        self._thread = DeviceThread(self._loop)
        self._refill = RefillFeeder(profile, device.stage_rows, self._refill_staged, self._loop)
        self._refill_rate = RefillRate()
        self._room = WaitingRoom(profile.queue_max)
        self._flights: list[_Flight] = []
        self._fence = 0
        self._failures_at_tick = 0
        self._telemetry_seq = 0
        self._decisions: deque[DecisionRecord] = deque(maxlen=DECISIONS_KEPT)
        self._started_ns = clock.now_ns()
        self._taking_up = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._ticker: asyncio.Task[None] | None = None

    # --- requests -------------------------------------------------------------------------

    async def infer(self, request: RankRequest) -> RankResult:
        """Answer one request; `WireError` says why not. A cancelled caller leaves the queue."""
        request_id, answer = self._enter(request)
        self._pump()
        try:
            return await answer
        except asyncio.CancelledError:
            self._room.leave(request_id)
            self._note_quiet()
            raise

    def _enter(self, request: RankRequest) -> "tuple[int, asyncio.Future[RankResult]]":
        now_ns = self.clock.now_ns()
        work_ms = self._brain.predict_ms(now_ns, request.user_key, request.items.shape[0], request.candidates.shape[0])
        deadline_ms = self.profile.slo_ms * DEADLINE_SLO_MULTIPLE if request.deadline_ms is None else request.deadline_ms
        waiting = Waiting(request, now_ns, int(work_ms * 1e6), self._loop.create_future())
        try:
            if self.phase is not Phase.READY:
                raise WireError(ErrorCode.DRAINING, "the node is draining")
            request_id = self._room.enter(waiting, now_ns + int(deadline_ms * 1e6))
        except WireError as refusal:
            self._count(refusal)
            raise
        self._quiet.clear()
        return request_id, waiting.answer

    def _count(self, refusal: WireError) -> WireError:
        self.rejections_total[refusal.code] = self.rejections_total.get(refusal.code, 0) + 1
        return refusal

    @property
    def retry_after_seconds(self) -> int:
        """When it makes sense to try again."""
        return retry_after_seconds(self._queued_ms(self.clock.now_ns()))

    def _pump(self) -> None:
        """Book batches while the device has room, of what is not too late."""
        now_ns = self.clock.now_ns()
        while len(self._flights) < PIPELINE_BATCHES:
            self._expire(now_ns)
            busy = [key for flight in self._flights for key in flight.users]
            members = self._room.next_batch(now_ns, self.profile.batch_max, busy, device_idle=not self._flights)
            if not members:
                break
            self._launch(now_ns, members)
        self._note_quiet()

    def _expire(self, now_ns: int) -> None:
        for late in self._room.late(now_ns):
            self.failures_total += 1
            waited_ms = (now_ns - late.arrival_ns) / 1e6
            late.refuse(self._count(WireError(ErrorCode.DEADLINE_EXCEEDED, f"deadline exceeded after {waited_ms:.0f} ms in the queue")))

    def _launch(self, now_ns: int, members: list[Waiting]) -> None:
        requests = [member.request for member in members]
        batch = batch_of(requests)
        try:
            ticket, plan = self._brain.admit(now_ns, batch)
        except Exception as error:
            log.exception("admission_failed")
            self._fail(members, error)
            return
        flight = _Flight(ticket, plan, members, self._fence, self.model_version, users=[request.user_key for request in requests])
        self._flights.append(flight)
        self.seen.add(flight.users, now_ns)
        actions = np.concatenate([request.actions for request in requests])
        timestamps = np.concatenate([request.timestamps for request in requests])

        def run() -> Execution:
            flight.started_ns = self.clock.now_ns()
            return self._device.execute(plan, batch, actions, timestamps)

        self._thread.submit_batch(flight.fence, run, lambda future: self._landed(flight, future))
        self._residency_changed()

    def _landed(self, flight: _Flight, future: "Future[Execution]") -> None:
        """A batch came back from the device thread."""
        if flight.discarded:
            return
        error = future.exception()
        try:
            if error is None:
                self._complete(flight, future.result())
            else:
                self._abort(flight, error)
            self._pump()
        except Exception as bug:
            log.exception("booking_failed")
            self._fail(flight.members, bug)
            self._break("the brain could not book a finished batch")

    def _complete(self, flight: _Flight, execution: Execution) -> None:
        now_ns = self.clock.now_ns()
        self._flights.remove(flight)
        queue_ms = np.array([(flight.started_ns - member.arrival_ns) / 1e6 for member in flight.members])
        timings = execution.timings
        self._brain.complete(
            now_ns, flight.ticket, StageTimings(queue_ms, timings.emb_ms, timings.kv_ms, timings.compute_ms, timings.service_ms)
        )
        for note in self.on_batch:
            note(execution)
        for member, result in zip(flight.members, _results(flight, execution, queue_ms), strict=True):
            self._answer(member, result)

    def _answer(self, member: Waiting, result: RankResult) -> None:
        if member.answer.done():  # the client has gone; its work is kept, nobody waits for it
            return
        if not all_finite(result.scores):
            self._fail([member], ValueError("a score is not finite"))
            return
        self.requests_total += 1
        member.answer.set_result(result)
        for note in self.on_answer:
            note(result)

    def _abort(self, flight: _Flight, error: BaseException) -> None:
        """Only this batch fails. Batches booked upon it are undone, newest first, and booked again."""
        now_ns = self.clock.now_ns()
        later = self._flights[self._flights.index(flight) + 1 :]
        for dependent in reversed(later):
            dependent.discarded = True
            self._brain.abort(now_ns, dependent.ticket)
        self._brain.abort(now_ns, flight.ticket)
        self._flights = self._flights[: self._flights.index(flight)]
        self._fence += 1
        log.error("batch_failed", error=repr(error), requests=len(flight.members), rebooked=len(later))
        self._fail(flight.members, error)
        for dependent in later:
            self._launch(now_ns, dependent.members)

    def _fail(self, members: list[Waiting], error: BaseException) -> None:
        refusal = error if isinstance(error, WireError) else WireError(ErrorCode.INTERNAL, "the batch failed on this node")
        for member in members:
            self.failures_total += refusal.code is ErrorCode.INTERNAL
            member.refuse(self._count(refusal))

    def _note_quiet(self) -> None:
        if not self._flights and not len(self._room):
            self._quiet.set()

    # --- ticks and refill -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to tick."""
        self._ticker = self._loop.create_task(self._tick_forever())

    async def on_device(self, work: Callable[[], None]) -> None:
        """Run `work` on the device thread, in its turn."""
        done = asyncio.Event()
        outcome: list[Future[None]] = []

        def finished(future: "Future[None]") -> None:
            outcome.append(future)
            done.set()

        self._thread.submit(work, finished)
        await done.wait()
        outcome[0].result()

    def take_up_features(self, schema: str) -> None:
        """Histories are built by another feature schema from now on: no prefix of the old one is found any more."""
        self._brain.version_flip(self.clock.now_ns(), VersionPart.FEATURES)
        self.feature_schema = schema
        self._residency_changed()

    async def take_up(self, version: str, tables: Tables, install: Callable[[], None]) -> None:
        """Serve another version of the model: `install` exchanges it on the device thread, in its turn.

        Nothing waits for it. Batches booked before are ranked by the old version, batches booked after by
        the new one, which finds no row and no prefix of the old. `WireError` when refills do not pause.
        """
        async with self._taking_up:
            try:
                if not await asyncio.to_thread(self._refill.hold, REFILL_HOLD_SECONDS_MAX):
                    raise WireError(ErrorCode.INTERNAL, f"a refill of the old version was not written within {REFILL_HOLD_SECONDS_MAX:g} s")
                self._brain.version_flip(self.clock.now_ns())
                self._brain.lay_out_tables(tables.first_rows)
                self.model_version, self._tables = version, tables
                await self.on_device(install)  # submitted here and now: nothing is booked in between
                self._residency_changed()
            except Exception as error:
                if self.model_version == version:
                    self._break(f"version {version} could not be installed: {error!r}")
                raise
            finally:
                self._refill.resume()

    async def _tick_forever(self) -> None:
        next_ns = self.clock.now_ns() + self._tick_ns
        while True:
            await asyncio.sleep(max(0, next_ns - self.clock.now_ns()) / 1e9)
            try:
                self.tick()
            except Exception:
                log.exception("tick_failed")
                self._break("a tick of the brain failed")
                return
            next_ns = max(next_ns + self._tick_ns, self.clock.now_ns())  # missed ticks are not made up for

    def tick(self) -> None:
        """One tick of the brain, and its effects."""
        now_ns = self.clock.now_ns()
        self._expire(now_ns)
        self._refill_rate.read(now_ns, self._device.link_counters().background_bytes_total)
        inputs = TickInputs(
            queue_depth=self.queue_depth,
            queued_ms=self._queued_ms(now_ns),
            refill_backlog_bytes=self._refill.backlog_bytes,
            failures=self.failures_total - self._failures_at_tick,
        )
        self._failures_at_tick = self.failures_total
        effects = self._brain.tick(now_ns, inputs)
        took_us = (self.clock.now_ns() - now_ns) / 1e3
        self._refill.want(effects.refill_rows)
        moves = effects.moves
        if moves.source_slots.shape[0]:
            self._thread.submit(lambda: self._device.copy_rows(moves), lambda future: self._moved(effects.serial, future))
        else:  # still behind the batches in flight: they read the pages that are leaving
            self._thread.submit(_nothing, lambda future: self._moved(effects.serial, future))
        for record in effects.records:
            self._note_decision(record, now_ns, took_us)
        for event in effects.events:
            for notify in self.on_event:
                notify(event)
        self._residency_changed()
        self._note_quiet()

    def _note_decision(self, record: DecisionRecord, now_ns: int, took_us: float) -> None:
        """Put a decision on the wall clock, with what its tick took (the brain measures no time)."""
        at_unix_ns = self.clock.unix_ns() - (self.clock.now_ns() - now_ns)
        stamped = msgspec.structs.replace(record, at_unix_ns=at_unix_ns, decision_us=took_us)
        self._decisions.append(stamped)
        for note in self.on_decision:
            note(stamped)

    def _moved(self, serial: int, future: "Future[None]") -> None:
        if future.exception() is not None:
            self._break(f"row copies failed: {future.exception()!r}")
            return
        self._brain.moves_done(self.clock.now_ns(), serial)

    def _refill_staged(self, rows: NDArray[np.int64], staged: Any, written: Callable[[], None]) -> None:
        """Book staged rows and write them behind what is already booked."""
        slots = self._brain.refill_commit(self.clock.now_ns(), rows)

        def done(future: "Future[None]") -> None:
            written()
            if future.exception() is not None:
                self._break(f"refill write failed: {future.exception()!r}")

        if (slots >= 0).any():
            self._thread.submit(lambda: self._device.write_rows(slots, staged), done)
        else:
            written()

    def _break(self, reason: str) -> None:
        """The arena can no longer be vouched for: take no more requests and let the daemon restart."""
        log.error("node_broken", reason=reason)
        self.phase = Phase.DRAINING
        if not self.broken.done():
            self.broken.set_result(reason)

    # --- commands and reports -------------------------------------------------------------

    def apply(self, spec: NodeSpec) -> None:
        """Desired state from the control plane; `WireError` if refused."""
        self._brain.apply(self.clock.now_ns(), spec)

    def control(self, request: ControlRequest) -> None:
        """Local override, pin or release; `WireError` if refused."""
        self._brain.control(self.clock.now_ns(), request)

    @property
    def controller_mode(self) -> ControllerMode:
        """Whether what the controller decides is done."""
        return self._brain.controller_mode

    def reuse(self, message: ClusterReuse) -> None:
        """The cluster's reuse statistics from one router."""
        self._brain.reuse(self.clock.now_ns(), message)

    @property
    def queue_depth(self) -> int:
        """Requests waiting and in flight."""
        return len(self._room) + sum(len(flight.members) for flight in self._flights)

    def _queued_ms(self, now_ns: int) -> float:
        """Predicted work ahead of a new request: the queue, what is prepared, the rest of what runs."""
        ahead_ns = self._room.work_ns
        for flight in self._flights:
            running_ns = now_ns - flight.started_ns if flight.started_ns else 0
            ahead_ns += max(0, flight.work_ns - running_ns)
        return ahead_ns / 1e6

    def load(self) -> NodeLoad:
        """What a router needs to predict this node."""
        now_ns = self.clock.now_ns()
        load = self._brain.load(now_ns, self.queue_depth, self._queued_ms(now_ns), self.phase, self.clock.unix_ns())
        return msgspec.structs.replace(load, model_version=self.model_version)

    def telemetry(self, count: bool = False) -> NodeTelemetry:
        """The node's state; with `count` it is the next of the numbered stream to the control plane."""
        self._telemetry_seq += count
        link = self._device.link_counters()
        facts = BodyFacts(
            at_unix_ns=self.clock.unix_ns(),
            seq=self._telemetry_seq,
            phase=self.phase,
            queue_depth=self.queue_depth,
            failures_total=self.failures_total,
            refill_backlog_bytes=self._refill.backlog_bytes,
            refill_bytes_total=link.background_bytes_total,
            refill_bytes_per_second=self._refill_rate.bytes_per_second,
            refill_throttled_seconds_total=link.throttled_seconds_total,
            device=self._device.name,
            emulated=self._device.emulated,
            model_version=self.model_version,
            started_ns=self._started_ns,
            feature_schema=self.feature_schema,
            tables=self._tables.names,
            policy=self.policy_facts,
        )
        return self._brain.telemetry(self.clock.now_ns(), facts)

    def decisions(self, limit: int) -> list[DecisionRecord]:
        """The newest decisions, newest first."""
        return list(reversed(self._decisions))[:limit]

    def seen_since(self, number: int) -> tuple[int, UsersSeen | None]:
        """See `SeenLog.since`."""
        return self.seen.since(number, self.clock.now_ns())

    def residency_since(self, seq: int) -> Any:
        """See `Node.residency_since`."""
        return self._brain.residency_since(seq)

    def _residency_changed(self) -> None:
        for watcher in self.residency_watchers:
            watcher.set()

    # --- end ------------------------------------------------------------------------------

    async def drain(self, seconds_max: float) -> bool:
        """Refuse new requests, finish what is here; False when the deadline cut some off."""
        self.phase = Phase.DRAINING
        self._residency_changed()
        try:
            async with asyncio.timeout(seconds_max):
                await self._quiet.wait()
        except TimeoutError:
            for waiting in self._room.empty():
                waiting.refuse(self._count(WireError(ErrorCode.DRAINING, "the node stopped before this request's turn")))
            return False
        return True

    async def close(self) -> None:
        """Stop ticking, refilling and executing; what was booked on the device is finished first."""
        if self._ticker is not None:
            self._ticker.cancel()
        await asyncio.to_thread(self._refill.close)
        await asyncio.to_thread(self._thread.close)


def _nothing() -> None:
    """A job that only marks its place in the order."""


def _results(flight: _Flight, execution: Execution, queue_ms: NDArray[np.float64]) -> Iterator[RankResult]:
    """One per request; each array becomes a list once, as single elements of arrays are slow to read."""
    timings, plan = execution.timings, flight.plan
    columns = (execution.scores, queue_ms.tolist(), timings.compute_ms.tolist(), np.diff(plan.read_offsets).tolist())
    for member, scores, waited_ms, compute_ms, blocks, reason in zip(flight.members, *columns, plan.miss_reasons.tolist(), strict=True):
        yield RankResult(
            scores=scores,
            queue_ms=waited_ms,
            emb_ms=timings.emb_ms,
            kv_ms=timings.kv_ms,
            compute_ms=compute_ms,
            service_ms=timings.service_ms,
            cached_blocks=blocks,
            cacheable_blocks=member.request.block_hashes.shape[0],
            miss_reason=_MISS_REASONS[reason],
            model_version=flight.model_version,
        )
