"""A read-only view of the pool: who has what, and whether the books balance."""

from typing import NamedTuple

import numpy as np

from agents.pool.state import Counter, Owner, PoolState


class LedgerError(AssertionError):
    """The books do not balance: a kernel has a bug. Never caught in the product."""


class Shares(NamedTuple):
    """Pages by owner; their sum is the pool."""

    emb: int
    kv: int
    migrating: int
    free: int


class Ledger:
    """View on one `PoolState`."""

    def __init__(self, state: PoolState, rows_per_page: int) -> None:
        self._state = state
        self._rows_per_page = rows_per_page

    def shares(self) -> Shares:
        """Pages by owner, counted from the owners themselves and not from the counters."""
        counts = np.bincount(self._state.owner, minlength=len(Owner))
        return Shares(int(counts[Owner.EMB]), int(counts[Owner.KV]), int(counts[Owner.MIGRATING]), int(counts[Owner.FREE]))

    @property
    def emb_ratio(self) -> float:
        """Share of the pool's pages that EMB owns."""
        return int(self._state.counters[Counter.EMB_PAGES]) / int(self._state.owner.shape[0])

    def counter(self, which: Counter) -> int:
        """One scalar of the state."""
        return int(self._state.counters[which])

    def check(self) -> None:
        """Verify every invariant the slow way; raises `LedgerError` naming the first that fails."""
        self._check_pages()
        self._check_prefixes()
        self._check_rows()

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise LedgerError(what)

    def _check_pages(self) -> None:
        state, shares = self._state, self.shares()
        self._require(shares.emb == state.counters[Counter.EMB_PAGES], "EMB page count differs from owners")
        self._require(shares.kv == state.counters[Counter.KV_PAGES], "KV page count differs from owners")
        listed = state.emb_pages[: shares.emb]
        self._require(len(set(listed.tolist())) == shares.emb, "an EMB page is listed twice")
        self._require(bool(np.all(state.owner[listed] == Owner.EMB)), "a listed EMB page has another owner")
        for position, page in enumerate(listed):
            self._require(int(state.emb_position[page]) == position, "emb_position does not point back")
        fresh = state.fresh[: state.counters[Counter.FRESH_PAGES]]
        self._require(bool(np.all(state.owner[fresh] == Owner.EMB)), "a fresh page is not EMB's")
        self._require(len(set(fresh.tolist())) == len(fresh), "a page is fresh twice")

    def _check_prefixes(self) -> None:
        state = self._state
        seen: set[int] = set()
        page, free = int(state.counters[Counter.KV_FREE_HEAD]), 0
        while page != -1:
            self._require(page not in seen, f"page {page} is on the KV free list twice")
            seen.add(page)
            self._require(state.owner[page] == Owner.KV, f"free KV page {page} has another owner")
            free += 1
            page = int(state.next[page])
        self._require(free == state.counters[Counter.KV_FREE_PAGES], "KV free count differs from its list")
        live = state.live[: state.counters[Counter.ENTRIES_LIVE]]
        used = 0
        for entry in live:
            page, blocks = int(state.entry_head[entry]), 0
            while page != -1:
                self._require(page not in seen, f"KV page {page} is owned twice")
                seen.add(page)
                self._require(state.owner[page] == Owner.KV, f"prefix page {page} has another owner")
                blocks += 1
                page = int(state.next[page])
            self._require(blocks == state.entry_blocks[entry], f"entry {entry} counts {state.entry_blocks[entry]} blocks, has {blocks}")
            self._require(blocks > 0, f"entry {entry} is live and empty")
            used += blocks
        self._require(used == state.counters[Counter.KV_PAGES_USED], "KV used count differs from its prefixes")
        self._require(used + free == state.counters[Counter.KV_PAGES], "a KV page is neither used nor free")
        indexed = state.user_index_key[state.user_index_key != 0]
        self._require(sorted(indexed.tolist()) == sorted(state.entry_key[live].tolist()), "user index differs from live entries")

    def _check_rows(self) -> None:
        state, per_page = self._state, self._rows_per_page
        occupied = np.flatnonzero(state.slot_row >= 0)
        self._require(len(occupied) == state.counters[Counter.EMB_ROWS], "row count differs from slots")
        self._require(bool(np.all(state.owner[occupied // per_page] == Owner.EMB)), "a row lies outside EMB")
        rows = state.slot_row[occupied]
        self._require(len(np.unique(rows)) == len(rows), "a row is resident twice")
        filled = state.row_index_row >= 0
        self._require(int(filled.sum()) == len(rows), "row index size differs from slots")
        slots = state.row_index_slot[filled]
        self._require(bool(np.all(state.slot_row[slots] == state.row_index_row[filled])), "row index points at another row")
        self._require(bool(np.all((state.slot_uses & 0x80) == 0)), "a slot is still protected after booking")
