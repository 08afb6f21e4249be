"""Recording a live node: one wrapper around the brain, one thread that writes.

The wrapper has the brain's own methods, so nothing can be called without being recorded, and
nothing is recorded twice. It takes digests at once (outputs may be views of live state) and hands
records to the writer; a writer that falls behind ends the journal instead of leaving a gap,
because a journal with a gap cannot be replayed.
"""

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, StageTimings
from agents.node.desired import Desired
from agents.node.node import Effects, Node, NodeConfig, TickInputs
from agents.node.report import BodyFacts
from agents.pool.state import Counter
from agents.wire.errors import WireError
from agents.wire.messages import (
    WIRE_VERSION,
    ClusterReuse,
    ControllerMode,
    ControlRequest,
    NodeLoad,
    NodeSpec,
    NodeTelemetry,
    Phase,
    ResidencyDelta,
    ResidencySnapshot,
    VersionPart,
)
from agents.workloads import journal

PART_BYTES_MAX = 1 << 30  # one file of a run: an hour at 25 requests/s with 768 tokens
FOLDER_BYTES_MAX = 4 << 30  # all files of a node; the oldest go first: a demo disk is not filled, and what was served last is there
PENDING_RECORDS_MAX = 4_096  # about 40 MB of batches: the disk stood still for minutes

log = structlog.get_logger(__name__)


class Brain(Protocol):
    """What a body calls on a node, plain or recorded."""

    name: str

    def admit(self, now_ns: int, batch: Batch) -> tuple[int, BatchPlan]: ...  # noqa: D102
    def complete(self, now_ns: int, ticket: int, timings: StageTimings) -> None: ...  # noqa: D102
    def abort(self, now_ns: int, ticket: int) -> None: ...  # noqa: D102
    def tick(self, now_ns: int, inputs: TickInputs) -> Effects: ...  # noqa: D102
    def moves_done(self, now_ns: int, serial: int) -> None: ...  # noqa: D102
    def refill_commit(self, now_ns: int, rows: NDArray[np.int64]) -> NDArray[np.int32]: ...  # noqa: D102
    def apply(self, now_ns: int, spec: NodeSpec) -> None: ...  # noqa: D102
    def control(self, now_ns: int, request: ControlRequest) -> None: ...  # noqa: D102
    def reuse(self, now_ns: int, message: ClusterReuse) -> None: ...  # noqa: D102
    def version_flip(self, now_ns: int, part: VersionPart = VersionPart.MODEL) -> None: ...  # noqa: D102
    def lay_out_tables(self, first_rows: Sequence[int]) -> None: ...  # noqa: D102
    def use_policy(self, weights: bytes, card: bytes) -> str: ...  # noqa: D102
    def use_own_controller(self) -> None: ...  # noqa: D102
    def residency_since(self, seq: int) -> ResidencySnapshot | ResidencyDelta | None: ...  # noqa: D102
    def load(self, now_ns: int, queue_depth: int, queued_ms: float, phase: Phase, at_unix_ns: int) -> NodeLoad: ...  # noqa: D102
    def predict_ms(self, now_ns: int, user_key: int, history_tokens: int, candidates: int) -> float: ...  # noqa: D102
    def telemetry(self, now_ns: int, facts: BodyFacts) -> NodeTelemetry: ...  # noqa: D102

    @property
    def desired(self) -> Desired: ...  # noqa: D102
    @property
    def controller_mode(self) -> ControllerMode: ...  # noqa: D102


class JournalWriter:
    """A thread that appends records to a run's files, with a bounded backlog, bounded files and a bounded folder."""

    def __init__(self, path: Path, header: journal.Header, part_bytes: int = PART_BYTES_MAX, folder_bytes: int = FOLDER_BYTES_MAX) -> None:
        self.path = path
        self._part_bytes = part_bytes
        self._folder_bytes = folder_bytes
        self._pending: queue.Queue[Callable[[], journal.Record] | None] = queue.Queue(PENDING_RECORDS_MAX)
        self._overrun = threading.Event()
        self._stopped = threading.Event()
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open(path)
        self._thread = threading.Thread(target=self._run, args=(header,), name="journal", daemon=True)
        self._thread.start()

    def _open(self, path: Path) -> BinaryIO:
        make_room(path.parent, self._folder_bytes - self._part_bytes)
        # What users did stands in it, under hashed keys: its owner alone may read it.
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    @property
    def recording(self) -> bool:
        """Whether further records still go to the file."""
        return not (self._overrun.is_set() or self._stopped.is_set())

    def put(self, build: Callable[[], journal.Record]) -> None:
        """Queue a record, built on the writer's thread from arrays that nobody changes any more."""
        if not self.recording:
            return
        try:
            self._pending.put_nowait(build)
        except queue.Full:
            self._overrun.set()

    def close(self) -> None:
        """Write what is pending, close the file, end the thread."""
        self._pending.put(None)
        self._thread.join()

    def _run(self, header: journal.Header) -> None:
        reason = "writer_failed"
        try:
            reason = self._write_parts(header)
        except Exception:  # a full disk ends the journal, not the node
            log.exception("journal_failed", path=str(self.path))
        self._stopped.set()
        log.info("journal_ended", path=str(self.path), reason=reason)
        while not self._closed and self._pending.get() is not None:
            pass  # nobody may wait for room in a queue that is no longer read

    def _write_parts(self, header: journal.Header) -> str:
        """Write until there is nothing more to come; why that is."""
        first = b""  # record of the next part: it did not fit into the one before
        while True:
            with self._file as target:
                written = target.write(journal.encode_record(header)) + target.write(first)
                reason, first = self._write_part(target, written)
                target.write(journal.encode_record(journal.End(reason=reason)))
            if reason != journal.CONTINUED:
                return reason
            header = msgspec.structs.replace(header, part=header.part + 1, started_unix_ns=time.time_ns())
            self._file = self._open(journal.part_path(self.path, header.part))

    def _write_part(self, target: BinaryIO, written: int) -> tuple[str, bytes]:
        """Why it ends, and the record that goes into the next part."""
        while True:
            try:
                build = self._pending.get(timeout=1.0)
            except queue.Empty:
                target.flush()  # idle: what is there becomes visible to readers
                continue
            if build is None:
                self._closed = True
                return "writer_overrun" if self._overrun.is_set() else "closed", b""
            encoded = journal.encode_record(build())
            if written + len(encoded) > self._part_bytes:
                return journal.CONTINUED, encoded
            written += target.write(encoded)
            if self._overrun.is_set() and self._pending.empty():
                return "writer_overrun", b""


def make_room(folder: Path, limit_bytes: int) -> list[Path]:
    """Delete the oldest files of runs in `folder` until the rest fits; returns what went."""
    runs = sorted(folder.glob(f"*{journal.SUFFIX}"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    total = sum(path.stat().st_size for path in runs)
    gone = []
    for path in runs:
        if total <= limit_bytes:
            break
        total -= path.stat().st_size
        path.unlink()
        gone.append(path)
    return gone


def header_of(name: str, profile: str, config: NodeConfig, salt: bytes, started_unix_ns: int) -> journal.Header:
    """Header of a node's journal. The salt's digest tells which captures belong together, not the salt."""
    return journal.Header(
        journal_version=journal.JOURNAL_VERSION,
        wire_version=WIRE_VERSION,
        name=name,
        profile=profile,
        config=msgspec.to_builtins(config._asdict()),
        salt_digest=hashlib.blake2b(salt, digest_size=16, person=b"journal").hexdigest(),
        started_unix_ns=started_unix_ns,
    )


class RecordingNode:
    """A node whose every changing call goes to a journal. Reads pass through."""

    def __init__(self, node: Node, writer: JournalWriter) -> None:
        self._node = node
        self._writer = writer
        self.name = node.name

    def admit(self, now_ns: int, batch: Batch) -> tuple[int, BatchPlan]:
        """See `Node.admit`."""
        ticket, plan = self._node.admit(now_ns, batch)
        outcome = journal.digest(plan)
        self._writer.put(lambda: journal.Admit(now_ns=now_ns, batch=[journal.pack(part) for part in batch], ticket=ticket, digest=outcome))
        return ticket, plan

    def complete(self, now_ns: int, ticket: int, timings: StageTimings) -> None:
        """See `Node.complete`."""
        self._node.complete(now_ns, ticket, timings)
        self._writer.put(
            lambda: journal.Complete(
                now_ns=now_ns,
                ticket=ticket,
                queue_ms=journal.pack(timings.queue_ms),
                emb_ms=float(timings.emb_ms),
                kv_ms=float(timings.kv_ms),
                compute_ms=journal.pack(timings.compute_ms),
                service_ms=float(timings.service_ms),
            )
        )

    def abort(self, now_ns: int, ticket: int) -> None:
        """See `Node.abort`."""
        self._node.abort(now_ns, ticket)
        self._writer.put(lambda: journal.Abort(now_ns=now_ns, ticket=ticket))

    def tick(self, now_ns: int, inputs: TickInputs) -> Effects:
        """See `Node.tick`."""
        effects = self._node.tick(now_ns, inputs)
        record = journal.Tick(
            now_ns=now_ns,
            queue_depth=inputs.queue_depth,
            queued_ms=inputs.queued_ms,
            refill_backlog_bytes=inputs.refill_backlog_bytes,
            failures=inputs.failures,
            serial=effects.serial,
            digest=journal.effects_digest((*effects.moves, effects.refill_rows), effects.records),
            emb_ratio=self._node.ledger.emb_ratio,
            moved_pages_total=self._node.ledger.counter(Counter.MOVED_PAGES),
            evictions_total=self._node.evictions(),
        )
        self._writer.put(lambda: record)
        return effects

    def moves_done(self, now_ns: int, serial: int) -> None:
        """See `Node.moves_done`."""
        self._node.moves_done(now_ns, serial)
        self._writer.put(lambda: journal.MovesDone(now_ns=now_ns, serial=serial))

    def refill_commit(self, now_ns: int, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """See `Node.refill_commit`."""
        slots = self._node.refill_commit(now_ns, rows)
        outcome = journal.digest((slots,))
        self._writer.put(lambda: journal.RefillCommit(now_ns=now_ns, rows=journal.pack(rows), digest=outcome))
        return slots

    def apply(self, now_ns: int, spec: NodeSpec) -> None:
        """See `Node.apply`; a refusal is recorded too."""
        code = ""
        try:
            self._node.apply(now_ns, spec)
        except WireError as error:
            code = error.code.value
            raise
        finally:
            self._writer.put(lambda: journal.Apply(now_ns=now_ns, spec=spec, error_code=code))

    def control(self, now_ns: int, request: ControlRequest) -> None:
        """See `Node.control`; a refusal is recorded too."""
        code = ""
        try:
            self._node.control(now_ns, request)
        except WireError as error:
            code = error.code.value
            raise
        finally:
            self._writer.put(lambda: journal.Control(now_ns=now_ns, request=request, error_code=code))

    def reuse(self, now_ns: int, message: ClusterReuse) -> None:
        """See `Node.reuse`."""
        self._node.reuse(now_ns, message)
        self._writer.put(lambda: journal.Reuse(now_ns=now_ns, message=message))

    def version_flip(self, now_ns: int, part: VersionPart = VersionPart.MODEL) -> None:
        """See `Node.version_flip`."""
        self._node.version_flip(now_ns, part)
        self._writer.put(lambda: journal.VersionFlip(now_ns=now_ns, part=part))

    def lay_out_tables(self, first_rows: Sequence[int]) -> None:
        """See `Node.lay_out_tables`; it decides nothing, so it is not recorded."""
        self._node.lay_out_tables(first_rows)

    def use_policy(self, weights: bytes, card: bytes) -> str:
        """See `Node.use_policy`; a refusal changes nothing and is not recorded."""
        digest = self._node.use_policy(weights, card)
        self._writer.put(lambda: journal.UsePolicy(weights=weights, card=card))
        return digest

    def use_own_controller(self) -> None:
        """See `Node.use_own_controller`."""
        self._node.use_own_controller()
        self._writer.put(lambda: journal.UsePolicy(weights=b"", card=b""))

    def residency_since(self, seq: int) -> ResidencySnapshot | ResidencyDelta | None:
        """See `Node.residency_since`."""
        return self._node.residency_since(seq)

    def load(self, now_ns: int, queue_depth: int, queued_ms: float, phase: Phase, at_unix_ns: int) -> NodeLoad:
        """See `Node.load`."""
        return self._node.load(now_ns, queue_depth, queued_ms, phase, at_unix_ns)

    def predict_ms(self, now_ns: int, user_key: int, history_tokens: int, candidates: int) -> float:
        """See `Node.predict_ms`."""
        return self._node.predict_ms(now_ns, user_key, history_tokens, candidates)

    def telemetry(self, now_ns: int, facts: BodyFacts) -> NodeTelemetry:
        """See `Node.telemetry`."""
        return self._node.telemetry(now_ns, facts)

    @property
    def desired(self) -> Desired:
        """See `Node.desired`."""
        return self._node.desired

    @property
    def controller_mode(self) -> ControllerMode:
        """See `Node.controller_mode`."""
        return self._node.controller_mode
