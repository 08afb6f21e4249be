"""Steps between the caches: bounded, and no further than what is being read allows."""

import numpy as np

from agents.caches import exchange
from agents.caches.policy import cache_policy
from agents.pool import migration
from agents.pool.ledger import Ledger
from agents.pool.state import Counter, PoolState, allocate
from tests.agents.caches.test_emb import ROWS_PER_PAGE, find, touch
from tests.agents.caches.test_kv import BLOCK, keep
from tests.agents.caches.test_kv import residents as users

POLICY = cache_policy("none", ROWS_PER_PAGE)


def shrink(state: PoolState, count: int) -> tuple[list[int], int]:
    pages = np.empty(exchange.candidate_pages(count), np.int32)
    rows, sources, targets = np.empty(16, np.int64), np.empty(16, np.int32), np.empty(16, np.int32)
    leaving, copied = exchange.shrink_emb(state, POLICY, ROWS_PER_PAGE, count, pages, rows, sources, targets)
    return pages[:leaving].tolist(), copied


def test_emb_grows_by_unused_pages_first_and_then_by_the_least_valuable_prefixes() -> None:
    state = allocate(pages=8, rows_per_page=ROWS_PER_PAGE, emb_pages=2)
    keep(state, user=1, blocks=2, now_ns=1)
    keep(state, user=2, blocks=2, now_ns=2)
    assert exchange.grow_emb(state, BLOCK, 2) == 2
    assert users(state) == {1, 2}
    assert exchange.grow_emb(state, BLOCK, 1) == 1
    assert users(state) == {2}
    state.entries["pins"] = 1
    assert exchange.grow_emb(state, BLOCK, 3) == 1  # the other page of user 1; user 2 is being read
    Ledger(state, ROWS_PER_PAGE).check()


def test_emb_gives_back_its_coldest_pages_and_their_rows_are_found_no_more() -> None:
    state = allocate(pages=6, rows_per_page=ROWS_PER_PAGE, emb_pages=4)
    for row in range(16):
        touch(state, row)
    state.slots["uses"][:16] = 1
    state.slots["uses"][4:12] = 0
    assert shrink(state, 2) == ([1, 2], 0)
    Ledger(state, ROWS_PER_PAGE).check()
    assert [row for row in range(16) if find(state, row) == -1] == list(range(4, 12))
    assert state.counters[Counter.EMB_ROWS] == 8
    assert state.counters[Counter.EMB_EVICTED_SHRINK] == 8


def test_a_row_lost_with_its_page_comes_back_to_another_slot_and_the_old_one_stays_dead() -> None:
    state = allocate(pages=6, rows_per_page=ROWS_PER_PAGE, emb_pages=2)
    for row in range(8):
        touch(state, row)
    state.slots["uses"][4:8] = 0
    (page,), _ = shrink(state, 1)
    migration.grant_to_kv(state, page)
    touch(state, 5)
    Ledger(state, ROWS_PER_PAGE).check()
    assert exchange.grow_emb(state, BLOCK, 1) == 1  # the same page returns, empty
    assert find(state, 6) == -1
    slot = find(state, 5)
    for row in (100, 101, 102, 103):
        touch(state, row)
    assert find(state, 5) in (slot, -1)
    Ledger(state, ROWS_PER_PAGE).check()
    assert not (state.slots["row"] < -1).any()  # every dead row gave its slot up


def test_a_smaller_pool_takes_from_kv_only_what_it_has_beyond_its_share() -> None:
    state = allocate(pages=10, rows_per_page=ROWS_PER_PAGE, emb_pages=4)
    keep(state, user=1, blocks=3, now_ns=1)
    assert exchange.resize_pool(state, BLOCK, 6, 4, 9) == -2
    assert users(state) == {1}
    assert exchange.resize_pool(state, BLOCK, 6, 2, 1) == -1
    assert exchange.resize_pool(state, BLOCK, 6, 2, 9) == -1
    assert users(state) == set()
    assert exchange.resize_pool(state, BLOCK, 10, 2, 3) == 3
    assert Ledger(state, ROWS_PER_PAGE).shares() == (4, 5, 0, 1)
    Ledger(state, ROWS_PER_PAGE).check()


def test_a_pool_of_pinned_prefixes_does_not_shrink() -> None:
    state = allocate(pages=6, rows_per_page=ROWS_PER_PAGE, emb_pages=2)
    keep(state, user=1, blocks=4, now_ns=1)
    state.entries["pins"] = 1
    assert exchange.resize_pool(state, BLOCK, 3, 1, 9) == 0
    Ledger(state, ROWS_PER_PAGE).check()
