"""Rows on a pool of a few pages of four slots: who gets in, who goes, who is rescued."""

import numpy as np

from agents.caches import emb
from agents.caches.policy import Admission, CachePolicy, cache_policy
from agents.pool import migration
from agents.pool.ledger import Ledger
from agents.pool.state import Counter, PoolState, allocate

ROWS_PER_PAGE = 4
SHIPPED = cache_policy("shipped", ROWS_PER_PAGE)
OPEN = cache_policy("none", ROWS_PER_PAGE)
NO_BATCH = np.empty(0, np.int64)


def tiny_pool(emb_pages: int = 2) -> PoolState:
    return allocate(pages=emb_pages + 2, rows_per_page=ROWS_PER_PAGE, emb_pages=emb_pages)


def closed(state: PoolState) -> PoolState:
    """A pool long in use, of whose missing rows none had knocked before."""
    state.counters[Counter.EMB_LOOKUPS] = state.door.shape[0]
    state.counters[Counter.KNOCKS] = 2 * emb.KNOCKS_MIN
    return state


def touch(state: PoolState, row: int, policy: CachePolicy = OPEN) -> bool:
    """One look-up as booking would do it; True on a hit."""
    slot = emb.confirmed_slot(state, row, emb.probable_slot(state, row, emb.expect_row(state, row)))
    if slot >= 0:
        emb.touch_slot(state, slot, 0, policy)
        return True
    if emb.admits(state, row, ROWS_PER_PAGE, policy):
        place(state, row, policy)
    return False


def place(state: PoolState, row: int, policy: CachePolicy = OPEN) -> int:
    """Slot that a new row got."""
    slot = emb.fresh_slot(state, ROWS_PER_PAGE)
    if slot == -1:
        slot = emb.victim_slot(state, ROWS_PER_PAGE, emb.sweep_steps(state, ROWS_PER_PAGE, policy), NO_BATCH, 0)
    emb.reindex(state, slot, emb.occupy(state, slot, row, 1, 0, ROWS_PER_PAGE, Counter.EMB_EVICTED_PRESSURE))
    return slot


def find(state: PoolState, row: int) -> int:
    return int(emb.find_slot(state, row))


def residents(state: PoolState) -> set[int]:
    rows = state.slots["row"]
    return set(rows[rows >= 0].tolist())


def test_slots_of_fresh_pages_are_filled_in_order() -> None:
    state = tiny_pool()
    for row in range(8):
        touch(state, row)
    assert state.slots["row"][:8].tolist() == list(range(8))
    Ledger(state, ROWS_PER_PAGE).check()


def test_a_full_cache_evicts_the_row_the_hand_finds_unused() -> None:
    state = tiny_pool()
    for row in range(8):
        touch(state, row)
    touch(state, 100)  # one round takes every use away; the second stops at row 0
    assert residents(state) == {100, 1, 2, 3, 4, 5, 6, 7}
    touch(state, 1)  # used again: survives the next pass
    touch(state, 101)
    assert residents(state) == {100, 1, 101, 3, 4, 5, 6, 7}
    assert state.counters[Counter.EMB_EVICTED_PRESSURE] == 2
    Ledger(state, ROWS_PER_PAGE).check()


def test_a_full_cache_lets_a_row_in_on_its_second_touch() -> None:
    state = closed(tiny_pool())
    for row in range(100, 108):
        assert not touch(state, row, policy=SHIPPED)
    assert residents(state) == set(range(100, 108))  # there was room: nothing gave way
    touch(state, 5, policy=SHIPPED)
    assert 5 not in residents(state)
    touch(state, 5, policy=SHIPPED)
    assert 5 in residents(state)


def test_the_doorkeeper_forgets_a_row_whose_place_another_miss_has_taken() -> None:
    state = closed(tiny_pool())
    for row in range(100, 108):
        touch(state, row, policy=SHIPPED)
    touch(state, 5, policy=SHIPPED)
    for row in range(1000, 1200):  # many times as many misses as the doorkeeper has places
        touch(state, row, policy=SHIPPED)
    touch(state, 5, policy=SHIPPED)
    assert 5 not in residents(state)


def test_the_door_stands_open_until_it_has_been_told_of_as_many_misses_as_it_has_places() -> None:
    state = tiny_pool()
    assert emb.door_open(state)
    state.counters[Counter.EMB_LOOKUPS] = state.door.shape[0]
    assert not emb.door_open(state)


def test_the_door_opens_when_one_in_eight_of_the_missing_rows_knocked_before() -> None:
    state = closed(allocate(pages=4000, rows_per_page=ROWS_PER_PAGE, emb_pages=2))
    state.counters[Counter.KNOCKS] = 0
    for row in range(100, 115):
        emb.knock(state, row)
    assert not emb.door_open(state)
    emb.knock(state, 100)
    assert not emb.door_open(state)  # one of sixteen
    emb.knock(state, 101)
    emb.knock(state, 102)
    assert emb.door_open(state)  # three of eighteen


def test_how_long_a_row_is_remembered_follows_from_the_misses() -> None:
    state = allocate(pages=50, rows_per_page=ROWS_PER_PAGE, emb_pages=2)
    places = state.door.shape[0]
    assert emb.row_memory_ns(state, misses=places, span_ns=1_000_000_000) == 1_000_000_000
    assert emb.row_memory_ns(state, misses=4 * places, span_ns=1_000_000_000) == 250_000_000
    assert emb.row_memory_ns(state, misses=0, span_ns=60_000_000_000) == emb.ROW_MEMORY_MAX_NS


def test_by_frequency_a_row_gets_in_when_it_was_touched_more_often_than_the_row_under_the_hand() -> None:
    state = tiny_pool()
    by_frequency = cache_policy("tinylfu", ROWS_PER_PAGE)
    for row in range(8):
        touch(state, row)  # the row under the hand has one use
    assert [touch(state, 50, policy=by_frequency) for _ in range(4)] == [False, False, False, True]
    assert 50 in residents(state)


def test_a_scan_of_rows_seen_once_displaces_nothing() -> None:
    state = closed(allocate(pages=64, rows_per_page=ROWS_PER_PAGE, emb_pages=2))  # room in the doorkeeper's table
    for _ in range(2):
        for row in range(8):
            touch(state, row, SHIPPED)
    for row in range(1000, 1100):
        touch(state, row, SHIPPED)
    assert residents(state) == set(range(8))


def give_back(state: PoolState, page: int, policy: CachePolicy) -> list[tuple[int, int]]:
    """Row copies made for a page that becomes KV's."""
    rows, sources, targets = np.empty(8, np.int64), np.empty(8, np.int32), np.empty(8, np.int32)
    migration.release_emb_page(state, page)
    copies = emb.clear_page(state, page, ROWS_PER_PAGE, policy, 0, rows, sources, targets)
    migration.grant_to_kv(state, page)
    return list(zip(sources[:copies].tolist(), targets[:copies].tolist(), strict=True))


def test_a_page_given_back_moves_its_hottest_rows_to_colder_slots() -> None:
    state = tiny_pool()
    policy = SHIPPED._replace(row_admission=int(Admission.EVERYONE), rescue_uses_min=2, rescue_rows_per_page=1)
    for row in range(8):
        touch(state, row, policy=policy)
    for _ in range(2):
        for row in (1, 2):
            touch(state, row, policy=policy)
    state.slots["uses"][4:8] = 0  # page 1 has gone cold
    assert give_back(state, 0, policy) == [(1, 4)]  # the bound is one: row 1 is rescued, row 2 is not
    assert residents(state) == {1, 5, 6, 7}
    assert find(state, 1) == 4
    Ledger(state, ROWS_PER_PAGE).check()


def test_rows_lost_to_a_shrink_are_wanted_back_newest_first_and_refill_fresh_slots_only() -> None:
    state = tiny_pool(emb_pages=3)
    for row in range(12):
        touch(state, row)
    assert give_back(state, 2, OPEN._replace(rescue_rows_per_page=0)) == []
    wanted = np.empty(3, np.int64)
    assert emb.wanted_rows(state, wanted) == 3
    assert wanted.tolist() == [11, 10, 9]
    slots = np.empty(3, np.int32)
    assert emb.refill_rows(state, wanted, ROWS_PER_PAGE, slots) == 0
    assert slots.tolist() == [-1, -1, -1]
    page = migration.grant_to_emb(state)
    assert emb.refill_rows(state, wanted, ROWS_PER_PAGE, slots) == 3
    assert slots.tolist() == [page * ROWS_PER_PAGE + offset for offset in range(3)]
    assert emb.wanted_rows(state, wanted) == 1
    Ledger(state, ROWS_PER_PAGE).check()


def test_the_coldest_pages_are_those_with_the_least_use() -> None:
    state = tiny_pool(emb_pages=3)
    for row in range(12):
        touch(state, row)
    state.slots["uses"][:12] = [3, 3, 3, 3, 0, 0, 0, 1, 1, 1, 1, 1]
    pages = np.empty(16, np.int32)
    assert emb.coldest_pages(state, ROWS_PER_PAGE, 2, pages) == 2
    assert pages[:2].tolist() == [1, 2]


def test_a_dropped_row_leaves_a_slot_that_is_used_again() -> None:
    state = tiny_pool(emb_pages=1)
    for row in range(4):
        touch(state, row)
    emb.drop_slot(state, find(state, 2), ROWS_PER_PAGE)
    touch(state, 50)
    assert residents(state) == {0, 1, 3, 50}
    assert state.counters[Counter.EMB_EVICTED_PRESSURE] == 0
    Ledger(state, ROWS_PER_PAGE).check()


def test_the_row_index_survives_thousands_of_random_touches() -> None:
    state = tiny_pool(emb_pages=5)
    rng = np.random.default_rng(11)
    for _ in range(4000):
        row = int(rng.zipf(1.3)) % 64
        touch(state, row)
        assert find(state, row) >= 0
    Ledger(state, ROWS_PER_PAGE).check()


def test_forgotten_rows_are_missed_and_those_in_use_are_wanted_back() -> None:
    state = tiny_pool()
    for row in range(8):
        touch(state, row)
    state.slots["uses"][3] = 0
    emb.forget_rows(state, ROWS_PER_PAGE)
    Ledger(state, ROWS_PER_PAGE).check()
    assert residents(state) == set()
    wanted = np.empty(8, np.int64)
    assert emb.wanted_rows(state, wanted) == 7
    assert wanted[:7].tolist() == [7, 6, 5, 4, 2, 1, 0]
    slots = np.empty(8, np.int32)
    assert emb.refill_rows(state, np.arange(8, dtype=np.int64), ROWS_PER_PAGE, slots) == 8
    assert residents(state) == set(range(8))
    Ledger(state, ROWS_PER_PAGE).check()
