"""The brain and the store of a hosted pool under one lock: every call books and moves, then returns.

Many threads compute at once; only booking and copying are one at a time. A lease holds copies, so what is
booked later cannot harm it, and the pages it will write are pinned until it ends.
"""

import threading
from typing import NamedTuple

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from agents.node.batch import BatchPlan, MissReason, StageTimings
from agents.node.node import Node, TickInputs
from agents.node.report import BodyFacts
from agents.profiles import Profile
from agents.runtime.clock import Clock
from agents.runtime.device.base import Gathered, Stopwatch, refuse_out_of_memory
from agents.runtime.device.executor import timings_of
from agents.runtime.device.store import Store
from agents.runtime.ranking import RankRequest, batch_of
from agents.wire.messages import DecisionRecord, NodeSpec, NodeTelemetry, Phase

log = structlog.get_logger(__name__)


class Booked(NamedTuple):
    """A request on its way through somebody's model."""

    ticket: int
    plan: BatchPlan
    gathered: Gathered
    watch: Stopwatch
    queue_ms: float

    @property
    def cached_tokens(self) -> int:
        """Tokens of the history whose keys and values are at hand."""
        return int(self.plan.cached_tokens[0])

    @property
    def miss_reason(self) -> MissReason:
        """Why there is no prefix, or `HIT`."""
        return MissReason(int(self.plan.miss_reasons[0]))


class HostedPool:
    """Any thread may call; none waits for another's model."""

    def __init__(self, node: Node, store: Store, profile: Profile, clock: Clock) -> None:
        self._node = node
        self._store = store
        self._profile = profile
        self._clock = clock
        self._lock = threading.Lock()
        self._started_ns = clock.now_ns()
        self._open = 0
        self._failures = 0
        self._failures_at_tick = 0
        self._seq = 0

    @property
    def emb_ratio(self) -> float:
        """Share of the pool's pages that embedding rows have now."""
        return self._node.ledger.emb_ratio

    @property
    def generation(self) -> int:
        """Of the desired state in force."""
        return self._node.desired.generation

    def book(self, request: RankRequest, arrived_ns: int) -> Booked:
        """Look up, admit and gather; a failure of the device leaves nothing booked."""
        with self._lock:
            now_ns = self._clock.now_ns()
            ticket, plan = self._node.admit(now_ns, batch_of([request]))
            try:
                with refuse_out_of_memory("rows and prefix of a request"):
                    watch = self._store.stopwatch()
                    gathered = self._store.gather(plan, watch)
            except BaseException:
                self._node.abort(now_ns, ticket)
                self._failures += 1
                raise
            self._open += 1
            return Booked(ticket, plan, gathered, watch, (now_ns - arrived_ns) / 1e6)

    def finish(self, booked: Booked, fresh: torch.Tensor | None) -> None:
        """Write the new tokens' keys and values (none where no page was booked), and learn what the request took."""
        with self._lock:
            self._open -= 1
            booked.watch.mark()
            try:
                self._store.write_blocks(booked.plan, [] if fresh is None else [fresh])
                booked.watch.mark()
                timings = timings_of(booked.watch.laps_ms())
            except BaseException:
                self._forget(booked)
                raise
            queue_ms = np.array([booked.queue_ms])
            measured = StageTimings(queue_ms, timings.emb_ms, timings.kv_ms, timings.compute_ms, timings.service_ms)
            self._node.complete(self._clock.now_ns(), booked.ticket, measured)

    def give_up(self, booked: Booked, failed: bool) -> None:
        """Forget what was booked and not written; `failed` counts as a failure of the node."""
        with self._lock:
            self._open -= 1
            self._forget(booked, failed)

    def _forget(self, booked: Booked, failed: bool = True) -> None:
        self._node.abort(self._clock.now_ns(), booked.ticket)
        self._failures += failed

    def tick(self, backlog_bytes: int) -> tuple[NDArray[np.int64], list[DecisionRecord]]:
        """One tick with its moves; returns rows worth refilling and what was decided."""
        with self._lock:
            now_ns = self._clock.now_ns()
            inputs = TickInputs(self._open, 0.0, backlog_bytes, self._failures - self._failures_at_tick)
            self._failures_at_tick = self._failures
            effects = self._node.tick(now_ns, inputs)
            self._store.copy_rows(effects.moves)
            self._node.moves_done(self._clock.now_ns(), effects.serial)  # leases hold copies: nobody reads a page that leaves
            return effects.refill_rows, effects.records

    def stage(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Rows from host memory at the background rate; needs no lock."""
        return self._store.stage_rows(rows)

    def refill(self, rows: NDArray[np.int64], staged: torch.Tensor) -> None:
        """Book and write staged rows."""
        with self._lock:
            self._store.write_rows(self._node.refill_commit(self._clock.now_ns(), rows), staged)

    def obey(self, spec: NodeSpec) -> None:
        """A command of the control plane; `WireError` if refused."""
        with self._lock:
            self._node.apply(self._clock.now_ns(), spec)

    def telemetry(self, backlog_bytes: int) -> NodeTelemetry:
        """The next report to the control plane."""
        link = self._store.link_counters()
        with self._lock:
            self._seq += 1
            facts = BodyFacts(
                at_unix_ns=self._clock.unix_ns(),
                seq=self._seq,
                phase=Phase.READY,
                queue_depth=self._open,
                failures_total=self._failures,
                refill_backlog_bytes=backlog_bytes,
                refill_bytes_total=link.background_bytes_total,
                refill_throttled_seconds_total=link.throttled_seconds_total,
                device=self._store.name,
                emulated=self._store.emulated,
                model_version="hosted",
                started_ns=self._started_ns,
            )
            return self._node.telemetry(self._clock.now_ns(), facts)
