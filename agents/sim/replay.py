"""Parity: a live node's journal, replayed through the same brain, must give the same decisions.

The replayer makes the calls of the journal with the journal's inputs (times and measured
latencies among them) on a fresh node and compares what comes out: the plan of every batch, the
effects of every tick, the slots of every refill. Decisions are recomputed, never read.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.caches.policy import CachePolicy
from agents.node.batch import Batch, BatchPlan, StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.profiles import load_profile
from agents.wire.errors import WireError
from agents.wire.messages import ControlRequest, GuardRails
from agents.workloads import journal

MISMATCHES_KEPT = 20  # enough to see a pattern; after the first the states differ and all else follows


class Served(NamedTuple):
    """One batch as the node booked it and its device timed it."""

    now_ns: int  # when it was done, on the node's clock
    requests: int
    prefixes_found: int
    rows_found: int
    rows_missing: int
    tokens: float  # of histories, those of found prefixes taken off
    tokens_squared: float  # sum of n^2 - cached^2
    candidates: int
    queue_ms: np.ndarray  # [requests]
    service_ms: float


class Parity(NamedTuple):
    """What a replay found."""

    name: str
    records: int
    batches: int
    decisions: int
    moved_pages: int
    evictions: int
    mismatches: list[str]
    ended: str

    @property
    def holds(self) -> bool:
        """Whether every recomputed output equals the recorded one."""
        return not self.mismatches


def replay_file(path: Path, policy: CachePolicy | None = None, served: list[Served] | None = None) -> Parity:
    """Replay a run from its first part on; `policy` replaces the caches' constants (a mutation must be noticed).

    Every served batch is appended to `served`, if given. `ValueError` for a later part, because its brain was no fresh one.
    """
    header = journal.read_header(path)
    if header.part > 1:
        raise ValueError(f"journal: {path.name} is part {header.part} of a run, which replays from {journal.part_of(path)[0].name} on")
    records = journal.read_run(path)
    next(iter(records), None)  # the header itself
    return replay(header, records, policy, served)


def replay(
    header: journal.Header, records: Iterable[journal.Record], policy: CachePolicy | None = None, served: list[Served] | None = None
) -> Parity:
    """Replay records that follow `header`."""
    node = Node(header.name, load_profile(header.profile), _config(header.config), policy)
    player = _Player(node, served)
    count = 0
    for record in records:
        count += 1
        player.play(record)
    return Parity(
        name=header.name,
        records=count,
        batches=player.batches,
        decisions=player.decisions,
        moved_pages=node.moved_pages(),
        evictions=node.evictions(),
        mismatches=player.mismatches,
        ended=player.ended,
    )


def _config(values: dict[str, Any]) -> NodeConfig:
    rails = msgspec.convert(values["guard_rails"], GuardRails)
    return NodeConfig(**{**values, "guard_rails": rails})


class _Player:
    """Makes the calls and compares; knows nothing of how decisions come about."""

    def __init__(self, node: Node, served: list[Served] | None) -> None:
        self._node = node
        self._served = served
        self._booked: dict[int, tuple[Batch, BatchPlan]] = {}
        self.batches = 0
        self.decisions = 0
        self.mismatches: list[str] = []
        self.ended = "cut off"

    def play(self, record: journal.Record) -> None:
        """One recorded call."""
        match record:
            case journal.Admit():
                self._admit(record)
            case journal.Complete():
                self._complete(record)
            case journal.Abort():
                self._booked.pop(record.ticket)
                self._node.abort(record.now_ns, record.ticket)
            case journal.Tick():
                self._tick(record)
            case journal.MovesDone():
                self._node.moves_done(record.now_ns, record.serial)
            case journal.RefillCommit():
                slots = self._node.refill_commit(record.now_ns, journal.unpack(record.rows))
                self._compare(f"refill at {record.now_ns}", journal.digest((slots,)), record.digest)
            case journal.Apply():
                self._command(record.now_ns, record.error_code, record.spec)
            case journal.Control():
                self._command(record.now_ns, record.error_code, record.request)
            case journal.Reuse():
                self._node.reuse(record.now_ns, record.message)
            case journal.VersionFlip():
                self._node.version_flip(record.now_ns, record.part)
            case journal.UsePolicy(weights=weights, card=card) if weights:
                self._node.use_policy(weights, card)
            case journal.UsePolicy():
                self._node.use_own_controller()
            case journal.End():
                self.ended = record.reason
            case journal.Header():
                raise ValueError("journal: a second header")

    def _admit(self, record: journal.Admit) -> None:
        batch = Batch(*(journal.unpack(part) for part in record.batch))
        ticket, plan = self._node.admit(record.now_ns, batch)
        self.batches += 1
        self._booked[ticket] = batch, plan
        self._compare(f"ticket at {record.now_ns}", ticket, record.ticket)
        self._compare(f"plan of batch {record.ticket}", journal.digest(plan), record.digest)

    def _complete(self, record: journal.Complete) -> None:
        timings = _timings(record)
        self._node.complete(record.now_ns, record.ticket, timings)
        batch, plan = self._booked.pop(record.ticket)
        if self._served is not None:
            self._served.append(_served(record.now_ns, batch, plan, timings))

    def _tick(self, record: journal.Tick) -> None:
        inputs = TickInputs(record.queue_depth, record.queued_ms, record.refill_backlog_bytes, record.failures)
        effects = self._node.tick(record.now_ns, inputs)
        self.decisions += len(effects.records)
        outcome = journal.effects_digest((*effects.moves, effects.refill_rows), effects.records)
        self._compare(f"effects of tick {record.serial}", outcome, record.digest)
        self._compare(f"ratio after tick {record.serial}", self._node.ledger.emb_ratio, record.emb_ratio)

    def _command(self, now_ns: int, error_code: str, command: Any) -> None:
        code = ""
        try:
            if isinstance(command, ControlRequest):
                self._node.control(now_ns, command)
            else:
                self._node.apply(now_ns, command)
        except WireError as error:
            code = error.code.value
        self._compare(f"command at {now_ns}", code, error_code)

    def _compare(self, what: str, recomputed: object, recorded: object) -> None:
        if recomputed != recorded and len(self.mismatches) < MISMATCHES_KEPT:
            self.mismatches.append(f"{what}: recomputed {recomputed}, recorded {recorded}")


def _served(now_ns: int, batch: Batch, plan: BatchPlan, timings: StageTimings) -> Served:
    tokens, cached = batch.history_tokens.astype(np.float64), plan.cached_tokens.astype(np.float64)
    return Served(
        now_ns=now_ns,
        requests=tokens.shape[0],
        prefixes_found=int((plan.cached_tokens > 0).sum()),
        rows_found=plan.rows.shape[0] - plan.missing.shape[0],
        rows_missing=plan.missing.shape[0],
        tokens=float((tokens - cached).sum()),
        tokens_squared=float((tokens**2 - cached**2).sum()),
        candidates=int(batch.candidate_offsets[-1]),
        queue_ms=timings.queue_ms,
        service_ms=timings.service_ms,
    )


def _timings(record: journal.Complete) -> StageTimings:
    queue_ms: np.ndarray = journal.unpack(record.queue_ms)
    return StageTimings(queue_ms, record.emb_ms, record.kv_ms, journal.unpack(record.compute_ms), record.service_ms)
