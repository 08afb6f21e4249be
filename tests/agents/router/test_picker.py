"""The pick: whom it chooses, for which reason, and how it spreads what locality does not decide."""

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.router.hashing import mix, name_hash
from agents.router.router import Pick, Router
from agents.router.scorers import rent_factor, waiting_if_shared
from agents.router.state import POLICIES, Filter
from agents.wire.messages import Phase, ResidencySnapshot
from tests.agents.router.nodes import MS, SECOND, load, router


def excluding(count: int, *nodes: int) -> NDArray[np.int8]:
    barred = np.zeros(count, dtype=np.int8)
    barred[list(nodes)] = Filter.EXCLUDED
    return barred


def components(chosen: Router, choice: Pick, name: str) -> dict[str, float]:
    told = chosen.explain(choice.sample)
    assert told is not None
    return next(candidate.components for candidate in told if candidate.name == name)


def reasons(chosen: Router, choice: Pick) -> list[str]:
    told = chosen.explain(choice.sample)
    assert told is not None
    return [candidate.filtered for candidate in told]


# --- prediction -----------------------------------------------------------------------------


def test_the_prediction_is_the_cost_model_term_by_term() -> None:
    one = router(1)
    one.node_load(0, 0, load(queued_ms=30.0, refill_backlog_bytes=1_048_576))
    one.residency(0, ResidencySnapshot(seq=1, user_keys=[9], cached_tokens=[192]))
    choice = one.pick(5 * MS, 9, 256, 100)
    told = components(one, choice, "node-0")
    emb = 0.5 * (256 - 192 + 100) * 0.01
    want = {
        "queue": 30.0 - 5.0,
        "fixed": 2.0,
        "kv": 0.02 * (256 - 192) + 1e-5 * (256**2 - 192**2),
        "emb": emb,
        "candidates": 0.5,
        "refill": 0.1 * emb * 0.5,
        "rent": 0.0,
        "cached": 192.0,
    }
    for name, value in want.items():
        assert told[name] == pytest.approx(value, rel=1e-6), name
    assert choice.predicted_ms == pytest.approx(sum(want[n] for n in ("queue", "fixed", "kv", "emb", "candidates", "refill")))
    assert choice.service_ms == pytest.approx(choice.predicted_ms - 25.0)
    assert choice.cached_tokens == 192


def test_a_resident_prefix_saves_only_what_the_node_says_it_saves() -> None:
    one = router(1)
    one.node_load(0, 0, load(kv_hit_compute_ratio=0.25))
    one.residency(0, ResidencySnapshot(seq=1, user_keys=[9], cached_tokens=[192]))
    told = components(one, one.pick(0, 9, 256, 100), "node-0")
    whole, held = (0.02 * n + 1e-5 * n * n for n in (256, 192))
    assert told["kv"] == pytest.approx(whole - 0.75 * held, rel=1e-6)


def test_a_resident_prefix_longer_than_the_history_counts_only_as_far_as_the_history() -> None:
    one = router(1)
    one.residency(0, ResidencySnapshot(seq=1, user_keys=[9], cached_tokens=[512]))
    assert components(one, one.pick(0, 9, 128, 10), "node-0")["kv"] == 0.0


def test_the_best_prediction_wins_against_a_slow_reference_on_random_fleets() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        count = int(rng.integers(1, 9))
        fleet = router(count, tie_ms=0.0, tie_ratio=0.0, cold_window_ms=0.0, cold_window_ratio=0.0, admission_window_ns=SECOND)
        reports = [
            load(
                queued_ms=float(rng.uniform(0, 60)),
                emb_hit_ratio=float(rng.uniform()),
                ms_per_token=float(rng.uniform(0.001, 0.05)),
                kv_tokens_used=int(rng.choice([0, 8_500, 9_000, 10_000])),
                phase=Phase.READY if rng.uniform() < 0.8 else Phase.DRAINING,
            )
            for _ in range(count)
        ]
        held = [int(rng.choice([0, 0, 64, 256])) for _ in range(count)]
        for i, report in enumerate(reports):
            fleet.node_load(i, 0, report)
            fleet.residency(i, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[held[i]]))
        fleet.pick(0, 7, 320, 50)
        for i, report in enumerate(reports):
            fleet.node_load(i, 0, report)
        mask = (rng.uniform(size=count) < 0.2).astype(np.int8) * np.int8(Filter.EXCLUDED)
        mean_ms = float(fleet.state.totals[0]["mean_service_ms"])
        choice = fleet.pick(MS, 7, 320, 50, mask)
        want = slow_best(reports, held, 320, 50, mask, mean_ms)
        assert choice.node_index == want, (reports, held, mask)


def slow_best(reports: list, held: list[int], n: int, c: int, mask: np.ndarray, mean_ms: float) -> int:  # type: ignore[type-arg]
    best, best_ms = -1, math.inf
    for i, (report, h) in enumerate(zip(reports, held, strict=True)):
        if report.phase is not Phase.READY or mask[i]:
            continue
        kv = report.ms_per_token * (n - h) + report.ms_per_token_squared * (n * n - h * h)
        full = min(1.0, max(0.0, (report.kv_tokens_used / report.kv_tokens_capacity - 0.8) / 0.15))
        emb = (1 - report.emb_hit_ratio) * (n - h + c) * report.ms_per_missing_row
        queue = max(0.0, report.queued_ms - 1.0)
        ready = [max(0.0, r.queued_ms - 1.0) for r, barred in zip(reports, mask, strict=True) if r.phase is Phase.READY and not barred]
        waiting = slow_waiting(sum(ready) / mean_ms / len(ready), len(ready)) if mean_ms else 0.0
        service = report.ms_fixed + kv + emb + c * report.ms_per_candidate
        rent = full * kv * (1.0 + 4.0 * waiting**2 / (1.0 + waiting)) if max(held) > h else 0.0
        score = queue + service + rent + service * waiting
        if score < best_ms:
            best, best_ms = i, score
    return best


def slow_waiting(services: float, nodes: int) -> float:
    """Those beyond the one that is served, rounded off by a fleet's waver."""
    waver = 0.7 / math.sqrt(nodes)
    return waver * float(np.logaddexp(0.0, (services - 1.0) / waver))


def test_only_those_wait_whom_no_node_of_the_fleet_serves_and_large_fleets_waver_less() -> None:
    assert waiting_if_shared(4.0, 32) == pytest.approx(3.0, abs=1e-6)
    assert waiting_if_shared(400.0, 4) == 399.0
    assert waiting_if_shared(0.5, 32) < 0.01 < 0.05 < waiting_if_shared(0.5, 4)
    for nodes in (1, 4, 32):
        assert waiting_if_shared(1.0, nodes) == pytest.approx(0.7 * math.log(2.0) / math.sqrt(nodes))


def test_where_every_queue_is_long_a_user_stays_with_its_copy_and_where_one_is_it_goes() -> None:
    """Moving saves the user a wait and costs others a recompute each: few where one queue is long, many where all are."""
    recompute = 0.02 * 512 + 1e-5 * 512**2
    for home_ms, elsewhere_ms, stays in ((220.0, 180.0, True), (90.0, 0.0, False)):
        eight = router(8)
        eight.completed(0, eight.pick(0, 0, 64, 10).reservation, None)
        eight.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
        for node in range(8):
            eight.node_load(node, SECOND, load(queued_ms=elsewhere_ms if node else home_ms, emb_hit_ratio=1.0))
        mean_ms = float(eight.state.totals[0]["mean_service_ms"])
        choice = eight.pick(SECOND, 7, 512, 10)
        told = components(eight, choice, "node-0")
        waiting = slow_waiting((home_ms + 7 * elsewhere_ms) / 8 / mean_ms, 8)
        assert told["delay"] == pytest.approx(told["service"] * waiting, rel=1e-5)
        assert home_ms - elsewhere_ms > recompute  # by its own time alone it would go in both cases
        assert (choice.node_index == 0) == stays


@pytest.mark.parametrize("kept_away", ["overloaded", "stale", "barred"])
def test_the_queue_of_a_node_that_is_kept_away_does_not_hold_a_user_on_a_busy_one(kept_away: str) -> None:
    four = router(4)
    four.completed(0, four.pick(0, 0, 512, 10).reservation, None)
    four.residency(1, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
    heard_ns = 0 if kept_away == "stale" else 3 * SECOND
    four.node_load(0, heard_ns, load(queued_ms=1_900.0 if kept_away == "barred" else 2_900.0))
    for node, queued_ms in ((1, 300.0), (2, 0.0), (3, 0.0)):
        four.node_load(node, 3 * SECOND, load(queued_ms=queued_ms))
    choice = four.pick(3 * SECOND, 7, 512, 10, excluding(4, 0) if kept_away == "barred" else None)
    assert choice.node_index in (2, 3)
    waiting = slow_waiting(100.0 / float(four.state.totals[0]["mean_service_ms"]), 3)
    told = components(four, choice, "node-1")
    assert told["delay"] == pytest.approx(told["service"] * waiting, rel=0.01)


def test_where_every_node_is_over_the_cap_all_of_them_count_as_waiting() -> None:
    two = router(2)
    two.completed(0, two.pick(0, 0, 64, 10).reservation, None)
    for node in range(2):
        two.node_load(node, SECOND, load(queued_ms=5_000.0))
    mean_ms = float(two.state.totals[0]["mean_service_ms"])
    told = components(two, two.pick(SECOND, 7, 64, 10), "node-0")
    assert told["delay"] == pytest.approx(told["service"] * slow_waiting(5_000.0 / mean_ms, 2), rel=0.01)


def test_rent_keeps_a_user_where_its_copy_is_until_the_queue_costs_more_than_two_recomputes() -> None:
    recompute = 0.02 * 512 + 1e-5 * 512**2
    for queued, want in ((1.9 * recompute, 0), (2.9 * recompute, 1)):
        two = router(2, admission_window_ns=0)
        two.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
        two.node_load(0, 0, load(queued_ms=queued, emb_hit_ratio=1.0, kv_tokens_used=10_000))
        two.node_load(1, 0, load(emb_hit_ratio=1.0, kv_tokens_used=10_000))
        choice = two.pick(0, 7, 512, 10)
        assert choice.node_index == want
        assert choice.resident_elsewhere == (want == 1)


def test_rent_is_dearer_where_requests_wait_and_grows_like_the_queue_once_there_is_one() -> None:
    assert rent_factor(0.0, 4.0) == 1.0
    assert rent_factor(1.0, 4.0) == 3.0
    assert rent_factor(0.1, 4.0) == pytest.approx(1.036, abs=1e-3)  # hardly at all where a queue is rare
    assert rent_factor(99.0, 4.0) - rent_factor(98.0, 4.0) == pytest.approx(4.0, rel=1e-3)
    recompute = 0.02 * 512 + 1e-5 * 512**2
    rents = []
    for queued in (0.0, 200.0):
        two = router(2, admission_window_ns=0)
        two.completed(0, two.pick(0, 0, 64, 10).reservation, None)
        two.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
        for node in (0, 1):
            two.node_load(node, SECOND, load(queued_ms=queued, emb_hit_ratio=1.0, kv_tokens_used=10_000))
        waiting = slow_waiting(queued / float(two.state.totals[0]["mean_service_ms"]), 2)
        rents.append(components(two, two.pick(SECOND, 7, 512, 10), "node-1")["rent"])
        assert rents[-1] == pytest.approx(recompute * rent_factor(waiting, 4.0), rel=1e-5)
    assert rents[1] > 10.0 * rents[0]


def test_a_user_resident_nowhere_pays_no_rent_on_a_full_node_for_it_needs_a_copy_somewhere() -> None:
    two = router(2, admission_window_ns=0)
    for node in (0, 1):
        two.node_load(node, 0, load(queued_ms=50.0, emb_hit_ratio=1.0, kv_tokens_used=10_000))
    assert two.pick(0, 7, 512, 10).rent_ms == 0.0


def test_where_a_first_request_is_not_kept_nothing_is_displaced_and_no_rent_charged() -> None:
    recompute = 0.02 * 512 + 1e-5 * 512**2
    two = router(2, admission_window_ns=SECOND)
    two.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
    two.node_load(0, 0, load(queued_ms=1.2 * recompute, emb_hit_ratio=1.0, kv_tokens_used=10_000))
    two.node_load(1, 0, load(emb_hit_ratio=1.0, kv_tokens_used=10_000))
    first = two.pick(0, 7, 512, 10)
    assert (first.node_index, first.rent_ms) == (1, 0.0)


def test_a_node_with_room_charges_no_rent_so_that_one_that_came_back_empty_fills_again() -> None:
    recompute = 0.02 * 512 + 1e-5 * 512**2
    two = router(2, admission_window_ns=0)
    two.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
    two.node_load(0, 0, load(queued_ms=1.2 * recompute, emb_hit_ratio=1.0, kv_tokens_used=10_000))
    two.node_load(1, 0, load(emb_hit_ratio=1.0, kv_tokens_used=1_000))
    choice = two.pick(0, 7, 512, 10)
    assert (choice.node_index, choice.rent_ms) == (1, 0.0)


# --- filters --------------------------------------------------------------------------------


def test_nobody_ready_is_no_pick_and_no_reservation() -> None:
    two = Router(["a", "b"])
    choice = two.pick(0, 7, 64, 10)
    assert not choice.found
    assert (choice.node_index, choice.reservation) == (-1, -1)
    assert two.totals()["reservations"] == 0


def test_draining_offline_and_excluded_nodes_are_never_picked() -> None:
    four = router(4)
    four.node_load(0, 0, load(phase=Phase.DRAINING))
    four.node_gone(1)
    for key in range(1, 40):
        choice = four.pick(0, key, 64, 10, excluding(4, 2))
        assert choice.node_index == 3
        assert reasons(four, choice) == ["draining", "offline", "excluded", ""]
    assert not four.pick(0, 7, 64, 10, excluding(4, 2, 3)).found


def test_every_hard_reason_bars_a_node_and_is_told() -> None:
    five = router(5)
    barred = np.array([Filter.EXCLUDED, Filter.MODEL_VERSION, Filter.SUBSET, Filter.FORCED, 0], dtype=np.int8)
    choice = five.pick(0, 7, 64, 10, barred)
    assert choice.node_index == 4
    assert reasons(five, choice) == ["excluded", "model_version", "subset", "forced", ""]


def test_a_node_that_is_away_is_told_as_away_whatever_else_bars_it() -> None:
    two = router(2)
    two.node_gone(0)
    assert reasons(two, two.pick(0, 7, 64, 10, np.array([Filter.SUBSET, 0], dtype=np.int8)))[0] == "offline"


def test_a_stale_node_is_avoided_but_better_than_nobody() -> None:
    two = router(2)
    two.node_load(1, 3 * SECOND, load(queued_ms=500.0))
    choice = two.pick(3 * SECOND, 7, 64, 10)
    assert choice.node_index == 1
    assert reasons(two, choice)[0] == "stale"
    assert two.pick(9 * SECOND, 7, 64, 10).found


def test_an_overloaded_node_is_avoided_but_better_than_nobody() -> None:
    two = router(2)
    two.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[64]))
    two.node_load(0, 0, load(queued_ms=5_000.0))
    choice = two.pick(0, 7, 64, 10)
    assert (choice.node_index, reasons(two, choice)[0]) == (1, "load_cap")
    two.node_load(1, 0, load(queued_ms=6_000.0))
    assert two.pick(0, 7, 64, 10).node_index == 0


# --- spreading ------------------------------------------------------------------------------


def test_no_locality_collapses_to_load_balance() -> None:
    eight = router(8)
    now, picks = 0, Counter[int]()
    rng = np.random.default_rng(1)
    open_ones: list[tuple[int, int]] = []
    for key in rng.integers(1, 2**63, 4_000):
        now += 2 * MS
        for i in range(8):
            if now % (200 * MS) == 0:
                eight.node_load(i, now, load(queued_ms=float(eight.state.nodes[i]["reserved_ms"])))
        choice = eight.pick(now, int(key), 256, 50)
        picks[choice.node_index] += 1
        open_ones.append((now + int(choice.service_ms * MS), choice.reservation))
        for done in [entry for entry in open_ones if entry[0] <= now]:
            eight.completed(now, done[1], None)
            open_ones.remove(done)
    assert max(picks.values()) / 500 < 1.1
    assert min(picks.values()) / 500 > 0.9


def test_equal_nodes_are_drawn_at_random_for_a_request_without_a_user() -> None:
    four = router(4)
    picks = Counter[int]()
    for _ in range(4_000):
        choice = four.pick(0, 0, 64, 10)
        four.completed(0, choice.reservation, None)
        picks[choice.node_index] += 1
    # 1,000 each with a deviation of 27: five of them
    assert all(abs(picks[i] - 1_000) < 140 for i in range(4))


def test_two_routers_with_different_seeds_do_not_herd() -> None:
    first, second = router(8, seed=1), router(8, seed=2)
    same = sum(first.pick(0, 0, 64, 10).node_index == second.pick(0, 0, 64, 10).node_index for _ in range(200))
    assert same < 60


def test_sixteen_routers_within_one_report_spread_over_equal_nodes() -> None:
    picks = Counter(router(8, seed=seed).pick(0, 0, 64, 10).node_index for seed in range(16))
    assert len(picks) >= 5
    assert max(picks.values()) <= 5


def test_one_seed_gives_one_sequence_of_picks() -> None:
    def run() -> list[Pick]:
        fleet = router(5, seed=9)
        return [fleet.pick(i * MS, i % 7, 64 * (i % 9), 10) for i in range(200)]

    assert run() == run()


def test_a_cold_user_returns_to_the_same_node_while_loads_are_near() -> None:
    five = router(5)
    for key in range(1, 60):
        now = key * SECOND
        for node in range(5):
            five.node_load(node, now, load())
        nodes = set()
        for _ in range(3):
            choice = five.pick(now, key, 256, 50)
            five.completed(now, choice.reservation, None)
            nodes.add(choice.node_index)
        assert len(nodes) == 1


def test_a_cold_users_favourite_is_left_when_it_is_busier_than_the_window() -> None:
    two = router(2)
    favourite = two.pick(0, 77, 256, 50).node_index
    two.node_load(favourite, 0, load(queued_ms=50.0))
    two.node_load(1 - favourite, 0, load())
    assert two.pick(0, 77, 256, 50).node_index == 1 - favourite


def test_a_node_does_not_get_more_than_its_share_however_local_the_traffic_is() -> None:
    four = router(4, load_cap_ms=1e12, users_max=512)
    keys = list(range(1, 200))
    four.residency(0, ResidencySnapshot(seq=1, user_keys=keys, cached_tokens=[512] * len(keys)))
    picks = Counter[int]()
    for i in range(2_000):
        now = i * MS
        if i % 100 == 0:
            for node in range(4):
                four.node_load(node, now, load())
        choice = four.pick(now, keys[i % len(keys)], 512, 10)
        four.completed(now, choice.reservation, None)
        if i >= 400:
            picks[choice.node_index] += 1
    assert picks[0] / 1_600 == pytest.approx(1.3 / 4, abs=0.02)


def test_the_share_cap_sleeps_when_there_is_little_traffic_and_with_a_single_node() -> None:
    two = router(2)
    two.residency(0, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
    for i in range(20):
        now = i * 2 * SECOND
        for node in range(2):
            two.node_load(node, now, load())
        choice = two.pick(now, 7, 512, 10)
        two.completed(now, choice.reservation, None)
        assert choice.node_index == 0
    one = router(1)
    for _ in range(100):
        choice = one.pick(0, 7, 512, 10)
        assert reasons(one, choice) == [""]


def test_samples_are_rationed_so_that_the_ring_spans_seconds_of_a_busy_router() -> None:
    two = router(2, samples_per_second=10.0)
    samples = [two.pick(i * MS, 0, 64, 10).sample for i in range(1_000)]
    taken = [sample for sample in samples if sample >= 0]
    assert taken == list(range(19))  # ten saved up, nine earned in not quite a second
    assert samples[10:200].count(-1) == 189


# --- the user's gap -------------------------------------------------------------------------


def test_the_gap_is_never_then_the_time_since_the_last_request() -> None:
    two = router(2)
    assert two.pick(5 * SECOND, 7, 64, 10).reuse_gap_ns == -1
    assert two.pick(8 * SECOND, 7, 64, 10).reuse_gap_ns == 3 * SECOND
    assert two.pick(8 * SECOND, 8, 64, 10).reuse_gap_ns == -1


def test_a_retry_does_not_move_the_users_last_seen_time() -> None:
    two = router(2)
    first = two.pick(SECOND, 7, 64, 10)
    again = two.pick(2 * SECOND, 7, 64, 10, excluding(2, first.node_index), retry_gap_ns=first.reuse_gap_ns)
    assert again.node_index != first.node_index
    assert again.reuse_gap_ns == -1
    assert two.pick(4 * SECOND, 7, 64, 10).reuse_gap_ns == 3 * SECOND


def test_a_user_that_another_router_served_is_no_stranger_and_old_news_changes_nothing() -> None:
    two = router(2)
    two.seen(10 * SECOND, [7, 8], [4_000, 0])
    assert two.pick(10 * SECOND, 7, 64, 10).reuse_gap_ns == 4 * SECOND
    two.seen(11 * SECOND, [7], [5_000])
    assert two.pick(12 * SECOND, 7, 64, 10).reuse_gap_ns == 2 * SECOND
    assert two.pick(12 * SECOND, 8, 64, 10).reuse_gap_ns == 2 * SECOND


def test_requests_without_a_user_are_counted_and_leave_no_trace() -> None:
    two = router(2)
    assert two.pick(0, 0, 64, 10).reuse_gap_ns == -1
    assert two.pick(SECOND, 0, 64, 10).reuse_gap_ns == -1
    assert two.totals()["users"] == 0
    assert two.totals()["without_user"] == 2


# --- baselines ------------------------------------------------------------------------------


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="policy: unknown 'best', choose one of round-robin"):
        router(2, policy="best")


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_respects_the_hard_filters(policy: str) -> None:
    four = router(4, policy=policy)
    four.node_gone(0)
    picked = {four.pick(0, key, 64, 10, excluding(4, 3)).node_index for key in range(200)}
    assert picked <= {1, 2}


def test_round_robin_takes_turns_and_steps_over_the_missing() -> None:
    four = router(4, policy="round-robin")
    assert [four.pick(0, 7, 64, 10).node_index for _ in range(6)] == [0, 1, 2, 3, 0, 1]
    four.node_gone(2)
    assert [four.pick(0, 7, 64, 10).node_index for _ in range(4)] == [3, 0, 1, 3]


def test_least_loaded_takes_the_fewest_in_flight() -> None:
    three = router(3, policy="least-loaded")
    booked = [three.pick(0, key, 64, 10) for key in range(1, 7)]
    assert sorted(choice.node_index for choice in booked) == [0, 0, 1, 1, 2, 2]
    three.completed(0, booked[4].reservation, None)
    assert three.pick(0, 99, 64, 10).node_index == booked[4].node_index


def test_consistent_hash_keeps_users_and_moves_only_those_of_a_lost_node() -> None:
    four = router(4, policy="consistent-hash")
    before = {key: four.pick(0, key, 64, 10).node_index for key in range(1, 400)}
    assert before == {key: four.pick(0, key, 64, 10).node_index for key in range(1, 400)}
    four.node_gone(2)
    after = {key: four.pick(0, key, 64, 10).node_index for key in range(1, 400)}
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {key for key, node in before.items() if node == 2}
    assert 50 < len(moved) < 150


def test_consistent_hash_is_the_highest_weight_over_names() -> None:
    names = [f"node-{i}" for i in range(4)]
    four = router(4, policy="consistent-hash")
    for key in range(1, 50):
        weights = [int(mix(np.uint64(key ^ name_hash(name)))) for name in names]
        assert four.pick(0, key, 64, 10).node_index == weights.index(max(weights))


def test_kv_affinity_follows_the_copy_up_to_85_percent_load_and_then_the_least_loaded() -> None:
    for queued, want in ((100.0, 1), (104.0, 2)):
        three = router(3, policy="kv-affinity", busy_ms=120.0)
        three.residency(1, ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[512]))
        for node, queue in enumerate((90.0, queued, 20.0)):
            three.node_load(node, 0, load(queued_ms=queue, ms_per_token=0.2))
        assert three.pick(0, 7, 512, 10).node_index == want


def test_kv_affinity_remembers_where_it_sent_a_user() -> None:
    three = router(3, policy="kv-affinity")
    nodes = set()
    for _ in range(6):
        choice = three.pick(0, 7, 512, 10)
        three.completed(0, choice.reservation, None)
        nodes.add(choice.node_index)
    assert len(nodes) == 1
