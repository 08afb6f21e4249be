import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics import sketch

SECOND = 1_000_000_000


def sketch_of(values: list[float]) -> np.ndarray:
    counts = sketch.new_sketch()
    for value in values:
        sketch.add(counts, value)
    return counts


@settings(deadline=None)  # the first call compiles
@given(st.floats(0.1, 10_000.0))
def test_a_bucket_stands_for_its_values_within_one_percent(ms: float) -> None:
    bucket = sketch.bucket_of(ms)
    assert 0 <= bucket < sketch.BUCKETS
    assert sketch.bucket_ms(bucket) == pytest.approx(ms, rel=0.0100001)


def test_buckets_grow_with_the_latency_and_the_ends_take_the_rest() -> None:
    edges = [0.0, 0.05, 0.1, 0.11, 1.0, 50.0, 9_999.0, 10_000.0, 1e9, math.inf]
    buckets = [sketch.bucket_of(ms) for ms in edges]
    assert buckets == sorted(buckets)
    assert buckets[:3] == [0, 0, 0]
    assert buckets[-3:] == [sketch.BUCKETS - 1] * 3
    assert sketch.bucket_of(math.nan) == -1


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(0.1, 9_000.0), min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_within_one_percent_of_the_sorted_values(values: list[float], q: float) -> None:
    exact = float(np.quantile(values, q, method="lower"))
    assert sketch.quantile(sketch_of(values), q) == pytest.approx(exact, rel=0.0100001)


def test_an_empty_sketch_has_no_quantile() -> None:
    assert math.isnan(sketch.quantile(sketch.new_sketch(), 0.5))
    assert math.isnan(sketch.share_at_most(sketch.new_sketch(), 120.0))


def test_nan_is_not_counted() -> None:
    assert sketch_of([math.nan, 1.0]).sum() == 1


def test_the_share_within_an_slo_counts_whole_buckets() -> None:
    assert sketch.share_at_most(sketch_of([10.0, 20.0, 119.0, 130.0]), 120.0) == 0.75


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(0.1, 9_000.0), max_size=60), st.lists(st.floats(0.1, 9_000.0), max_size=60))
def test_merging_is_adding_and_the_wire_form_comes_back_equal(first: list[float], second: list[float]) -> None:
    merged = sketch_of(first) + sketch_of(second)
    assert (merged == sketch_of(first + second)).all()
    indexes, counts = sketch.to_sparse(merged)
    assert (sketch.from_sparse(indexes, counts) == merged).all()
    assert all(count > 0 for count in counts)


@pytest.mark.parametrize(
    ("indexes", "counts", "field"), [([1], [], "length"), ([-1], [1], "indexes"), ([9999], [1], "indexes"), ([1], [-1], "counts")]
)
def test_a_wire_form_that_does_not_fit_is_refused(indexes: list[int], counts: list[int], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        sketch.from_sparse(indexes, counts)


def test_the_window_forgets_what_is_older_than_its_span() -> None:
    window = sketch.new_window(span_seconds=60, slot_seconds=5)
    for second in range(0, 120, 10):
        sketch.window_add(window, second * SECOND, float(second + 1))
    counts = sketch.window_counts(window, 119 * SECOND)
    assert counts.sum() == 6
    assert sketch.quantile(counts, 0.0) == pytest.approx(61.0, rel=0.01)
    assert sketch.window_counts(window, 124 * SECOND).sum() == 5
    assert sketch.window_counts(window, 1000 * SECOND).sum() == 0


def test_the_window_equals_a_filter_over_all_samples_kept() -> None:
    rng = np.random.default_rng(4)
    times = np.sort(rng.integers(0, 600, 2000))
    values = rng.lognormal(3.0, 1.0, 2000)
    window = sketch.new_window(60, 5)
    for second, value in zip(times, values, strict=True):
        sketch.window_add(window, int(second) * SECOND, float(value))
    now = int(times[-1])
    kept = values[times >= (now // 5 - 11) * 5]
    assert (sketch.window_counts(window, now * SECOND) == sketch_of(kept.tolist())).all()


def test_a_late_sample_older_than_its_slot_is_left_out() -> None:
    window = sketch.new_window(10, 5)
    sketch.window_add(window, 20 * SECOND, 5.0)
    sketch.window_add(window, 10 * SECOND, 7.0)
    assert sketch.window_counts(window, 20 * SECOND).sum() == 1


@pytest.mark.parametrize(("span", "slot"), [(60, 0), (5, 10), (60, 7)])
def test_a_window_that_is_not_whole_slots_is_refused(span: int, slot: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        sketch.new_window(span, slot)
