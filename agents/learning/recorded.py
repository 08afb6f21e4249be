"""What a live node served, out of its journal, as traces that simulated fleets replay.

A journal holds every batch with whole histories. A trace holds what each request brought: the events by which a user's
history is longer than at the user's request before, and of a user's first one the newest part. Users are keyed as in the
journal. The end of a journal is held out, so that a policy tuned on the rest can be tried on traffic it has not seen.
Of a run in several parts the one asked for is read behind the one before it: a part that has just begun holds little.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.profiles import load_profile
from agents.workloads import journal
from agents.workloads.replay import EVENTS_PER_REQUEST_MAX
from agents.workloads.trace_file import TraceHeader, TraceRecord, write_trace

REQUESTS_MAX = 20_000  # of one journal, the newest: a quarter of an hour at 25/s
REQUESTS_MIN = 20  # fewer tell nothing of a rate
HELD_OUT_RATIO = 0.3
_SAME_EVENTS = 4  # so many equal events in a row are the same place in a history

# Places of what is read here in `Admit.batch`, see `agents.node.batch.Batch`.
_USERS, _HISTORY, _OFFSETS = 0, 4, 5


class Recorded(NamedTuple):
    """One journal: the traffic to learn from and, where there was enough of it, what was held out."""

    name: str
    profile: str
    rate_per_node: float  # requests/s that the node served
    learned: Path
    held_out: Path | None


def read_recorded(path: Path, folder: Path, cancelled: Callable[[], bool] = lambda: False) -> Recorded | None:
    """Write a journal's traces into `folder`; `None` when cancelled, `ValueError` for a journal that nothing can be learned from."""
    header = journal.read_header(path)
    profile = load_profile(header.profile)
    found = list(deque(_requests(_last_parts(path), cancelled), maxlen=REQUESTS_MAX))  # the newest: what nodes serve now
    if cancelled():
        return None
    if len(found) < REQUESTS_MIN:
        raise ValueError(f"journal {path.name}: {len(found)} requests, at least {REQUESTS_MIN} are needed")
    seconds = max((found[-1].ts_ns - found[0].ts_ns) / 1e9, 1e-3)
    described = TraceHeader(
        salt=header.salt_digest, rows=profile.rows, items_mapping="rows of the node's table", source=f"journal of {header.name}"
    )
    cut = round(len(found) * (1.0 - HELD_OUT_RATIO))
    parts = [found[:cut], found[cut:]] if len(found) - cut >= REQUESTS_MIN else [found]
    paths = [folder / f"{path.stem}-{number}.parquet" for number in range(len(parts))]
    for target, records in zip(paths, parts, strict=True):
        write_trace(target, described, records)
    return Recorded(path.name, header.profile, len(found) / seconds, paths[0], paths[1] if len(paths) > 1 else None)


def _last_parts(path: Path) -> list[Path]:
    """The part of a run that is asked for, behind the one before it where that is still there."""
    first, part = journal.part_of(path)
    before = journal.part_path(first, max(part - 1, 1))
    return [before, path] if part > 1 and before.exists() else [path]


def _requests(parts: list[Path], cancelled: Callable[[], bool]) -> Iterator[TraceRecord]:
    started_ns, began_ns = journal.read_header(parts[0]).started_unix_ns, -1
    ends: dict[int, NDArray[np.int64]] = {}  # of each user's history: whole ones of a long journal would fill the memory
    for record in chain.from_iterable(map(journal.read_records, parts)):
        if cancelled():
            return
        if not isinstance(record, journal.Admit):
            continue
        began_ns = record.now_ns if began_ns < 0 else began_ns
        at_ns = started_ns + record.now_ns - began_ns
        for user, history in _histories(record):
            yield TraceRecord(at_ns, user, _new_events(ends.get(user), history).tolist())
            ends[user] = history[-_SAME_EVENTS:].copy()


def _histories(record: journal.Admit) -> Iterator[tuple[int, NDArray[Any]]]:
    users, rows, offsets = (journal.unpack(record.batch[place]) for place in (_USERS, _HISTORY, _OFFSETS))
    for place, user in enumerate(users.tolist()):
        yield user, rows[offsets[place] : offsets[place + 1]]


def _new_events(before: NDArray[np.int64] | None, now: NDArray[np.int64]) -> NDArray[np.int64]:
    """The events of `now` behind the last ones of `before`; the newest part where the two do not meet."""
    tail = np.empty(0, np.int64) if before is None else before[-_SAME_EVENTS:]
    for brought in range(min(EVENTS_PER_REQUEST_MAX, now.shape[0] - tail.shape[0]) + 1 if tail.size else 0):
        end = now.shape[0] - brought
        if np.array_equal(now[end - tail.shape[0] : end], tail):
            return now[end:]
    return now[-EVENTS_PER_REQUEST_MAX:]
