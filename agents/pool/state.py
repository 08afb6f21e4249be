"""The whole state of one node's pool as flat arrays. Only kernels write it; Python reads views.

One allocation at start, one owner thread, no growth afterwards. Sizes: P pages, S = P x rows per
page slots (enough for a pool that is all EMB), E = P prefix entries (each holds at least a page).
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Owner(IntEnum):
    """Who owns a page. A page is `MIGRATING` while a device copy out of it is unfinished."""

    FREE = 0
    EMB = 1
    KV = 2
    MIGRATING = 3


class Counter(IntEnum):
    """Positions in `PoolState.counters`: list heads, sizes and monotonic totals."""

    EMB_PAGES = 0  # pages owned by EMB
    KV_PAGES = 1  # pages owned by KV
    KV_FREE_HEAD = 2  # first unused KV page, -1 when none
    KV_FREE_PAGES = 3
    ENTRIES_LIVE = 4
    ENTRY_FREE_HEAD = 5
    EMB_ROWS = 6  # slots that hold a row
    CLOCK_PAGE = 7  # position of the clock hand in emb_pages
    CLOCK_SLOT = 8  # slot of the hand inside that page
    FRESH_PAGES = 9  # size of the stack of pages with never-filled slots
    EMB_LOOKUPS = 10
    EMB_HITS = 11
    EMB_INSERTS = 12
    EMB_EVICTED_PRESSURE = 13
    EMB_EVICTED_SHRINK = 14
    EMB_RESCUED = 15  # rows moved inside the arena instead of being dropped
    KV_REQUESTS = 16
    KV_HITS = 17
    KV_TOKENS_WANTED = 18
    KV_TOKENS_REUSED = 19
    KV_EVICTED_PRESSURE = 20  # prefixes
    KV_EVICTED_SHRINK = 21
    KV_PAGES_USED = 22
    MOVED_PAGES = 23
    RESIDENCY_SEQ = 24
    EVICTED_RING = 25  # rows ever written to the ring of evicted rows
    COUNT = 26


class PoolState(NamedTuple):
    """Struct of arrays; see `Counter` for the scalars."""

    counters: NDArray[np.int64]  # [Counter.COUNT]
    ageing: NDArray[np.float64]  # [1] GreedyDual's rising floor
    # pages
    owner: NDArray[np.int8]  # [P] an Owner each
    next: NDArray[np.int32]  # [P] next page of a prefix or of the free list, -1 ends
    page_hash: NDArray[np.uint64]  # [P] cumulative prefix hash at the end of a KV page
    # KV prefixes: entries, an index by user key, a dense list of the live ones
    entry_key: NDArray[np.uint64]  # [E]
    entry_head: NDArray[np.int32]  # [E]
    entry_blocks: NDArray[np.int32]  # [E]
    entry_pins: NDArray[np.int32]  # [E] batches in flight that read or write it
    entry_last_ns: NDArray[np.int64]  # [E]
    entry_uses: NDArray[np.int32]  # [E]
    entry_priority: NDArray[np.float64]  # [E] GreedyDual value, lowest goes first
    entry_next_free: NDArray[np.int32]  # [E]
    live: NDArray[np.int32]  # [E] entries in use, dense
    live_position: NDArray[np.int32]  # [E]
    user_index_key: NDArray[np.uint64]  # [U] open addressing, 0 is empty
    user_index_entry: NDArray[np.int32]  # [U]
    # KV ghosts: what this node knew of a user lately (direct mapped, newest wins)
    ghost_key: NDArray[np.uint64]  # [G]
    ghost_reason: NDArray[np.int8]  # [G] MissReason it would be
    ghost_seen_ns: NDArray[np.int64]  # [G]
    # residency log (ring)
    residency_key: NDArray[np.uint64]  # [L]
    residency_tokens: NDArray[np.int64]  # [L]
    # EMB rows: slots, an index by row id, the pages in clock order
    slot_row: NDArray[np.int64]  # [S] row id, -1 is empty
    slot_uses: NDArray[np.uint8]  # [S] saturating use count of the clock
    row_index_row: NDArray[np.int64]  # [I] open addressing, -1 is empty
    row_index_slot: NDArray[np.int32]  # [I]
    emb_pages: NDArray[np.int32]  # [P] pages of EMB, dense, in clock order
    emb_position: NDArray[np.int32]  # [P] position in emb_pages, -1
    fresh: NDArray[np.int32]  # [P] stack of pages with empty tails
    page_filled: NDArray[np.int32]  # [P] slots of an EMB page handed out so far (fresh pages only)
    # EMB ghosts: doorkeeper (direct mapped) and a ring of evicted rows that were in use
    door_row: NDArray[np.int64]  # [D]
    door_seen_ns: NDArray[np.int64]  # [D]
    evicted_row: NDArray[np.int64]  # [R] ring
    evicted_uses: NDArray[np.uint8]  # [R]


RESIDENCY_LOG = 16_384  # deltas kept for a reader that fell behind; older needs a snapshot (0.25 MB)
EVICTED_RING = 32_768  # rows remembered for refill: 8 MiB of 256 B rows, more than a tick can move
GHOST_USERS = 16_384  # users whose last fate is remembered


def power_of_two_at_least(value: int) -> int:
    """Smallest power of two >= `value`."""
    return 1 << max(1, value - 1).bit_length()


def allocate(pages: int, rows_per_page: int, emb_pages: int) -> PoolState:
    """A fresh pool: the first `emb_pages` pages are EMB and empty, the rest are KV and unused.

    Raises `ValueError` when the split leaves either cache without a page.
    """
    if not 0 < emb_pages < pages:
        raise ValueError(f"emb_pages: {emb_pages} must leave both caches at least one of {pages} pages")
    slots = pages * rows_per_page
    users = power_of_two_at_least(2 * pages)
    rows = power_of_two_at_least(2 * slots)
    state = PoolState(
        counters=np.zeros(Counter.COUNT, np.int64),
        ageing=np.zeros(1, np.float64),
        owner=np.full(pages, Owner.KV, np.int8),
        next=np.full(pages, -1, np.int32),
        page_hash=np.zeros(pages, np.uint64),
        entry_key=np.zeros(pages, np.uint64),
        entry_head=np.full(pages, -1, np.int32),
        entry_blocks=np.zeros(pages, np.int32),
        entry_pins=np.zeros(pages, np.int32),
        entry_last_ns=np.zeros(pages, np.int64),
        entry_uses=np.zeros(pages, np.int32),
        entry_priority=np.zeros(pages, np.float64),
        entry_next_free=np.arange(1, pages + 1, dtype=np.int32),
        live=np.full(pages, -1, np.int32),
        live_position=np.full(pages, -1, np.int32),
        user_index_key=np.zeros(users, np.uint64),
        user_index_entry=np.full(users, -1, np.int32),
        ghost_key=np.zeros(GHOST_USERS, np.uint64),
        ghost_reason=np.zeros(GHOST_USERS, np.int8),
        ghost_seen_ns=np.zeros(GHOST_USERS, np.int64),
        residency_key=np.zeros(RESIDENCY_LOG, np.uint64),
        residency_tokens=np.zeros(RESIDENCY_LOG, np.int64),
        slot_row=np.full(slots, -1, np.int64),
        slot_uses=np.zeros(slots, np.uint8),
        row_index_row=np.full(rows, -1, np.int64),
        row_index_slot=np.full(rows, -1, np.int32),
        emb_pages=np.full(pages, -1, np.int32),
        emb_position=np.full(pages, -1, np.int32),
        fresh=np.full(pages, -1, np.int32),
        page_filled=np.zeros(pages, np.int32),
        door_row=np.full(rows, -1, np.int64),
        door_seen_ns=np.zeros(rows, np.int64),
        evicted_row=np.full(EVICTED_RING, -1, np.int64),
        evicted_uses=np.zeros(EVICTED_RING, np.uint8),
    )
    _hand_out(state, emb_pages)
    return state


def _hand_out(state: PoolState, emb_pages: int) -> None:
    """Initial ownership; low page numbers are filled first, so the fresh stack is built downwards."""
    pages = state.owner.shape[0]
    state.entry_next_free[pages - 1] = -1
    state.owner[:emb_pages] = Owner.EMB
    state.emb_pages[:emb_pages] = np.arange(emb_pages)
    state.emb_position[:emb_pages] = np.arange(emb_pages)
    state.fresh[:emb_pages] = np.arange(emb_pages)[::-1]
    state.next[emb_pages : pages - 1] = np.arange(emb_pages + 1, pages)
    counters = state.counters
    counters[Counter.EMB_PAGES] = emb_pages
    counters[Counter.KV_PAGES] = pages - emb_pages
    counters[Counter.FRESH_PAGES] = emb_pages
    counters[Counter.KV_FREE_HEAD] = emb_pages
    counters[Counter.KV_FREE_PAGES] = pages - emb_pages
