"""Recording a live router: its own verbs, each written down once. The file is written by a thread.

A writer that falls behind ends the journal instead of leaving a gap: with a gap nothing replays.
"""

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.router.router import Pick, Router, RouterConfig
from agents.wire.messages import WIRE_VERSION, NodeLoad, ResidencyDelta, ResidencySnapshot
from agents.workloads.journal import End
from agents.workloads.router_journal import (
    ROUTER_JOURNAL_VERSION,
    SUFFIX,
    Completed,
    Gone,
    LoadHeard,
    Picked,
    Reaped,
    ResidencyHeard,
    RouterHeader,
    RouterRecord,
    SeenHeard,
    encode_router_record,
    outcome_digest,
)

PENDING_MAX = 100_000  # seconds of a busy router: the disk stood still
JOURNAL_BYTES_MAX = 1 << 30  # about a day at 50 requests/s
JOURNALS_KEPT = 4


class RouterJournal:
    """One file, one thread."""

    def __init__(self, folder: Path, header: RouterHeader, limit_bytes: int = JOURNAL_BYTES_MAX) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder)
        self.path = folder / f"{header.name}-{header.started_unix_ns}{SUFFIX}"
        self._limit_bytes = limit_bytes
        self._pending: queue.Queue[bytes | None] = queue.Queue(PENDING_MAX)
        self._reason = ""
        self._file = self.path.open("xb")
        self.put(header)
        self._thread = threading.Thread(target=self._run, name="router-journal", daemon=True)
        self._thread.start()

    def put(self, record: RouterRecord) -> None:
        """Queue one record."""
        if self._reason:
            return
        try:
            self._pending.put_nowait(encode_router_record(record))
        except queue.Full:
            self._reason = "writer_overrun"

    def close(self) -> None:
        """Write what is pending and end."""
        self._reason = self._reason or "closed"
        self._pending.put(None)
        self._thread.join()

    def _run(self) -> None:
        written = 0
        with self._file as target:
            while (data := self._next()) is not None:
                if written + len(data) > self._limit_bytes:
                    self._reason = "limit_bytes"
                    continue  # let the rest through to the end
                if self._reason != "limit_bytes":
                    written += target.write(data)
            target.write(encode_router_record(End(reason=self._reason or "closed")))

    def _next(self) -> bytes | None:
        try:
            return self._pending.get(timeout=1.0)
        except queue.Empty:
            self._file.flush()  # idle: what is there becomes visible to readers
            return self._pending.get()


def _make_room(folder: Path) -> None:
    """Whole runs go, oldest first: a part of one cannot be replayed."""
    runs = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    for path in runs[: max(0, len(runs) - JOURNALS_KEPT + 1)]:
        path.unlink()


class RecordingRouter(Router):
    """A router whose every changing call goes to a journal. Reads are inherited."""

    def __init__(self, names: list[str], config: RouterConfig, seed: int, folder: Path, name: str, started_unix_ns: int) -> None:
        super().__init__(names, config, seed)
        header = RouterHeader(
            journal_version=ROUTER_JOURNAL_VERSION,
            wire_version=WIRE_VERSION,
            name=name,
            nodes=names,
            config=config._asdict(),
            seed=seed,
            started_unix_ns=started_unix_ns,
        )
        self.journal = RouterJournal(folder, header)

    def pick(
        self,
        now_ns: int,
        user_key: int,
        history_tokens: int,
        candidates: int,
        barred: NDArray[np.int8] | None = None,
        retry_gap_ns: int | None = None,
    ) -> Pick:
        """See `Router.pick`."""
        reasons = {} if barred is None else {int(node): int(barred[node]) for node in np.flatnonzero(barred)}
        choice = super().pick(now_ns, user_key, history_tokens, candidates, barred, retry_gap_ns)
        self.journal.put(
            Picked(
                now_ns=now_ns,
                user_key=user_key,
                history_tokens=history_tokens,
                candidates=candidates,
                barred=reasons,
                retry_gap_ns=retry_gap_ns,
                digest=outcome_digest(*choice),
            )
        )
        return choice

    def completed(self, now_ns: int, reservation: int, latency_ms: float | None, failed: bool = False) -> bool:
        """See `Router.completed`."""
        self.journal.put(Completed(now_ns=now_ns, reservation=reservation, latency_ms=latency_ms, failed=failed))
        return super().completed(now_ns, reservation, latency_ms, failed)

    def node_load(self, index: int, now_ns: int, load: NodeLoad) -> None:
        """See `Router.node_load`."""
        self.journal.put(LoadHeard(now_ns=now_ns, index=index, load=load))
        super().node_load(index, now_ns, load)

    def residency(self, index: int, frame: ResidencySnapshot | ResidencyDelta) -> bool:
        """See `Router.residency`."""
        gap = super().residency(index, frame)
        self.journal.put(ResidencyHeard(index=index, frame=frame, gap=gap))
        return gap

    def seen(self, now_ns: int, user_keys: Sequence[int], ages_ms: Sequence[int]) -> None:
        """See `Router.seen`."""
        self.journal.put(SeenHeard(now_ns=now_ns, user_keys=list(user_keys), ages_ms=list(ages_ms)))
        super().seen(now_ns, user_keys, ages_ms)

    def node_gone(self, index: int) -> None:
        """See `Router.node_gone`."""
        self.journal.put(Gone(index=index))
        super().node_gone(index)

    def reap(self, now_ns: int) -> int:
        """See `Router.reap`."""
        expired = super().reap(now_ns)
        self.journal.put(Reaped(now_ns=now_ns, expired=expired))
        return expired
