"""Who is resident where: frames in, bounded table out, against a plain dictionary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.profiles import load_profile
from agents.router.router import Router
from agents.router.state import RING_BYTES_MAX, RouterConfig, resident_users_max
from agents.wire.messages import GuardRails, ResidencyDelta, ResidencySnapshot
from tests.agents.router.nodes import SECOND, load, router

PROFILES = ("a100-40g", "a100-80g", "cpu-demo", "cpu-tiny", "gpu-demo", "h100-80g", "h200-141g")


def delta(first: int, last: int, **users: int) -> ResidencyDelta:
    keys = [int(name[1:]) for name in users]
    return ResidencyDelta(seq_first=first, seq=last, user_keys=keys, cached_tokens=list(users.values()))


def test_a_snapshot_replaces_and_a_delta_changes() -> None:
    two = router(2)
    assert not two.residency(0, ResidencySnapshot(seq=4, user_keys=[1, 2], cached_tokens=[64, 128]))
    assert not two.residency(1, ResidencySnapshot(seq=9, user_keys=[2], cached_tokens=[256]))
    assert not two.residency(0, delta(5, 6, u1=0, u3=192))
    assert two.resident_tokens(1) == {}
    assert two.resident_tokens(2) == {"node-0": 128, "node-1": 256}
    assert two.resident_tokens(3) == {"node-0": 192}
    assert not two.residency(0, ResidencySnapshot(seq=7, user_keys=[5], cached_tokens=[64]))
    assert two.resident_tokens(2) == {"node-1": 256}
    assert two.sequence(0) == 7


def test_a_gap_is_noticed_and_nothing_is_applied() -> None:
    one = router(1)
    one.residency(0, ResidencySnapshot(seq=4, user_keys=[1], cached_tokens=[64]))
    assert one.residency(0, delta(6, 6, u2=64))
    assert one.resident_tokens(2) == {}
    assert one.sequence(0) == 4
    assert not one.residency(0, delta(5, 6, u2=64))
    assert one.resident_tokens(2) == {"node-0": 64}


def test_the_first_frame_must_be_a_snapshot() -> None:
    one = router(1)
    assert one.sequence(0) == -1
    assert one.residency(0, delta(1, 1, u2=64))
    assert not one.node_view(0, 0).synced


def test_what_is_known_already_is_not_applied_twice_and_an_overlap_is() -> None:
    one = router(1)
    one.residency(0, ResidencySnapshot(seq=4, user_keys=[], cached_tokens=[]))
    one.residency(0, delta(5, 6, u1=64))
    assert not one.residency(0, delta(5, 5, u1=999))
    assert one.resident_tokens(1) == {"node-0": 64}
    assert not one.residency(0, delta(6, 7, u1=128))
    assert one.resident_tokens(1) == {"node-0": 128}


def test_a_node_that_is_gone_holds_nothing() -> None:
    two = router(2)
    for node in range(2):
        two.residency(node, ResidencySnapshot(seq=4, user_keys=[1, 2**64 - 1], cached_tokens=[64, 64]))
    two.node_gone(0)
    assert two.resident_tokens(1) == {"node-1": 64}
    assert two.node_view(0, 0).resident_users == 0
    assert two.sequence(0) == -1
    assert two.residency(0, delta(5, 5, u1=64))


def test_users_beyond_the_bound_push_out_the_oldest_without_a_copy() -> None:
    one = router(1, users_max=32, copies_max=64)
    one.residency(0, ResidencySnapshot(seq=1, user_keys=list(range(1, 9)), cached_tokens=[64] * 8))
    for key in range(100, 400):
        one.completed(0, one.pick(key * SECOND, key, 64, 10).reservation, None)
    assert one.totals()["users"] == 32
    assert one.totals()["users_dropped"] == 0
    assert all(one.resident_tokens(key) for key in range(1, 9))
    # a sample of 16 of the 24 that may go, so the newest are safe and the oldest are not all gone
    assert one.pick(500 * SECOND, 399, 64, 10).reuse_gap_ns == 101 * SECOND


def test_more_copies_than_the_bound_are_counted_and_left_out() -> None:
    one = router(1, users_max=64, copies_max=4)
    one.residency(0, ResidencySnapshot(seq=1, user_keys=list(range(1, 8)), cached_tokens=[64] * 7))
    assert one.totals()["copies"] == 4
    assert one.totals()["copies_dropped"] == 3
    one.residency(0, ResidencySnapshot(seq=2, user_keys=[7], cached_tokens=[64]))
    assert one.resident_tokens(7) == {"node-0": 64}


def test_a_node_that_tells_of_more_users_than_its_share_pushes_nobody_out() -> None:
    four = router(4, users_max=64, copies_max=128)
    for node in (1, 2, 3):
        keys = list(range(10 * node, 10 * node + 10))
        four.residency(node, ResidencySnapshot(seq=1, user_keys=keys, cached_tokens=[64] * 10))
    four.residency(0, ResidencySnapshot(seq=1, user_keys=list(range(1_000, 2_000)), cached_tokens=[64] * 1_000))
    assert all(four.resident_tokens(key) == {f"node-{key // 10}": 64} for key in range(10, 40))
    assert (four.node_view(0, 0).resident_users, four.users_refused(0)) == (32, 968)
    assert (four.totals()["users_refused"], four.totals()["users_dropped"], four.totals()["copies_dropped"]) == (968, 0, 0)


def test_a_node_at_its_share_may_change_what_it_holds_and_take_a_user_for_each_that_goes() -> None:
    two = router(2, users_max=16, copies_max=64)
    two.residency(0, ResidencySnapshot(seq=1, user_keys=list(range(1, 9)), cached_tokens=[64] * 8))
    two.residency(0, delta(2, 2, u3=128, u9=64))
    assert (two.resident_tokens(3), two.resident_tokens(9)) == ({"node-0": 128}, {})
    two.residency(0, delta(3, 3, u3=0, u9=64))
    assert (two.resident_tokens(3), two.resident_tokens(9)) == ({}, {"node-0": 64})
    assert two.users_refused(0) == 1


@pytest.mark.parametrize("name", PROFILES)
def test_no_node_of_a_shipped_profile_reaches_its_share_of_the_tables(name: str) -> None:
    """Not in a fleet of eight if each user had a single page, not in one of 32 while they have four pages in the mean."""
    profile = load_profile(name)
    pages = int((1.0 - GuardRails().emb_ratio_min) * profile.pool_bytes / profile.page_bytes)
    assert pages <= resident_users_max(RouterConfig(), 8)
    assert pages // 4 <= resident_users_max(RouterConfig(), 32)


def test_users_not_seen_for_long_and_resident_nowhere_are_forgotten() -> None:
    one = router(1, memory_ns=100 * SECOND)
    one.residency(0, ResidencySnapshot(seq=1, user_keys=[1], cached_tokens=[64]))
    for key in (1, 2, 3):
        one.pick(0, key, 64, 10)
    one.pick(90 * SECOND, 3, 64, 10)
    for _ in range(64):
        one.reap(150 * SECOND)
    assert one.totals()["users"] == 2
    assert one.pick(150 * SECOND, 2, 64, 10).reuse_gap_ns == -1
    assert one.pick(150 * SECOND, 3, 64, 10).reuse_gap_ns == 60 * SECOND
    assert one.pick(150 * SECOND, 1, 64, 10).reuse_gap_ns == 150 * SECOND


def test_state_is_bounded_and_small_per_user() -> None:
    fleet = Router([f"n{i}" for i in range(32)])
    config = fleet.config
    per_user = (fleet.state.users.nbytes + fleet.state.copies.nbytes / 2) / config.users_max
    assert per_user <= 100
    before = fleet.memory_bytes
    for i in range(300):
        fleet.node_load(i % 32, i, load())
        fleet.pick(i, i, 64, 10)
    assert fleet.memory_bytes == before


def test_the_picks_kept_for_explaining_are_bounded_in_a_large_fleet() -> None:
    fleet = Router([f"n{i}" for i in range(1_000)])
    assert fleet.state.ring.nbytes <= RING_BYTES_MAX
    assert fleet.memory_bytes <= 32 * 1024 * 1024


Step = tuple[int, int, int, int]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(1, 40), st.integers(0, 3)), max_size=120))
def test_the_table_agrees_with_a_dictionary_through_churn(steps: list[Step]) -> None:
    fleet = router(3, users_max=128, copies_max=256, memory_ns=30)
    known: dict[int, dict[str, int]] = {}
    sequences = [0, 0, 0]
    for node in range(3):
        fleet.residency(node, ResidencySnapshot(seq=0, user_keys=[], cached_tokens=[]))
    for now, (verb, node, key, blocks) in enumerate(steps):
        name = f"node-{node}"
        if verb <= 1:
            sequences[node] += 1
            fleet.residency(node, delta(sequences[node], sequences[node], **{f"u{key}": 64 * blocks}))
            known.setdefault(key, {})[name] = 64 * blocks
        elif verb == 2:
            fleet.completed(now, fleet.pick(now, key, 64, 1).reservation, None)
        elif verb == 3:
            fleet.reap(now)
        else:
            fleet.node_gone(node)
            fleet.residency(node, ResidencySnapshot(seq=sequences[node], user_keys=[key], cached_tokens=[64]))
            for copies in known.values():
                copies.pop(name, None)
            known.setdefault(key, {})[name] = 64
            fleet.node_load(node, now, load())
        for user in range(1, 41):
            assert fleet.resident_tokens(user) == {n: t for n, t in sorted(known.get(user, {}).items()) if t > 0}
    for node in range(3):
        held = [copies.get(f"node-{node}", 0) for copies in known.values()]
        view = fleet.node_view(node, 0)
        assert view.resident_tokens == sum(held)
        assert view.resident_users == int(np.count_nonzero(held))
    assert fleet.totals()["copies"] == sum(1 for copies in known.values() for tokens in copies.values() if tokens > 0)
