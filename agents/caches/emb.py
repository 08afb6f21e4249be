"""Hot embedding rows: look up, admit, evict, give a page back.

Rows live in slots of EMB pages. A row gets in on its second touch while the doorkeeper remembers the first: a
direct-mapped table of row tags with a place for every second slot of the pool, in which a miss overwrites whoever had its
place. So a scan of one-off rows never displaces anything, and how long a row is remembered is measured in
misses, not in seconds: a big pool's rows return slowly, and a window in time would shut them out. The door stands open
while one in eight who knock is known: then rows that come back are missing, not one-off rows alone, and
sending each of them away once doubles the misses just when a hot set has moved. Victims are
found by a clock hand over the slots with a saturating use count: each pass of the hand takes one
use away, a row at zero goes. Pages just granted are filled first.

A page is given back without touching the index: its slots say that their rows are dead, and what the index
still says of a dead row is removed when somebody asks for that row or when the slot is handed out again.

Use within a batch: a slot's `mark` names the position of its row in the batch that used it last, and the
batch's list of rows says whether that is this batch. So a row is known to be used by the batch being booked,
and is not evicted by it, without anything to reset afterwards.
"""

import numpy as np
from numpy.typing import NDArray

from agents.caches.policy import Admission, CachePolicy
from agents.numerics.jit import inlined_kernel, kernel, prefetch
from agents.pool.migration import list_fresh, unlist_fresh
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
_EMB_LOOKUPS = int(Counter.EMB_LOOKUPS)
_EMB_HITS = int(Counter.EMB_HITS)
_KNOCKS = int(Counter.KNOCKS)
_KNOCKS_KNOWN = int(Counter.KNOCKS_KNOWN)
_EVERYONE = int(Admission.EVERYONE)
_FREQUENCY = int(Admission.FREQUENCY)

# Two rounds of multiply and shift: enough that ids in sequence or in strides spread evenly.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_AGAIN = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_LOW_BITS = np.uint64(0xFFFF)

OPEN_AT_KNOWN = 8  # docs/decisions/0002 compares
PLACES_PER_KNOCK = 32  # the door's counts are halved at one knock per so many places: seconds under load
KNOCKS_MIN = 64  # fewer say nothing of a share of one in eight
_TOUCHES_MAX = 0xFFFF  # what a sighting can count to
ROW_MEMORY_MAX_NS = 3_600_000_000_000  # longer than any cache under load keeps a row that nobody asks for
RESCUE_STEPS = 64  # slots searched for a row worth moving: most are not worth a longer search
_FETCH_AHEAD = 16  # rows between asking for a row's place and needing it
NEW_USES = 0  # of a row just let in: it earns its rounds by being used again
WARMTH_SAMPLES = 16  # slots read to compare a page's use with others'


@kernel
def row_hash(row: int) -> np.uint64:
    """64 well mixed bits of a row id."""
    mixed = np.uint64(row) * _MIX
    return (mixed ^ (mixed >> _HALF)) * _MIX_AGAIN


@kernel
def row_tag(row: int) -> int:
    """The upper half of the hash: what the index keeps of a row id, and where it looks first."""
    return np.int64(row_hash(row) >> _HALF)  # type: ignore[return-value]  # int() would stay unsigned in Numba


@kernel
def home_place(tag: int, places: int) -> int:
    """Place where the search for a tag begins: the tag's share of 2 ** 32, so tables need not be powers of two."""
    return (tag * places) >> 32


@kernel
def _dead(row: int) -> int:
    """What a slot says of a row that went with its page: never a row id, never -1."""
    return -2 - row


@kernel
def find_slot(state: PoolState, row: int) -> int:
    """Slot of a row, -1 when it is not resident."""
    return _slot_saying(state, row, row)


@kernel
def _slot_saying(state: PoolState, row: int, said: int) -> int:
    """Slot that the index has for a row and that says `said`, -1 when there is none."""
    tag = row_tag(row)
    places = state.places.shape[0]
    place = home_place(tag, places)
    while state.places[place].slot != -1:
        slot = state.places[place].slot
        if state.places[place].tag == tag and state.slots[slot].row == said:
            return int(slot)
        place += 1
        if place == places:
            place = 0
    return -1


@kernel
def expect_row(state: PoolState, row: int) -> int:
    """Place where the search for a row begins; fetches it meanwhile."""
    place = home_place(row_tag(row), state.places.shape[0])
    prefetch(state.places, place)
    return place


@kernel
def probable_slot(state: PoolState, row: int, place: int) -> int:
    """First slot from `place` on whose tag is the row's, -1 when there is none: the index alone, to be confirmed."""
    tag = row_tag(row)
    places = state.places.shape[0]
    while state.places[place].slot != -1:
        if state.places[place].tag == tag:
            prefetch(state.slots, state.places[place].slot)
            return int(state.places[place].slot)
        place += 1
        if place == places:
            place = 0
    return -1


@kernel
def confirmed_slot(state: PoolState, row: int, slot: int) -> int:
    """What `probable_slot` found, if it is the row; else the row's slot, or -1 and no trace of a dead one."""
    if slot == -1 or state.slots[slot].row == row:
        return slot
    found = find_slot(state, row)
    if found == -1:
        dead = _slot_saying(state, row, _dead(row))
        if dead != -1:
            _unindex_dead(state, dead)
    return found


@kernel
def _unindex_dead(state: PoolState, slot: int) -> None:
    _unindex_row(state.places, _dead(state.slots[slot].row), slot)
    state.slots[slot].row = -1


@kernel
def _index_row(places: NDArray[np.void], row: int, slot: int) -> None:
    """Enter a row that is not in the index. Of the pool only that is handed over: each array costs the call a nanosecond or two."""
    tag = row_tag(row)
    count = places.shape[0]
    place = home_place(tag, count)
    while places[place].slot != -1:
        place += 1
        if place == count:
            place = 0
    places[place].tag = tag
    places[place].slot = slot


@kernel
def _unindex_row(places: NDArray[np.void], row: int, slot: int) -> None:
    """Delete a row's entry by shifting the run back, so that no tombstones pile up."""
    count = places.shape[0]
    hole = home_place(row_tag(row), count)
    while places[hole].slot != slot:
        hole += 1
        if hole == count:
            hole = 0
    place = hole
    while True:
        place += 1
        if place == count:
            place = 0
        if places[place].slot == -1:
            break
        home = home_place(np.int64(places[place].tag), count)  # type: ignore[arg-type]
        if _distance(home, place, count) >= _distance(hole, place, count):
            places[hole].tag = places[place].tag
            places[hole].slot = places[place].slot
            hole = place
    places[hole].slot = -1


@kernel
def _distance(start: int, end: int, places: int) -> int:
    """Steps from one place to another, around the end of the table."""
    steps = end - start
    return steps + places if steps < 0 else steps


@kernel
def _remember_evicted(state: PoolState, row: int) -> None:
    """Ring of rows that were in use when they went: what a refill would bring back first."""
    place = state.counters[_EVICTED_RING] % state.evicted.shape[0]
    state.evicted[place].row = row
    state.counters[_EVICTED_RING] += 1


@kernel
def drop_slot(state: PoolState, slot: int, rows_per_page: int) -> None:
    """Empty a live slot without calling it an eviction (an aborted batch's rows were never written)."""
    _unindex_row(state.places, state.slots[slot].row, slot)
    state.slots[slot].row = -1
    state.slots[slot].uses = 0
    state.pages[slot // rows_per_page].rows -= 1
    state.counters[_EMB_ROWS] -= 1


@kernel
def fresh_slot(state: PoolState, rows_per_page: int) -> int:
    """A slot that its page has not handed out yet, -1 when there is none."""
    while state.counters[_FRESH_PAGES] > 0:
        page = state.lists[state.counters[_FRESH_PAGES] - 1].fresh_page
        filled = state.pages[page].filled
        if filled < rows_per_page:
            slot = page * rows_per_page + filled
            if state.slots[slot].row != -1:  # dead since the page was last given back
                _unindex_dead(state, slot)
            state.pages[page].filled = filled + 1
            if filled + 1 == rows_per_page:
                unlist_fresh(state, page)
            return int(slot)
        unlist_fresh(state, page)
    return -1


@inlined_kernel
def victim_slot(state: PoolState, rows_per_page: int, steps_max: int, rows: NDArray[np.int64], unique: int) -> int:
    """Slot that the hand finds free or unused within `steps_max` steps, -1 when everything it met was in use.

    Never one whose row is among the first `unique` of `rows`: the batch being booked needs it.
    """
    pages = state.counters[_EMB_PAGES]
    position = state.counters[_CLOCK_PAGE]
    offset = state.counters[_CLOCK_SLOT]
    if position >= pages:
        position, offset = 0, 0
    page = state.lists[position].emb_page
    filled = state.pages[page].filled
    found = -1
    for _ in range(steps_max):
        if offset >= filled:  # what lies beyond `filled` is the fresh stack's to give
            offset = 0
            position += 1
            if position >= pages:
                position = 0
            page = state.lists[position].emb_page
            filled = state.pages[page].filled
            continue
        slot = page * rows_per_page + offset
        offset += 1
        if state.slots[slot].uses > 0:
            state.slots[slot].uses -= 1
            continue
        mark = state.slots[slot].mark
        if mark < unique and rows[mark] == state.slots[slot].row:
            continue
        found = slot
        break
    state.counters[_CLOCK_PAGE] = position
    state.counters[_CLOCK_SLOT] = offset
    return int(found)


@kernel
def sweep_steps(state: PoolState, rows_per_page: int, policy: CachePolicy) -> int:
    """Steps after which the hand has seen every slot with its uses taken away: further search is in vain."""
    return int((policy.clock_uses_max + 2) * state.counters[_EMB_PAGES] * (rows_per_page + 1))


@kernel
def occupy(state: PoolState, slot: int, row: int, uses: int, mark: int, rows_per_page: int, eviction_counter: int) -> int:
    """Put a row into a slot that was found for it; returns the evicted row, -1 if none. The index still says the old."""
    victim = state.slots[slot].row
    state.slots[slot].row = row
    state.slots[slot].uses = uses
    state.slots[slot].mark = mark
    for other in (victim, row):  # whose entries `reindex` will look at
        prefetch(state.places, home_place(row_tag(other), state.places.shape[0]))
    if victim == -1:
        state.pages[slot // rows_per_page].rows += 1
        state.counters[_EMB_ROWS] += 1
    else:
        state.counters[eviction_counter] += 1
    return int(victim)


@inlined_kernel
def reindex(state: PoolState, slot: int, victim: int) -> None:
    """Make the index say what `occupy` did."""
    if victim != -1:
        _unindex_row(state.places, victim, slot)
    _index_row(state.places, state.slots[slot].row, slot)


@inlined_kernel
def admits(state: PoolState, row: int, rows_per_page: int, policy: CachePolicy) -> bool:
    """Whether a missing row gets in; while there are fresh slots everybody does, as nothing gives way."""
    if policy.row_admission == _EVERYONE:
        return True
    if policy.row_admission == _FREQUENCY:
        wanted = _count_knock(state, row) > _uses_under_hand(state, rows_per_page) + 1
    else:
        wanted = knock(state, row) or door_open(state)
    return bool(wanted or state.counters[_FRESH_PAGES] > 0)


@kernel
def expect_knock(state: PoolState, row: int) -> None:
    """Fetch what the doorkeeper knows of a missing row."""
    place, _ = _door_place(state, row)
    prefetch(state.door, place)


@kernel
def knock(state: PoolState, row: int) -> bool:
    """Whether the doorkeeper remembers a missing row; notes the touch either way."""
    place, tag = _door_place(state, row)
    known = state.door[place].tag == tag
    state.door[place].tag = tag
    if state.counters[_KNOCKS] >= max(KNOCKS_MIN, state.door.shape[0] // PLACES_PER_KNOCK):
        state.counters[_KNOCKS] >>= 1
        state.counters[_KNOCKS_KNOWN] >>= 1
    state.counters[_KNOCKS] += 1
    state.counters[_KNOCKS_KNOWN] += known
    return bool(known)


@kernel
def door_open(state: PoolState) -> bool:
    """Whether one in eight of the rows that knocked lately had knocked before, or it cannot be known yet.

    Before as many rows have knocked as the door has places, it has forgotten nobody and knows next to nobody.
    """
    knocked = state.counters[_EMB_LOOKUPS] - state.counters[_EMB_HITS]
    if knocked < state.door.shape[0]:
        return True
    return bool(OPEN_AT_KNOWN * state.counters[_KNOCKS_KNOWN] > state.counters[_KNOCKS])


def row_memory_ns(state: PoolState, misses: int, span_ns: int) -> int:
    """How long the doorkeeper remembers a row, in the mean, when it was told of so many misses in a span.

    A place is overwritten by every miss that hashes to it, so the mean is places / misses per second.
    """
    return min(ROW_MEMORY_MAX_NS, span_ns * int(state.door.shape[0]) // max(1, misses))


@kernel
def _door_place(state: PoolState, row: int) -> tuple[int, int]:
    """Where the doorkeeper keeps a row, and the tag it knows it by."""
    hashed = row_hash(row)
    place = home_place(np.int64(hashed >> _HALF), state.door.shape[0])  # type: ignore[arg-type]
    tag = np.int64(hashed & _LOW_BITS)
    return place, 1 if tag == 0 else tag  # type: ignore[return-value]


@kernel
def _count_knock(state: PoolState, row: int) -> int:
    """Touches of a missing row, this one included; a row that shares its place takes counts away, so old ones fade."""
    place, tag = _door_place(state, row)
    if state.door[place].tag == tag:
        state.door[place].touches = min(state.door[place].touches + 1, _TOUCHES_MAX)
    elif state.door[place].touches > 1:
        state.door[place].touches -= 1
        return 1
    else:
        state.door[place].tag = tag
        state.door[place].touches = 1
    return int(state.door[place].touches)


@kernel
def _uses_under_hand(state: PoolState, rows_per_page: int) -> int:
    """Use count of the slot that the hand looks at next."""
    position = state.counters[_CLOCK_PAGE]
    page = state.lists[position if position < state.counters[_EMB_PAGES] else 0].emb_page
    return int(state.slots[page * rows_per_page + min(state.counters[_CLOCK_SLOT], rows_per_page - 1)].uses)


@kernel
def touch_slot(state: PoolState, slot: int, mark: int, policy: CachePolicy) -> None:
    """Count a use by the batch in which the row stands at position `mark`."""
    state.slots[slot].mark = mark
    if state.slots[slot].uses < policy.clock_uses_max:
        state.slots[slot].uses += 1


@kernel
def coldest_pages(state: PoolState, rows_per_page: int, count: int, pages_out: NDArray[np.int32]) -> int:
    """Pages to give back, coldest first: up to `count`, chosen among as many as `pages_out` has room for.

    Looked at are the pages after the hand: the clock has aged those longest ago. Returns how many were written.
    """
    pages = state.counters[_EMB_PAGES]
    seen = min(pages, pages_out.shape[0])
    for step in range(seen):
        page = state.lists[(state.counters[_CLOCK_PAGE] + step) % pages].emb_page
        state.pages[page].warmth = _warmth(state, page, rows_per_page)
        pages_out[step] = page
    _sort_by_warmth(state, pages_out[:seen])
    return int(min(count, seen))


@kernel
def _warmth(state: PoolState, page: int, rows_per_page: int) -> int:
    """Use of a page's rows, from a few of them: the sampled uses, each resident row one more."""
    stride = max(1, rows_per_page // WARMTH_SAMPLES)
    warmth = 0
    for slot in range(page * rows_per_page, page * rows_per_page + state.pages[page].filled, stride):
        if state.slots[slot].row != -1:
            warmth += 1 + state.slots[slot].uses
    return warmth


@kernel
def _sort_by_warmth(state: PoolState, pages: NDArray[np.int32]) -> None:
    """Shell sort, in place and stable enough: few thousand pages, few different values."""
    gap = 1
    while gap < pages.shape[0] // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for position in range(gap, pages.shape[0]):
            page = pages[position]
            warmth = state.pages[page].warmth
            while position >= gap and state.pages[pages[position - gap]].warmth > warmth:
                pages[position] = pages[position - gap]
                position -= gap
            pages[position] = page
        gap //= 3


@kernel
def clear_page(
    state: PoolState,
    page: int,
    rows_per_page: int,
    policy: CachePolicy,
    copies: int,
    rows_out: NDArray[np.int64],
    sources_out: NDArray[np.int32],
    targets_out: NDArray[np.int32],
) -> int:
    """Empty a page that EMB has given back; its hottest rows move to colder slots, at most the policy's bound.

    Row copies are written from position `copies` on, returned is where they end. The device must make them before
    the page's bytes are reused; no slot is a target twice, as the rows copied so far count as a batch in use.
    """
    copies_max = copies + policy.rescue_rows_per_page
    for uses in range(policy.clock_uses_max, policy.rescue_uses_min - 1, -1):
        copies = _rescue_rows(state, page, rows_per_page, uses, copies, copies_max, rows_out, sources_out, targets_out)
    _lose_rows(state, page, rows_per_page)
    return copies


@kernel
def _rescue_rows(
    state: PoolState,
    page: int,
    rows_per_page: int,
    uses: int,
    copies: int,
    copies_max: int,
    rows_out: NDArray[np.int64],
    sources_out: NDArray[np.int32],
    targets_out: NDArray[np.int32],
) -> int:
    """Move a page's rows of so many uses while there is room for them; returns where the copies end."""
    for slot in range(page * rows_per_page, page * rows_per_page + state.pages[page].filled):
        row = state.slots[slot].row
        if row == -1 or state.slots[slot].uses != uses:
            continue
        target = _rescue_slot(state, rows_per_page, rows_out, copies) if copies < copies_max else -1
        if target == -1:
            break
        drop_slot(state, slot, rows_per_page)
        reindex(state, target, occupy(state, target, row, uses, copies, rows_per_page, _EMB_EVICTED_SHRINK))
        rows_out[copies] = row
        sources_out[copies] = slot
        targets_out[copies] = target
        copies += 1
        state.counters[_EMB_RESCUED] += 1
    return copies


@kernel
def _lose_rows(state: PoolState, page: int, rows_per_page: int) -> None:
    """The rows still in a page are dead; those in use are remembered for a refill."""
    for slot in range(page * rows_per_page, page * rows_per_page + state.pages[page].filled):
        row = state.slots[slot].row
        if row == -1:
            continue
        state.slots[slot].row = _dead(row)
        if state.slots[slot].uses > 0:
            _remember_evicted(state, row)
    lost = state.pages[page].rows
    state.counters[_EMB_EVICTED_SHRINK] += lost
    state.counters[_EMB_ROWS] -= lost
    state.pages[page].rows = 0
    state.pages[page].filled = 0


@kernel
def forget_rows(state: PoolState, rows_per_page: int) -> None:
    """Another version of the tables: no row is found any more. Pages become fresh, and a ring of rows in use is wanted back."""
    remembered = 0
    for position in range(state.counters[_EMB_PAGES]):
        page = state.lists[position].emb_page
        for slot in range(page * rows_per_page, page * rows_per_page + state.pages[page].filled):
            row = state.slots[slot].row
            if row < 0:
                continue
            state.slots[slot].row = _dead(row)
            if state.slots[slot].uses > 0 and remembered < state.evicted.shape[0]:
                _remember_evicted(state, row)
                remembered += 1
        state.pages[page].rows = 0
        state.pages[page].filled = 0
        if state.pages[page].fresh_position == -1:
            list_fresh(state, page)
    state.counters[_EMB_ROWS] = 0


@kernel
def _rescue_slot(state: PoolState, rows_per_page: int, rows: NDArray[np.int64], unique: int) -> int:
    """A colder slot for a row worth keeping, after a short search."""
    slot = fresh_slot(state, rows_per_page)
    if slot != -1:
        return slot
    return victim_slot(state, rows_per_page, RESCUE_STEPS, rows, unique)


@kernel
def wanted_rows(state: PoolState, rows_out: NDArray[np.int64]) -> int:
    """Rows to refill free slots with, newest evictions in use first; returns how many were written."""
    ring = state.evicted.shape[0]
    newest = state.counters[_EVICTED_RING]
    places = state.places.shape[0]
    found = 0
    for back in range(1, min(newest, ring) + 1):
        if found == rows_out.shape[0]:
            break
        ahead = state.evicted[(newest - back - _FETCH_AHEAD) % ring].row  # waits for memory overlap instead of adding up
        prefetch(state.places, home_place(row_tag(ahead), places))
        row = state.evicted[(newest - back) % ring].row
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
        row = rows[position]
        if confirmed_slot(state, row, probable_slot(state, row, expect_row(state, row))) != -1:
            continue
        slot = fresh_slot(state, rows_per_page)
        if slot == -1:
            continue
        reindex(state, slot, occupy(state, slot, row, 1, 0, rows_per_page, _EMB_EVICTED_SHRINK))
        slots_out[position] = slot
        booked += 1
    return booked
