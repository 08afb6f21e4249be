"""The whole state of one node's pool as a handful of record arrays. Only kernels write it; Python reads views.

Few arrays, because each one costs call and compile time of every kernel it is handed to, and records, because
what is read together then lies in one cache line. One allocation at start, one owner thread; the pool may be made
smaller than what was allocated, and grow back to it. Sizes: P pages, S = P x rows per page slots (enough for a
pool that is all EMB), E = P prefix entries (each holds at least a page).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Owner(IntEnum):
    """Who owns a page. A page is `MIGRATING` while a device copy out of it is unfinished."""

    FREE = 0  # outside the pool: it was made smaller
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
    EMB_ROWS = 6  # resident rows
    CLOCK_PAGE = 7  # position of the clock hand in the list of EMB pages
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
    POOL_PAGES = 26  # pages that are not free: the size of the pool now
    FREE_HEAD = 27  # first page outside the pool, -1 when none
    KNOCKS = 28  # missing rows that the doorkeeper was asked about lately
    KNOCKS_KNOWN = 29  # of them, those that it remembered
    COUNT = 30


HEADER = np.dtype(
    [
        ("ageing", "f8"),  # GreedyDual's rising floor
        ("model_version", "i8"),  # flips of the model so far
        ("feature_version", "i8"),  # flips of the feature schema so far: prefixes of another pair are never found
    ],
    align=True,
)
PAGE = np.dtype(
    [
        ("emb_position", "i4"),  # in the list of EMB pages, -1
        ("fresh_position", "i4"),  # in the stack of fresh pages, -1
        ("filled", "i4"),  # slots of an EMB page handed out so far
        ("rows", "i4"),  # resident rows
        ("owner", "i1"),  # an Owner
        ("warmth", "u2"),  # use of its rows when pages to give back were last compared
    ],
    align=True,
)
LISTED = np.dtype(
    [
        ("emb_page", "i4"),  # pages of EMB, dense, in clock order
        ("fresh_page", "i4"),  # stack of EMB pages with empty tails
        ("entry", "i4"),  # entries in use, dense
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        ("last_ns", "i8"),
        ("pins", "i4"),  # batches in flight that read or write it
        ("uses", "i4"),
        ("key", "u8"),
        ("model_version", "i8"),  # the header's two when it was made
        ("feature_version", "i8"),
        ("head", "i4"),
        ("tail", "i4"),
        ("blocks", "i4"),
        ("position", "i4"),  # in the list of live entries, -1
        ("next_free", "i4"),
    ],
    align=True,
)
USER = np.dtype([("key", "u8"), ("entry", "i4")], align=True)
FATE = np.dtype([("key", "u8"), ("seen_ns", "i8"), ("requests", "f4"), ("reason", "i1")], align=True)  # requests: decayed count
RESIDENCY = np.dtype([("key", "u8"), ("tokens", "i8")], align=True)
SLOT = np.dtype(
    [
        ("row", "i8"),  # -1 is empty; below that a row that went with its page, still in the index
        ("mark", "i4"),  # position of the row in the batch that used it last; true only if the batch says so too
        ("uses", "u1"),  # saturating use count of the clock
    ],
    align=True,
)
PLACE = np.dtype([("tag", "u4"), ("slot", "i4")], align=True)
SIGHTING = np.dtype([("tag", "u2"), ("touches", "u2")], align=True)  # touches: counted where frequency decides
EVICTED = np.dtype([("row", "i8")])
TABLE = np.dtype([("first_row", "i8"), ("lookups", "i8"), ("hits", "i8")], align=True)  # its rows end where the next one's begin


class PoolState(NamedTuple):
    """Arrays of records; see `Counter` for the scalars and the types above for the fields."""

    counters: NDArray[np.int64]  # [Counter.COUNT]
    header: NDArray[np.void]  # [1] HEADER
    pages: NDArray[np.void]  # [P] PAGE
    # of pages too, each by itself: a prefix has dozens of them and is walked and written as a whole, past nothing else
    next_pages: NDArray[np.int32]  # [P] next page of a prefix, of KV's unused pages or of the free ones; -1 ends
    page_hashes: NDArray[np.uint64]  # [P] cumulative prefix hash at the end of a KV page
    lists: NDArray[np.void]  # [P] LISTED: three dense lists side by side
    # KV: prefixes, an index by user key (open addressing, key 0 is empty), what is known of users lately
    entries: NDArray[np.void]  # [E] ENTRY
    priorities: NDArray[np.float64]  # [E] GreedyDual value of each entry in use, lowest goes first; in the order of their list
    users: NDArray[np.void]  # [power of two] USER
    fates: NDArray[np.void]  # [power of two] FATE: direct mapped, newest wins; the reason is a MissReason
    residency: NDArray[np.void]  # [L] RESIDENCY: ring of changes that routers follow
    # EMB: slots, an index by row id (open addressing, slot -1 is empty), doorkeeper (direct mapped), lost rows
    slots: NDArray[np.void]  # [S] SLOT
    places: NDArray[np.void]  # [23/16 S] PLACE
    door: NDArray[np.void]  # [1/2 S] SIGHTING: tag 0 is empty
    evicted: NDArray[np.void]  # [R] EVICTED: ring of rows that were in use when they went
    tables: NDArray[np.void]  # [TABLES_MAX] TABLE: look-ups by embedding table


RESIDENCY_LOG = 8_192  # deltas kept for a reader that fell behind, over a minute's; older needs a snapshot
EVICTED_RING = 16_384  # rows remembered for refill: four times what a tick asks for
USERS_PER_PAGE = 8  # whose last fate is remembered: far more than can be resident, so that a second request is noticed
USERS_REMEMBERED_MAX = 65_536
TABLES_MAX = 16  # embedding tables counted apart
TABLE_SHIFT = 40  # unless told otherwise, a row id is its table's number above, the row in it below
NO_ROW = (1 << 63) - 1  # where a table that is not there would begin


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
    state = PoolState(
        counters=np.zeros(Counter.COUNT, np.int64),
        header=_records(1, HEADER),
        pages=_records(pages, PAGE, owner=Owner.KV, emb_position=-1, fresh_position=-1),
        next_pages=np.full(pages, -1, np.int32),
        page_hashes=np.zeros(pages, np.uint64),
        lists=_records(pages, LISTED, emb_page=-1, fresh_page=-1, entry=-1),
        entries=_records(pages, ENTRY, head=-1, tail=-1, position=-1),
        priorities=np.zeros(pages),
        users=_records(power_of_two_at_least(2 * pages), USER, entry=-1),
        fates=_records(power_of_two_at_least(min(USERS_PER_PAGE * pages, USERS_REMEMBERED_MAX)), FATE),
        residency=_records(RESIDENCY_LOG, RESIDENCY),
        slots=_records(slots, SLOT, row=-1),
        places=_records(slots + 7 * slots // 16 + 8, PLACE, slot=-1),  # seven tenths full when the pool is all EMB
        door=_records(slots // 2 + 8, SIGHTING),
        evicted=_records(EVICTED_RING, EVICTED, row=-1),
        tables=_records(TABLES_MAX, TABLE),
    )
    lay_out_tables(state, [table << TABLE_SHIFT for table in range(TABLES_MAX)])
    _hand_out(state, emb_pages)
    return state


def lay_out_tables(state: PoolState, first_rows: Sequence[int]) -> None:
    """Count look-ups from now on by tables that begin at these row ids, in rising order; beyond `TABLES_MAX` the last holds the rest."""
    state.tables["first_row"] = NO_ROW
    state.tables["first_row"][: len(first_rows)] = first_rows[:TABLES_MAX]
    state.tables["lookups"] = state.tables["hits"] = 0


def _records(count: int, dtype: np.dtype[np.void], **values: int) -> NDArray[Any]:
    """Zeroed records, but for the fields given."""
    records: NDArray[Any] = np.zeros(count, dtype)
    for name, value in values.items():
        records[name] = value
    return records


def _hand_out(state: PoolState, emb_pages: int) -> None:
    """Initial ownership; low page numbers are filled first, so the fresh stack is built downwards."""
    pages = state.pages.shape[0]
    state.entries["next_free"] = np.append(np.arange(1, pages), -1)
    state.pages["owner"][:emb_pages] = Owner.EMB
    state.lists["emb_page"][:emb_pages] = np.arange(emb_pages)
    state.pages["emb_position"][:emb_pages] = np.arange(emb_pages)
    state.lists["fresh_page"][:emb_pages] = np.arange(emb_pages)[::-1]
    state.pages["fresh_position"][:emb_pages] = np.arange(emb_pages)[::-1]
    state.next_pages[emb_pages : pages - 1] = np.arange(emb_pages + 1, pages)
    counters = state.counters
    counters[Counter.POOL_PAGES] = pages
    counters[Counter.FREE_HEAD] = -1
    counters[Counter.EMB_PAGES] = emb_pages
    counters[Counter.KV_PAGES] = pages - emb_pages
    counters[Counter.FRESH_PAGES] = emb_pages
    counters[Counter.KV_FREE_HEAD] = emb_pages
    counters[Counter.KV_FREE_PAGES] = pages - emb_pages
