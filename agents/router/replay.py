"""Recompute a live router's picks from its journal: the same calls on a router of one's own."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from agents.router.router import Router, RouterConfig
from agents.workloads.router_journal import (
    ROUTER_JOURNAL_VERSION,
    Completed,
    Gone,
    LoadHeard,
    Picked,
    Reaped,
    ResidencyHeard,
    RouterHeader,
    RouterRecord,
    SeenHeard,
    outcome_digest,
)


class ReplayResult(NamedTuple):
    """What a replay found. `first_mismatch` is the index of the first record that came out differently, or -1."""

    picks: int
    mismatches: int
    first_mismatch: int


def router_of(header: RouterHeader) -> Router:
    """The router a journal began with."""
    if header.journal_version != ROUTER_JOURNAL_VERSION:
        raise ValueError(f"router journal: version {header.journal_version}, this reader knows {ROUTER_JOURNAL_VERSION}")
    return Router(header.nodes, RouterConfig(**header.config), header.seed)


def replay(records: Iterable[RouterRecord]) -> ReplayResult:
    """Make every call again and compare what came out."""
    stream = iter(records)
    header = next(stream, None)
    if not isinstance(header, RouterHeader):
        raise ValueError("router journal: it does not begin with a header")
    router = router_of(header)
    picks, mismatches, first = 0, 0, -1
    for place, record in enumerate(stream, 1):
        picks += isinstance(record, Picked)
        if not repeat(router, record):
            mismatches += 1
            first = place if first < 0 else first
    return ReplayResult(picks, mismatches, first)


def repeat(router: Router, record: RouterRecord) -> bool:
    """Make one recorded call; whether it answered as it did live."""
    match record:
        case Picked():
            barred = np.zeros(len(router.names), dtype=np.int8)
            for node, reason in record.barred.items():
                barred[node] = reason
            choice = router.pick(record.now_ns, record.user_key, record.history_tokens, record.candidates, barred, record.retry_gap_ns)
            return outcome_digest(*choice) == record.digest
        case Completed():
            router.completed(record.now_ns, record.reservation, record.latency_ms, record.failed)
        case LoadHeard():
            router.node_load(record.index, record.now_ns, record.load)
        case ResidencyHeard():
            return router.residency(record.index, record.frame) == record.gap
        case SeenHeard():
            router.seen(record.now_ns, record.user_keys, record.ages_ms)
        case Gone():
            router.node_gone(record.index)
        case Reaped():
            return router.reap(record.now_ns) == record.expired
        case _:
            pass  # how the journal ended
    return True
