from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.numerics import reuse
from agents.numerics.reuse import hash_of, record_rows, record_user
from agents.numerics.reuse_curve import Pace, curve, drift, histogram_per_second, rate_factor, sampling_rate
from agents.numerics.reuse_state import BY_SAMPLE, FOR_ITSELF, FREE, NOBODY, ReuseState, new_reuse

SECOND = 1_000_000_000


def touch(state: ReuseState, now_ns: int, key: int, size: int) -> float:
    """One reference, with the key in the type that kernels take."""
    return record_user(state, now_ns, np.uint64(key), size)


def stack_distances(keys: list[int], sizes: list[int]) -> list[float]:
    """Slow reference: walk an ordered dict from the newest entry down to the key."""
    stack: OrderedDict[int, int] = OrderedDict()
    distances: list[float] = []
    for key, size in zip(keys, sizes, strict=True):
        if key in stack:
            above = list(stack)[::-1]
            distances.append(float(sum(stack[other] for other in above[: above.index(key) + 1])))
            del stack[key]
        else:
            distances.append(float("inf"))
        stack[key] = size
    return distances


def lru_with_doorkeeper_hits(keys: list[int], times: list[int], capacity: int, window_ns: int) -> int:
    """Slow reference: a real LRU cache of unit-size keys that admits on the second reference within a window."""
    cache: OrderedDict[int, None] = OrderedDict()
    seen: dict[int, int] = {}
    hits = 0
    for key, now in zip(keys, times, strict=True):
        soon = key in seen and now - seen[key] <= window_ns
        if key in cache:
            hits += 1
            cache.move_to_end(key)
        elif soon:
            cache[key] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
        seen[key] = now
    return hits


def zipf_mandelbrot(count: int, ids: int, exponent: float, shift: float, seed: int) -> NDArray[np.int64]:
    weights = (np.arange(1, ids + 1) + shift) ** -exponent
    return np.random.default_rng(seed).choice(ids, size=count, p=weights / weights.sum()).astype(np.int64)


def exact_row_hit_ratio(rows: NDArray[np.int64], capacities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hit ratio of an LRU of each capacity (in rows), from an unsampled estimator checked against brute force below."""
    state = new_reuse(float(capacities[-1]), bins=capacities.shape[0] - 1, keys_max=1 << 17, horizon_ratio=0)
    record_rows(state, 0, rows, 1)
    return np.array(curve(state, 0, Pace.FAST).value[0] / rows.shape[0])


def assert_consistent(state: ReuseState) -> None:
    """Every followed key is found, stacked sizes agree with the tree, free slots are the others."""
    head, entries = state.head[0], state.entries
    used = np.flatnonzero(entries["position"] != FREE)
    stacked = np.flatnonzero(entries["position"] >= 0)
    assert head["used"] == used.size
    assert np.count_nonzero(state.places["slot"] >= 0) == used.size
    for slot in used:
        key = entries[slot]["key"]
        assert reuse._find(state, key, np.uint64(hash_of(key, head["seed"]))) == slot
    assert sorted(free_slots(state)) == sorted(set(range(entries.size)) - set(used.tolist()))
    hot = used[(entries[used]["stratum"] == FOR_ITSELF) | (entries[used]["waiting"] != 0)]
    assert head["hot"] == hot.size <= entries.size // 2
    assert state.places["hot"].sum() == hot.size
    for name, stratum in (("stacked_by_sample", BY_SAMPLE), ("stacked_for_itself", FOR_ITSELF)):
        assert head[name] == entries["bytes"][stacked][entries["stratum"][stacked] == stratum].sum()
    order = stacked[np.argsort(-entries["position"][stacked])]
    scales = reuse._scales(state)
    scaled = entries["bytes"][order] * np.array(scales)[entries["stratum"][order]]
    above = np.concatenate([[0], np.cumsum(scaled)[:-1]]) if order.size else np.zeros(0)
    found = [np.dot(reuse._above(state, int(entries[slot]["position"])), scales) for slot in order]
    assert found == pytest.approx(above.tolist())


def free_slots(state: ReuseState) -> list[int]:
    slots, slot = [], int(state.head[0]["free"])
    while slot != NOBODY:
        slots.append(slot)
        slot = int(state.entries[slot]["next_free"])
    return slots


def hot_keys(state: ReuseState) -> set[int]:
    hot = (state.entries["stratum"] == FOR_ITSELF) & (state.entries["position"] != FREE)
    return {int(key) for key in state.entries["key"][hot]}


def test_distances_equal_a_walk_down_the_stack_at_rate_one() -> None:
    rng = np.random.default_rng(1)
    keys = (rng.zipf(1.3, 2500) % 200).tolist()
    sizes = rng.integers(1, 50, 2500).tolist()
    state = new_reuse(5000.0, keys_max=256, horizon_ratio=0)
    found = [touch(state, 0, key, size) for key, size in zip(keys, sizes, strict=True)]
    assert found == stack_distances(keys, sizes)
    assert state.head[0]["next"] < 4 * 256, "positions were compacted on the way"
    assert_consistent(state)


def test_value_lands_in_the_bin_whose_upper_edge_just_holds_it() -> None:
    state = new_reuse(40.0, bins=4, channels=2, horizon_ratio=0)
    for key, size in [(1, 10), (2, 10), (1, 10), (3, 15), (2, 10), (2, 10)]:
        touch(state, 0, key, size)
    # distances: 1 -> 10+10 = 20 exactly bin (10, 20]; 2 -> 15+10+10 = 35; 2 again -> its own 10
    result = curve(state, SECOND, Pace.FAST)
    rate = rate_factor(state, SECOND, 0)
    np.testing.assert_allclose(result.edges, [0, 10, 20, 30, 40])
    np.testing.assert_allclose(result.value, np.array([[0, 1, 2, 2, 3], [0, 10, 20, 20, 30]]) * rate)
    np.testing.assert_allclose(result.total, np.array([3, 30]) * rate)
    np.testing.assert_allclose(result.offered, np.array([6, 65]) * rate)
    np.testing.assert_allclose(histogram_per_second(state, SECOND, Pace.FAST), np.array([[1, 1, 0, 1, 3], [10, 10, 0, 10, 35]]) * rate)


def test_a_distance_beyond_the_last_edge_counts_in_the_total_only() -> None:
    state = new_reuse(10.0, bins=2, horizon_ratio=0)
    for key in [1, 2, 3, 1]:
        touch(state, 0, key, 5)
    result = curve(state, SECOND, Pace.FAST)
    assert result.value.max() == 0.0
    assert result.total[0] == pytest.approx(rate_factor(state, SECOND, 0))


def test_rates_are_right_from_the_first_second_and_follow_the_stream() -> None:
    state = new_reuse(10.0, half_life_fast_seconds=2.0, half_life_slow_seconds=20.0)
    for tick in range(1, 301):  # 10 references a second for 30 s
        touch(state, tick * SECOND // 10, 1, 1)
        if tick in (20, 100, 300):
            for pace in (Pace.FAST, Pace.SLOW):
                assert curve(state, tick * SECOND // 10, pace).offered[0] == pytest.approx(10.0, rel=0.03)
    idle = 50 * SECOND
    assert curve(state, idle, Pace.FAST).offered[0] == pytest.approx(10.0 * 2.0**-10, rel=0.05)
    assert curve(state, idle, Pace.SLOW).offered[0] == pytest.approx(10.0 * (2**-1 - 2**-2.5) / (1 - 2**-2.5), rel=0.05)


def test_a_century_without_traffic_leaves_zero_and_not_nan() -> None:
    state = new_reuse(10.0)
    touch(state, 0, 1, 1)
    touch(state, 100 * 365 * 86_400 * SECOND, 1, 1)
    assert np.isfinite(state.bins).all()
    result = curve(state, 200 * 365 * 86_400 * SECOND)
    assert result.offered[0] == 0.0
    assert np.isfinite(result.value).all()


def test_time_running_backwards_is_taken_as_standing_still() -> None:
    state = new_reuse(10.0)
    touch(state, 5 * SECOND, 1, 1)
    touch(state, 1 * SECOND, 1, 1)
    assert state.head[0]["last_ns"] == 5 * SECOND
    assert curve(state, 0, Pace.FAST).value[0, -1] > 0.0


def test_the_fast_shape_is_used_after_a_drift_and_the_slow_one_at_rest() -> None:
    state = new_reuse(100.0, bins=10, half_life_fast_seconds=10.0, half_life_slow_seconds=1000.0)
    now = 0
    for _ in range(200):
        for key in range(5):
            now += SECOND // 5
            touch(state, now, key, 1)
    assert drift(state) < 0.05
    auto, slow, fast = (curve(state, now, pace) for pace in (Pace.AUTO, Pace.SLOW, Pace.FAST))
    assert auto.offered[0] == fast.offered[0]
    np.testing.assert_allclose(auto.value / auto.offered[0], slow.value / slow.offered[0])
    for _ in range(50):
        for key in range(100, 190):
            now += SECOND // 90
            touch(state, now, key, 1)
    assert drift(state) > 0.1
    np.testing.assert_array_equal(curve(state, now).value, curve(state, now, Pace.FAST).value)


def test_a_sample_of_one_in_eight_is_within_a_hundredth_of_the_exact_curve_for_ten_hashes() -> None:
    rows = zipf_mandelbrot(100_000, 15_000, 0.9, 30.0, seed=7)
    exact = exact_row_hit_ratio(rows, np.linspace(0, 10_000, 65))
    errors = []
    for seed in range(10):
        state = new_reuse(10_000.0, bins=64, keys_max=8192, sampling_rate=1 / 8, seed=seed)
        record_rows(state, 0, rows, 1)
        assert sampling_rate(state) == 1 / 8
        errors.append(np.abs(curve(state, 0, Pace.FAST).value[0] / rows.shape[0] - exact).max())
    assert max(errors) <= 0.01
    assert 0.5 < exact[-1] < 0.95, "a curve that means something"


def test_a_few_very_hot_keys_are_followed_whatever_their_hash() -> None:
    rng = np.random.default_rng(3)
    rows = np.where(rng.random(100_000) < 0.5, rng.integers(0, 4, 100_000), rng.integers(4, 20_000, 100_000)).astype(np.int64)
    exact = exact_row_hit_ratio(rows, np.linspace(0, 10_000, 33))
    errors = []
    for seed in range(5):
        state = new_reuse(10_000.0, bins=32, keys_max=4096, sampling_rate=1 / 8, seed=seed)
        record_rows(state, 0, rows, 1)
        errors.append(np.abs(curve(state, 0, Pace.FAST).value[0] / rows.size - exact).max())
        assert {0, 1, 2, 3} <= hot_keys(state)
        assert_consistent(state)
    assert max(errors) <= 0.01


def test_hot_keys_that_cooled_give_their_place_to_the_next() -> None:
    rng = np.random.default_rng(3)
    state = new_reuse(1000.0, keys_max=64, sampling_rate=1 / 8)
    for turn in range(6):
        rows = np.where(rng.random(20_000) < 0.5, rng.integers(0, 20, 20_000) + 1000 * turn, rng.integers(10_000, 90_000, 20_000))
        record_rows(state, 0, rows.astype(np.int64), 1)
        assert len(hot_keys(state) & set(range(1000 * turn, 1000 * turn + 20))) >= 15
        assert_consistent(state)


def test_a_bounded_set_lowers_its_rate_and_stays_accurate() -> None:
    rows = zipf_mandelbrot(200_000, 30_000, 0.9, 30.0, seed=7)
    exact = exact_row_hit_ratio(rows, np.linspace(0, 20_000, 65))
    state = new_reuse(20_000.0, bins=64, keys_max=1024, sampling_rate=1.0, horizon_ratio=0)
    record_rows(state, 0, rows, 1)
    assert state.head[0]["used"] <= 1024
    assert 512 / 30_000 * 0.7 < sampling_rate(state) < 1024 / 30_000, "half of the places are left to hot keys"
    assert np.abs(curve(state, 0, Pace.FAST).value[0] / rows.size - exact).max() <= 0.04
    assert_consistent(state)


def test_a_stream_thinned_by_key_gives_the_same_curve_at_the_same_total_rate() -> None:
    rows = zipf_mandelbrot(200_000, 30_000, 0.9, 30.0, seed=7)
    keep = reuse_hash_below(rows, 1 / 4)
    full = new_reuse(20_000.0, bins=32, sampling_rate=1 / 16)
    thinned = new_reuse(20_000.0, bins=32, sampling_rate=1 / 16, stream_rate=1 / 4, seed=1)
    record_rows(full, 0, rows, 1)
    record_rows(thinned, 0, rows[keep], 1)
    assert sampling_rate(thinned) == sampling_rate(full) == 1 / 16
    first, second = curve(full, 0, Pace.FAST), curve(thinned, 0, Pace.FAST)
    assert second.offered[0] == pytest.approx(first.offered[0], rel=0.05)
    assert np.abs(first.value - second.value).max() / first.offered[0] < 0.05


def reuse_hash_below(rows: NDArray[np.int64], rate: float) -> NDArray[np.bool_]:
    return np.array([int(hash_of(np.uint64(row), np.uint64(99))) < rate * 2**64 for row in range(30_000)])[rows]


def test_depth_beyond_the_horizon_is_forgotten_so_a_flood_of_new_keys_keeps_the_rate() -> None:
    bounded = new_reuse(100.0, keys_max=1024, horizon_ratio=4.0)
    unbounded = new_reuse(100.0, keys_max=1024, horizon_ratio=0)
    flood = np.arange(50_000, dtype=np.int64)
    for state in (bounded, unbounded):
        record_rows(state, 0, flood, 1)
        assert_consistent(state)
    assert sampling_rate(bounded) == 1.0
    assert bounded.head[0]["used"] == 401  # those above any one key are at most the horizon
    assert sampling_rate(unbounded) < 0.03


def test_a_rate_that_fell_rises_again_when_keys_are_few() -> None:
    state = new_reuse(1e6, keys_max=64, horizon_ratio=1.0)
    for key in range(5000):
        touch(state, 0, key, 1)
    fallen = sampling_rate(state)
    for turn in range(20_000):
        touch(state, 0, 10_000 + turn % 40, 200_000)
    assert fallen < 0.02
    assert fallen < sampling_rate(state) <= 1.0
    assert_consistent(state)


def test_memory_is_what_was_allocated_at_the_start() -> None:
    state = new_reuse(1e6, keys_max=8192, channels=3)
    assert sum(array.nbytes for array in state) < 4_000_000


# --- doorkeeper ---------------------------------------------------------------------------


def test_a_key_enters_at_its_second_reference_within_the_window() -> None:
    state = new_reuse(10.0, bins=10, window_ns=60)
    found = [touch(state, now, 7, 2) for now in (0, 60, 100, 500, 520)]
    # unseen; seen 60 ago, enters; hit; late, but still there; hit
    assert found == [np.inf, np.inf, 2.0, 2.0, 2.0]


def test_a_reference_one_nanosecond_too_late_does_not_enter() -> None:
    state = new_reuse(10.0, bins=10, window_ns=60)
    assert [touch(state, now, 7, 2) for now in (0, 61, 122, 182, 183)] == [np.inf, np.inf, np.inf, np.inf, 2.0]


def test_a_late_return_stays_only_in_caches_that_still_held_it() -> None:
    state = new_reuse(10.0, bins=10, window_ns=10)
    for now, key in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3)]:
        touch(state, now, key, 1)
    assert touch(state, 100, 1, 1) == 3.0  # late: caches under 3 do not take it back
    assert touch(state, 200, 1, 1) == 3.0  # on top of the stack, yet absent below 3
    assert touch(state, 205, 1, 1) == 3.0  # soon: now every cache takes it
    assert touch(state, 206, 1, 1) == 1.0


def test_the_doorkeepers_curve_equals_real_caches_on_visits() -> None:
    rng = np.random.default_rng(5)
    events: list[tuple[int, int]] = []
    for user in range(600):  # visits of several requests, then a long absence; some users come once
        for _ in range(int(rng.integers(1, 4))):
            start = int(rng.integers(0, 1_440_000))
            gaps = rng.integers(1000, 50_000, int(rng.integers(1, 7)))
            events += [(int(start + gap), user) for gap in np.cumsum(gaps)]
    events.sort()
    times, keys = [time for time, _ in events], [key for _, key in events]
    state = new_reuse(100.0, bins=20, keys_max=4096, window_ns=60_000)
    for now, key in events:
        touch(state, now, key, 1)
    counted = curve(state, 0, Pace.FAST).value[0, 1:] / curve(state, 0, Pace.FAST).offered[0] * len(keys)
    real = np.array([lru_with_doorkeeper_hits(keys, times, capacity, 60_000) for capacity in range(5, 101, 5)])
    admitted_all = np.array([sum(d <= capacity for d in stack_distances(keys, [1] * len(keys))) for capacity in range(5, 101, 5)])
    assert np.abs(counted - real).max() / len(keys) < 0.02
    assert np.abs(admitted_all - real).max() / len(keys) > 0.1, "plain LRU distances would have been wrong"


def test_behind_a_doorkeeper_hot_keys_do_not_pull_a_sampled_curve_to_one_side() -> None:
    rows = zipf_mandelbrot(60_000, 15_000, 0.9, 30.0, seed=3)
    settings_ = {"bins": 32, "window_ns": 10 * SECOND, "half_life_fast_seconds": 1e9}
    exact, *sampled = [new_reuse(6_000.0, keys_max=1 << 15, **settings_)] + [
        new_reuse(6_000.0, keys_max=4096, sampling_rate=1 / 8, seed=seed, **settings_) for seed in range(6)
    ]
    for second, batch in enumerate(np.split(rows, 600)):
        for state in (exact, *sampled):
            record_rows(state, second * SECOND, batch, 1)
    true = curve(exact, 0, Pace.FAST)
    errors = np.array([(found.value[0] / found.offered[0]) for found in (curve(state, 0, Pace.FAST) for state in sampled)])
    errors -= true.value[0] / true.offered[0]
    assert np.abs(errors.mean(axis=0)).max() <= 0.01
    assert np.abs(errors).max() <= 0.02
    for state in sampled:
        assert_consistent(state)


def test_keys_seen_once_do_not_push_others_out_of_the_sample() -> None:
    state = new_reuse(50.0, keys_max=256, window_ns=10)
    for turn in range(1, 4001):
        touch(state, turn, turn % 5, 1)
        touch(state, turn, 1_000 + turn, 1)
    assert sampling_rate(state) == 1.0
    assert state.head[0]["stacked_by_sample"] == 5
    assert_consistent(state)


# --- robustness ---------------------------------------------------------------------------


def test_rows_in_one_call_equal_keys_one_by_one() -> None:
    rows = zipf_mandelbrot(3000, 500, 1.0, 5.0, seed=1)
    together, alone = (new_reuse(100.0 * 256, channels=3, sampling_rate=0.5) for _ in range(2))
    record_rows(together, 5, rows, 256)
    for row in rows:
        touch(alone, 5, int(row), 256)
    together.head["hashes"] = 0  # scratch
    np.testing.assert_allclose(together.bins, alone.bins, rtol=1e-12)  # sums of the same, in another order
    for first, second in zip(together[:-1], alone[:-1], strict=True):
        np.testing.assert_array_equal(first, second)


def test_channels_sum_references_their_sizes_and_the_squares_of_these() -> None:
    state = new_reuse(100.0, channels=3)
    for size in (3, 5, 7):
        touch(state, 0, 1, size)
    result = curve(state, SECOND, Pace.FAST)
    rate = rate_factor(state, SECOND, Pace.FAST)
    np.testing.assert_allclose(result.offered, np.array([3, 15, 83]) * rate)
    np.testing.assert_allclose(result.total, np.array([2, 12, 74]) * rate)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"capacity_max": 0.0}, "capacity_max"),
        ({"capacity_max": float("nan")}, "capacity_max"),
        ({"sampling_rate": 0.0}, "sampling_rate"),
        ({"stream_rate": 1.5}, "stream_rate"),
        ({"window_ns": -1}, "window_ns"),
        ({"horizon_ratio": 0.5}, "horizon_ratio"),
        ({"half_life_slow_seconds": 0.0}, "half-lives"),
        ({"keys_max": 1}, "keys_max"),
        ({"channels": 4}, "channels"),
    ],
)
def test_an_impossible_estimator_is_refused_by_name(change: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        new_reuse(**({"capacity_max": 10.0} | change))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(0, 20)), min_size=1, max_size=200),
    window=st.sampled_from([0, 15]),
    horizon=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_any_stream_keeps_the_state_consistent_and_the_curve_monotone(
    steps: list[tuple[int, int, int]], window: int, horizon: float
) -> None:
    state = new_reuse(60.0, bins=6, keys_max=16, window_ns=window, horizon_ratio=horizon)
    now = 0
    for key, size, gap in steps:
        now += gap
        touch(state, now, key, size)
    assert_consistent(state)
    result = curve(state, now)
    assert (np.diff(result.value, axis=1) >= -1e-12).all()
    assert (result.value[:, -1] <= result.total * (1 + 1e-9) + 1e-12).all()
    assert (result.total <= result.offered * (1 + 1e-9) + 1e-12).all()


def test_a_user_too_short_to_be_cached_leaves_every_figure_a_number() -> None:
    """A history of no whole block weighs nothing; asked for twice, it once made not-a-number of all that followed."""
    state = new_reuse(100.0, channels=3, sampling_rate=0.5)
    for now in range(8):
        for key in range(16):
            touch(state, now * SECOND, key, 0 if key < 8 else 10)
    assert np.isfinite(state.bins).all()
    assert np.isfinite(histogram_per_second(state, 8 * SECOND)).all()
    assert curve(state, 8 * SECOND).value[0][-1] > 0.0


def test_recalled_rows_are_known_from_the_first_reference_on_and_count_nothing() -> None:
    state = new_reuse(1_000.0, window_ns=SECOND)
    reuse.recall_rows(state, np.array([3, 2, 1], np.int64), 10)
    assert state.bins.sum() == 0.0
    assert [touch(state, 5 * SECOND, key, 10) for key in (1, 3, 9)] == [30.0, 20.0, float("inf")]
