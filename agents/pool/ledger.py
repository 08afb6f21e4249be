"""A read-only view of the pool: who has what, and whether the books balance."""

from typing import NamedTuple

import numpy as np

from agents.pool.state import Counter, Owner, PoolState


class LedgerError(AssertionError):
    """The books do not balance: a kernel has a bug. Never caught in the product."""


class Shares(NamedTuple):
    """Pages by owner; their sum is what was allocated, without the free ones it is the pool."""

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
        counts = np.bincount(self._state.pages["owner"], minlength=len(Owner))
        return Shares(int(counts[Owner.EMB]), int(counts[Owner.KV]), int(counts[Owner.MIGRATING]), int(counts[Owner.FREE]))

    @property
    def emb_ratio(self) -> float:
        """Share of the pool's pages that EMB owns."""
        return int(self._state.counters[Counter.EMB_PAGES]) / int(self._state.counters[Counter.POOL_PAGES])

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
        owner = state.pages["owner"]
        self._require(shares.emb == state.counters[Counter.EMB_PAGES], "EMB page count differs from owners")
        self._require(shares.kv == state.counters[Counter.KV_PAGES], "KV page count differs from owners")
        self._require(sum(shares) - shares.free == state.counters[Counter.POOL_PAGES], "pool size differs from owners")
        free = self._follow(int(state.counters[Counter.FREE_HEAD]), set(), Owner.FREE)
        self._require(free == shares.free, "a free page is not on the free list")
        self._check_list("emb_page", "emb_position", shares.emb)
        self._check_list("fresh_page", "fresh_position", int(state.counters[Counter.FRESH_PAGES]))
        self._require(bool(np.all(owner[state.pages["emb_position"] >= 0] == Owner.EMB)), "a listed EMB page has another owner")
        self._require(bool(np.all(owner[state.pages["fresh_position"] >= 0] == Owner.EMB)), "a fresh page is not EMB's")

    def _check_list(self, field: str, position: str, size: int) -> None:
        """A dense list and the positions in it must say the same."""
        listed = self._state.lists[field][:size]
        self._require(len(set(listed.tolist())) == size, f"a page is twice in {field}")
        self._require(bool(np.array_equal(self._state.pages[position][listed], np.arange(size))), f"{position} does not point back")
        self._require(int(np.count_nonzero(self._state.pages[position] >= 0)) == size, f"{position} of a page not listed")

    def _check_prefixes(self) -> None:
        state = self._state
        seen: set[int] = set()
        free = self._follow(int(state.counters[Counter.KV_FREE_HEAD]), seen, Owner.KV)
        self._require(free == state.counters[Counter.KV_FREE_PAGES], "KV free count differs from its list")
        live = state.lists["entry"][: state.counters[Counter.ENTRIES_LIVE]]
        for entry in live:
            held = state.entries[entry]
            blocks = self._follow(int(held["head"]), seen, Owner.KV)
            self._require(blocks == held["blocks"], f"entry {entry} counts {held['blocks']} blocks, has {blocks}")
            self._require(blocks > 0, f"entry {entry} is live and empty")
            self._require(int(state.next_pages[held["tail"]]) == -1, f"entry {entry} has a tail that is not its last page")
        used = len(seen) - free
        self._require(used == state.counters[Counter.KV_PAGES_USED], "KV used count differs from its prefixes")
        self._require(used + free == state.counters[Counter.KV_PAGES], "a KV page is neither used nor free")
        indexed = state.users["key"][state.users["key"] != 0]
        self._require(sorted(indexed.tolist()) == sorted(state.entries["key"][live].tolist()), "user index differs from live entries")

    def _follow(self, page: int, seen: set[int], owner: Owner) -> int:
        """Length of a chain of an owner's pages, none of which may have been seen before."""
        length = 0
        while page != -1:
            self._require(page not in seen, f"page {page} is owned twice")
            self._require(self._state.pages[page]["owner"] == owner, f"page {page} has another owner")
            seen.add(page)
            length += 1
            page = int(self._state.next_pages[page])
        return length

    def _check_rows(self) -> None:
        state, per_page = self._state, self._rows_per_page
        recorded, alive = np.flatnonzero(state.slots["row"] != -1), np.flatnonzero(state.slots["row"] >= 0)
        filled = state.pages["filled"][state.pages["owner"] != Owner.EMB]
        self._require(not filled.any(), "a page outside EMB has slots handed out")
        self._require(bool(np.all(alive % per_page < state.pages["filled"][alive // per_page])), "a row lies in a slot never handed out")
        self._require(len(alive) == state.counters[Counter.EMB_ROWS], "row count differs from slots")
        rows = np.bincount(alive // per_page, minlength=state.pages.shape[0])
        self._require(bool(np.array_equal(rows, state.pages["rows"])), "a page's row count differs from its slots")
        self._require(len(np.unique(state.slots["row"][alive])) == len(alive), "a row is resident twice")
        indexed = state.places["slot"][state.places["slot"] >= 0]
        self._require(bool(np.array_equal(np.sort(indexed), recorded)), "row index differs from slots")
