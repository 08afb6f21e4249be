"""Hot embedding rows: look up, admit, evict, give a page back.

Rows live in slots of EMB pages. A row gets in on its second touch within the window (doorkeeper:
a direct-mapped table of row ids, so a scan of one-off rows never displaces anything). Victims are
found by a clock hand over the slots with a saturating use count: each pass of the hand takes one
use away, a row at zero goes. Pages just granted are filled first.
"""

import numpy as np
from numpy.typing import NDArray

from agents.caches.policy import CachePolicy
from agents.numerics.jit import kernel
from agents.pool.state import Counter, PoolState

_EMB_PAGES = int(Counter.EMB_PAGES)
_EMB_ROWS = int(Counter.EMB_ROWS)
_CLOCK_PAGE = int(Counter.CLOCK_PAGE)
_CLOCK_SLOT = int(Counter.CLOCK_SLOT)
_FRESH_PAGES = int(Counter.FRESH_PAGES)
_EMB_EVICTED_PRESSURE = int(Counter.EMB_EVICTED_PRESSURE)
_EMB_EVICTED_SHRINK = int(Counter.EMB_EVICTED_SHRINK)
_EMB_RESCUED = int(Counter.EMB_RESCUED)
_EVICTED_RING = int(Counter.EVICTED_RING)

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_FRESH_BIT = 0x80  # of slot_uses: touched by the batch being booked, so not evictable by it


@kernel
def row_position(row: int, mask: int) -> int:
    """Home position of a row id in a table of `mask + 1` places."""
    return np.int64(((np.uint64(row) * _MIX) >> _SHIFT) & np.uint64(mask))  # type: ignore[return-value]  # int() would stay unsigned in Numba


@kernel
def find_slot(state: PoolState, row: int) -> int:
    """Slot of a row, -1 when it is not resident."""
    mask = state.row_index_row.shape[0] - 1
    position = row_position(row, mask)
    while state.row_index_row[position] != -1:
        if state.row_index_row[position] == row:
            return int(state.row_index_slot[position])
        position = (position + 1) & mask
    return -1


@kernel
def _index_row(state: PoolState, row: int, slot: int) -> None:
    mask = state.row_index_row.shape[0] - 1
    position = row_position(row, mask)
    while state.row_index_row[position] != -1:
        position = (position + 1) & mask
    state.row_index_row[position] = row
    state.row_index_slot[position] = slot


@kernel
def _unindex_row(state: PoolState, row: int) -> None:
    """Delete by shifting the run back, so that no tombstones pile up."""
    mask = state.row_index_row.shape[0] - 1
    hole = row_position(row, mask)
    while state.row_index_row[hole] != row:
        hole = (hole + 1) & mask
    position = hole
    while True:
        position = (position + 1) & mask
        moved = state.row_index_row[position]
        if moved == -1:
            break
        home = row_position(moved, mask)
        if ((position - home) & mask) >= ((position - hole) & mask):
            state.row_index_row[hole] = moved
            state.row_index_slot[hole] = state.row_index_slot[position]
            hole = position
    state.row_index_row[hole] = -1
    state.row_index_slot[hole] = -1


@kernel
def _remember_evicted(state: PoolState, row: int, uses: int) -> None:
    """Ring of rows that were in use when they went: what a refill would bring back first."""
    place = state.counters[_EVICTED_RING] % state.evicted_row.shape[0]
    state.evicted_row[place] = row
    state.evicted_uses[place] = uses
    state.counters[_EVICTED_RING] += 1


@kernel
def drop_slot(state: PoolState, slot: int) -> None:
    """Empty one slot without calling it an eviction (an aborted batch's rows were never written)."""
    _unindex_row(state, state.slot_row[slot])
    state.slot_row[slot] = -1
    state.slot_uses[slot] = 0
    state.counters[_EMB_ROWS] -= 1


@kernel
def _fresh_slot(state: PoolState, rows_per_page: int) -> int:
    """A never-filled slot of a newly granted page, -1 when there is none."""
    while state.counters[_FRESH_PAGES] > 0:
        page = state.fresh[state.counters[_FRESH_PAGES] - 1]
        if state.page_filled[page] < rows_per_page:
            slot = page * rows_per_page + state.page_filled[page]
            state.page_filled[page] += 1
            return int(slot)
        state.counters[_FRESH_PAGES] -= 1
    return -1


@kernel
def _advance_hand(state: PoolState, rows_per_page: int) -> int:
    """Slot under the hand; moves the hand one slot on."""
    if state.counters[_CLOCK_PAGE] >= state.counters[_EMB_PAGES]:
        state.counters[_CLOCK_PAGE] = 0
        state.counters[_CLOCK_SLOT] = 0
    slot = state.emb_pages[state.counters[_CLOCK_PAGE]] * rows_per_page + state.counters[_CLOCK_SLOT]
    state.counters[_CLOCK_SLOT] += 1
    if state.counters[_CLOCK_SLOT] == rows_per_page:
        state.counters[_CLOCK_SLOT] = 0
        state.counters[_CLOCK_PAGE] += 1
    return int(slot)


@kernel
def _clock_slot(state: PoolState, rows_per_page: int, steps_max: int, barred_page: int, eviction_counter: int) -> int:
    """Slot freed by the hand within `steps_max` steps, -1 when everything it met was in use.

    `barred_page` is never a source of slots (it is being given away); -1 bars none.
    """
    for _ in range(steps_max):
        slot = _advance_hand(state, rows_per_page)
        page = slot // rows_per_page
        if page == barred_page:
            continue
        if state.slot_row[slot] == -1:
            if slot - page * rows_per_page < state.page_filled[page]:
                return slot  # dropped by an aborted batch; slots beyond page_filled are the fresh stack's to give
            continue
        uses = state.slot_uses[slot]
        if uses & _FRESH_BIT:
            continue
        if uses > 0:
            state.slot_uses[slot] = uses - 1
            continue
        _unindex_row(state, state.slot_row[slot])
        state.slot_row[slot] = -1
        state.counters[_EMB_ROWS] -= 1
        state.counters[eviction_counter] += 1
        return slot
    return -1


@kernel
def take_slot(state: PoolState, rows_per_page: int, policy: CachePolicy) -> int:
    """A slot for a new row: fresh first, else by the clock; -1 when the whole batch is newer than any victim."""
    slot = _fresh_slot(state, rows_per_page)
    if slot >= 0:
        return slot
    steps_max = (policy.clock_uses_max + 2) * state.counters[_EMB_PAGES] * rows_per_page
    return _clock_slot(state, rows_per_page, steps_max, -1, _EMB_EVICTED_PRESSURE)


@kernel
def put_row(state: PoolState, slot: int, row: int, uses: int) -> None:
    """Book a row into an empty slot."""
    state.slot_row[slot] = row
    state.slot_uses[slot] = uses
    state.counters[_EMB_ROWS] += 1
    _index_row(state, row, slot)


@kernel
def knock(state: PoolState, row: int, now_ns: int, policy: CachePolicy) -> bool:
    """Whether the doorkeeper lets a missing row in; notes the touch either way."""
    if policy.admit_all:
        return True
    place = row_position(row, state.door_row.shape[0] - 1)
    known = state.door_row[place] == row and now_ns - state.door_seen_ns[place] <= policy.emb_window_ns
    state.door_row[place] = row
    state.door_seen_ns[place] = now_ns
    return bool(known)


@kernel
def touch_slot(state: PoolState, slot: int, policy: CachePolicy) -> None:
    """Count a use and protect the row until the batch is booked."""
    uses = state.slot_uses[slot] & ~_FRESH_BIT
    if uses < policy.clock_uses_max:
        uses += 1
    state.slot_uses[slot] = uses | _FRESH_BIT


@kernel
def settle_slot(state: PoolState, slot: int) -> None:
    """End the protection that `touch_slot` or an insertion gave."""
    state.slot_uses[slot] &= 0x7F


@kernel
def coldest_page(state: PoolState, rows_per_page: int, sample_pages: int) -> int:
    """Page of EMB with the least use among `sample_pages` after the hand (the clock has aged those longest ago)."""
    pages = state.counters[_EMB_PAGES]
    best = -1
    best_uses = 0
    for step in range(min(sample_pages, pages)):
        page = state.emb_pages[(state.counters[_CLOCK_PAGE] + step) % pages]
        uses = 0
        for slot in range(page * rows_per_page, (page + 1) * rows_per_page):
            if state.slot_row[slot] != -1:
                uses += 1 + state.slot_uses[slot]
        if best == -1 or uses < best_uses:
            best = page
            best_uses = uses
    return best


@kernel
def clear_page(
    state: PoolState,
    page: int,
    rows_per_page: int,
    policy: CachePolicy,
    source_out: NDArray[np.int32],
    target_out: NDArray[np.int32],
) -> int:
    """Empty a page that EMB gives back; its hottest rows move to colder slots, at most the policy's bound.

    Returns the number of row copies written to `source_out` and `target_out`; the device must make
    them, in order, before the page's bytes are reused.
    """
    copies = 0
    for slot in range(page * rows_per_page, (page + 1) * rows_per_page):
        row = state.slot_row[slot]
        if row == -1:
            continue
        uses = state.slot_uses[slot]
        target = -1
        if uses >= policy.rescue_uses_min and copies < policy.rescue_rows_per_page:
            target = _rescue_slot(state, page, rows_per_page)
        _unindex_row(state, row)
        state.slot_row[slot] = -1
        state.slot_uses[slot] = 0
        state.counters[_EMB_ROWS] -= 1
        if target >= 0:
            put_row(state, target, row, uses)
            source_out[copies] = slot
            target_out[copies] = target
            copies += 1
            state.counters[_EMB_RESCUED] += 1
        else:
            state.counters[_EMB_EVICTED_SHRINK] += 1
            _remember_evicted(state, row, uses)
    return copies


@kernel
def _rescue_slot(state: PoolState, page: int, rows_per_page: int) -> int:
    """A colder slot outside `page` for a row worth keeping; a short search, as most rows are not worth a long one."""
    while state.counters[_FRESH_PAGES] > 0:
        fresh = state.fresh[state.counters[_FRESH_PAGES] - 1]
        if fresh != page and state.page_filled[fresh] < rows_per_page:
            return _fresh_slot(state, rows_per_page)
        if fresh == page:
            break
        state.counters[_FRESH_PAGES] -= 1
    return _clock_slot(state, rows_per_page, 64, page, _EMB_EVICTED_SHRINK)


@kernel
def wanted_rows(state: PoolState, rows_out: NDArray[np.int64]) -> int:
    """Rows to refill free slots with, newest evictions in use first; returns how many were written."""
    ring = state.evicted_row.shape[0]
    newest = state.counters[_EVICTED_RING]
    found = 0
    for back in range(1, min(newest, ring) + 1):
        if found == rows_out.shape[0]:
            break
        place = (newest - back) % ring
        row = state.evicted_row[place]
        if row >= 0 and find_slot(state, row) == -1:
            rows_out[found] = row
            found += 1
    return found


@kernel
def refill_rows(state: PoolState, rows: NDArray[np.int64], rows_per_page: int, slots_out: NDArray[np.int32]) -> int:
    """Book staged rows into fresh slots only (a refill never evicts); -1 where no longer wanted. Returns rows booked."""
    booked = 0
    for position in range(rows.shape[0]):
        slots_out[position] = -1
        if find_slot(state, rows[position]) != -1:
            continue
        slot = _fresh_slot(state, rows_per_page)
        if slot == -1:
            continue
        put_row(state, slot, rows[position], 1)
        slots_out[position] = slot
        booked += 1
    return booked
