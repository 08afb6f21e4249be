"""Prefixes on a pool of eleven pages with known keys, hashes and eviction order."""

import numpy as np
import pytest

from agents.caches import kv
from agents.caches.policy import CachePolicy, cache_policy
from agents.pool.ledger import Ledger
from agents.pool.state import Counter, PoolState, allocate

BLOCK = 64
SHIPPED = cache_policy("shipped", 4)
LRU = cache_policy("none", 4)


def tiny_pool(kv_pages: int = 8) -> PoolState:
    return allocate(pages=kv_pages + 3, rows_per_page=4, emb_pages=3)


def hashes(user: int, blocks: int) -> np.ndarray:
    return np.arange(1, blocks + 1, dtype=np.uint64) + np.uint64(1000 * user)


def keep(state: PoolState, user: int, blocks: int, now_ns: int, policy: CachePolicy = LRU, value: float = 1.0) -> int:
    """Store a prefix as booking would, unpinned."""
    entry = kv.find_entry(state, np.uint64(user))
    if entry == -1:
        entry = kv.new_entry(state, np.uint64(user))
    out = np.empty(64, np.int32)
    state.entries["pins"][entry] += 1
    written = kv.append_blocks(state, entry, hashes(user, blocks), BLOCK, out)
    state.entries["pins"][entry] -= 1
    kv.touch_entry(state, entry, now_ns, value, policy)
    return written


def residents(state: PoolState) -> set[int]:
    return set(state.entries["key"][state.lists["entry"][: state.counters[Counter.ENTRIES_LIVE]]].tolist())


def test_a_stored_prefix_is_found_and_matches_up_to_the_first_changed_block() -> None:
    state = tiny_pool()
    assert keep(state, user=1, blocks=3, now_ns=1) == 3
    entry = kv.find_entry(state, np.uint64(1))
    assert kv.matching_blocks(state, entry, hashes(1, 3)) == 3
    assert kv.matching_blocks(state, entry, hashes(1, 5)) == 3
    assert kv.matching_blocks(state, entry, hashes(1, 2)) == 2
    changed = hashes(1, 3)
    changed[1:] = 9  # a hash covers the whole prefix, so every later one differs too
    assert kv.matching_blocks(state, entry, changed) == 1
    assert kv.find_entry(state, np.uint64(2)) == -1
    Ledger(state, 4).check()


def test_appending_keeps_the_pages_already_there() -> None:
    state = tiny_pool()
    keep(state, user=1, blocks=2, now_ns=1)
    first = int(state.entries["head"][kv.find_entry(state, np.uint64(1))])
    assert keep(state, user=1, blocks=4, now_ns=2) == 2
    entry = kv.find_entry(state, np.uint64(1))
    assert int(state.entries["head"][entry]) == first
    assert int(state.entries["blocks"][entry]) == 4
    Ledger(state, 4).check()


def test_lru_evicts_the_user_seen_longest_ago() -> None:
    state = tiny_pool()
    keep(state, user=1, blocks=4, now_ns=1)
    keep(state, user=2, blocks=4, now_ns=2)
    keep(state, user=1, blocks=4, now_ns=3)
    keep(state, user=3, blocks=2, now_ns=4)
    assert residents(state) == {1, 3}
    assert state.counters[Counter.KV_EVICTED_PRESSURE] == 1
    assert kv.see_user(state, np.uint64(2), 5, SHIPPED)[1] == kv.REASON_PRESSURE
    Ledger(state, 4).check()


def test_the_shipped_rule_evicts_what_is_cheapest_to_recompute_per_page() -> None:
    state = tiny_pool()
    keep(state, user=1, blocks=4, now_ns=1, policy=SHIPPED, value=5.0)
    keep(state, user=2, blocks=4, now_ns=2, policy=SHIPPED, value=1.0)
    keep(state, user=3, blocks=2, now_ns=3, policy=SHIPPED, value=1.0)
    assert residents(state) == {1, 3}
    assert state.header["ageing"][0] == 1.0


def test_of_equally_cheap_prefixes_the_one_used_longer_ago_goes() -> None:
    state = tiny_pool()
    for user, now_ns in ((1, 5), (2, 3), (3, 4)):
        keep(state, user=user, blocks=1, now_ns=now_ns, policy=SHIPPED, value=1.0)
    assert len({kv.priority_of(state, kv.find_entry(state, np.uint64(user))) for user in (1, 2, 3)}) == 1
    assert kv.victim_entry(state) == kv.find_entry(state, np.uint64(2))


def test_when_a_prefix_goes_whoever_takes_its_place_in_the_list_keeps_its_own_value() -> None:
    state = tiny_pool()
    for user, value in ((1, 1.0), (2, 5.0), (3, 9.0)):
        keep(state, user=user, blocks=1, now_ns=user, policy=SHIPPED, value=value)
    kv.truncate_entry(state, kv.find_entry(state, np.uint64(1)), 0, BLOCK)
    assert [kv.priority_of(state, kv.find_entry(state, np.uint64(user))) for user in (2, 3)] == [5.0, 9.0]
    assert kv.victim_entry(state) == kv.find_entry(state, np.uint64(2))


def test_pages_of_a_prefix_that_went_are_handed_out_again_in_their_order_before_others() -> None:
    state, pages = tiny_pool(), np.empty(8, np.int32)
    keep(state, user=1, blocks=2, now_ns=1)
    keep(state, user=2, blocks=3, now_ns=2)
    kv.list_pages(state, kv.find_entry(state, np.uint64(2)), 3, pages)
    freed = pages[:3].tolist()
    kv.truncate_entry(state, kv.find_entry(state, np.uint64(2)), 1, BLOCK)
    assert state.counters[Counter.KV_FREE_PAGES] == 5
    keep(state, user=3, blocks=3, now_ns=3)
    kv.list_pages(state, kv.find_entry(state, np.uint64(3)), 3, pages)
    assert pages[:2].tolist() == freed[1:]
    Ledger(state, 4).check()


def test_ageing_lets_a_newcomer_outlive_a_prefix_nobody_uses_any_more() -> None:
    state = tiny_pool(kv_pages=2)
    keep(state, user=1, blocks=1, now_ns=0, policy=SHIPPED, value=3.0)
    for step in range(1, 8):
        keep(state, user=10 + step, blocks=1, now_ns=step, policy=SHIPPED, value=1.0)
    assert 1 not in residents(state)


def test_a_pinned_prefix_is_never_a_victim_and_a_short_prefix_is_kept_instead() -> None:
    state = tiny_pool(kv_pages=4)
    keep(state, user=1, blocks=3, now_ns=1)
    state.entries["pins"][kv.find_entry(state, np.uint64(1))] = 1
    assert keep(state, user=2, blocks=4, now_ns=2) == 1
    assert residents(state) == {1, 2}
    assert kv.victim_entry(state) == kv.find_entry(state, np.uint64(2))
    Ledger(state, 4).check()


def test_truncating_to_nothing_frees_every_page_and_forgets_the_user() -> None:
    state = tiny_pool()
    keep(state, user=1, blocks=5, now_ns=1)
    kv.truncate_entry(state, kv.find_entry(state, np.uint64(1)), 0, BLOCK)
    assert kv.find_entry(state, np.uint64(1)) == -1
    assert state.counters[Counter.KV_FREE_PAGES] == 8
    Ledger(state, 4).check()


def test_sightings_give_the_gap_and_the_last_fate() -> None:
    state = tiny_pool()
    assert kv.see_user(state, np.uint64(7), 100, SHIPPED) == (-1, kv.REASON_COLD)
    assert kv.see_user(state, np.uint64(7), 160, SHIPPED) == (60, kv.REASON_COLD)
    kv.remember_fate(state, np.uint64(7), kv.REASON_SHRINK)
    assert kv.see_user(state, np.uint64(7), 200, SHIPPED) == (40, kv.REASON_SHRINK)


def test_the_user_index_survives_a_thousand_random_insertions_and_deletions() -> None:
    state = allocate(pages=40, rows_per_page=4, emb_pages=3)
    rng = np.random.default_rng(3)
    reference: set[int] = set()
    for step in range(1000):
        user = int(rng.integers(1, 60))
        if user in reference:
            kv.truncate_entry(state, kv.find_entry(state, np.uint64(user)), 0, BLOCK)
            reference.remove(user)
        elif len(reference) < 30:
            keep(state, user, 1, step)
            reference.add(user)
        assert residents(state) == reference
    Ledger(state, 4).check()


@pytest.mark.parametrize("name", ["", "lru", "SHIPPED"])
def test_an_unknown_admission_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="admission"):
        cache_policy(name, 4)


def admits(state: PoolState, admission: str, user: int, now_ns: int, gap_ns: int, value: float) -> bool:
    policy = cache_policy(admission, 4)
    kv.see_user(state, np.uint64(user), now_ns, policy)
    return bool(kv.admits(state, policy, now_ns, np.uint64(user), gap_ns, 2, value))


def test_frequency_admits_who_asks_more_often_than_the_victim_and_anybody_while_there_is_room() -> None:
    state = tiny_pool(kv_pages=4)
    assert admits(state, "tinylfu", user=1, now_ns=0, gap_ns=-1, value=1.0)
    for now_ns in (1, 2):
        kv.see_user(state, np.uint64(1), now_ns, SHIPPED)
    keep(state, user=1, blocks=4, now_ns=1)
    assert not admits(state, "tinylfu", user=2, now_ns=2, gap_ns=-1, value=9.0)
    assert not admits(state, "tinylfu", user=2, now_ns=3, gap_ns=1, value=9.0)
    kv.see_user(state, np.uint64(2), 4, SHIPPED)
    assert admits(state, "tinylfu", user=2, now_ns=5, gap_ns=1, value=9.0)


def test_old_requests_count_half_after_a_half_life() -> None:
    state = tiny_pool()
    for _ in range(4):
        kv.see_user(state, np.uint64(1), 0, SHIPPED)
    assert kv.request_count(state, np.uint64(1), SHIPPED.kv_half_life_ns, SHIPPED) == 2.0
    assert kv.request_count(state, np.uint64(2), 0, SHIPPED) == 0.0


def test_value_density_admits_a_first_request_that_saves_more_per_page_than_the_victim() -> None:
    state = tiny_pool(kv_pages=4)
    keep(state, user=1, blocks=4, now_ns=1, policy=SHIPPED, value=2.0)
    assert not admits(state, "value-density", user=2, now_ns=2, gap_ns=-1, value=1.5)
    assert admits(state, "value-density", user=3, now_ns=2, gap_ns=-1, value=2.5)
    assert admits(state, "value-density", user=2, now_ns=3, gap_ns=1, value=1.5)  # twice 1.5
    state.entries["pins"] = 1
    assert not admits(state, "value-density", user=3, now_ns=4, gap_ns=1, value=9.0)


def test_everybody_gets_in_but_first_requests_go_before_those_who_were_here_within_the_window() -> None:
    state = tiny_pool(kv_pages=4)
    assert admits(state, "shipped", user=1, now_ns=0, gap_ns=-1, value=1.0)
    assert kv.starting_uses(SHIPPED, -1) == 0
    assert kv.starting_uses(SHIPPED, SHIPPED.kv_window_ns + 1) == 0
    assert kv.starting_uses(SHIPPED, SHIPPED.kv_window_ns) == SHIPPED.kv_credit_uses
    for user, gap_ns in ((1, SHIPPED.kv_window_ns), (2, -1)):
        entry = kv.new_entry(state, np.uint64(user), kv.starting_uses(SHIPPED, gap_ns))
        kv.touch_entry(state, entry, user, 1.0, SHIPPED)
    assert kv.victim_entry(state) == kv.find_entry(state, np.uint64(2))


def test_by_second_request_a_first_one_is_not_kept_unless_there_is_room() -> None:
    state = tiny_pool(kv_pages=4)
    assert admits(state, "second-request", user=2, now_ns=2, gap_ns=-1, value=9.0)
    keep(state, user=1, blocks=4, now_ns=1)
    assert not admits(state, "second-request", user=2, now_ns=2, gap_ns=-1, value=9.0)
    assert admits(state, "second-request", user=2, now_ns=2, gap_ns=SHIPPED.kv_window_ns, value=9.0)
