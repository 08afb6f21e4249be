import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics.ewma import add_mean, add_rate, mean_of, new_meters, rate_of

SECOND = 1_000_000_000


def test_a_mean_is_nan_before_and_exact_after_the_first_sample() -> None:
    mean = new_meters([10.0])
    assert math.isnan(mean_of(mean, 0))
    add_mean(mean, 0, 5 * SECOND, 42.0)
    assert mean_of(mean, 0) == 42.0


def test_a_sample_one_half_life_old_weighs_half() -> None:
    mean = new_meters([10.0])
    add_mean(mean, 0, 0, 0.0)
    add_mean(mean, 0, 10 * SECOND, 3.0)
    assert mean_of(mean, 0) == pytest.approx(2.0)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-100, 100), st.floats(0.1, 5)), min_size=1, max_size=40))
def test_the_mean_equals_the_sum_over_all_samples(samples: list[tuple[int, float, float]]) -> None:
    mean = new_meters([7.0])
    now, times = 0, []
    for gap, value, weight in samples:
        now += gap * SECOND
        times.append(now)
        add_mean(mean, 0, now, value, weight)
    weights = [weight * 0.5 ** ((now - time) / (7 * SECOND)) for time, (_, _, weight) in zip(times, samples, strict=True)]
    exact = sum(w * value for w, (_, value, _) in zip(weights, samples, strict=True)) / sum(weights)
    assert mean_of(mean, 0) == pytest.approx(exact, abs=1e-9)


def test_samples_that_are_not_finite_or_weightless_are_left_out() -> None:
    mean = new_meters([1.0])
    add_mean(mean, 0, 0, 1.0)
    for value, weight in [(math.nan, 1.0), (math.inf, 1.0), (5.0, 0.0), (5.0, math.nan)]:
        add_mean(mean, 0, 0, value, weight)
    assert mean_of(mean, 0) == 1.0


@pytest.mark.parametrize("half_life", [1.0, 60.0])
def test_a_steady_stream_reads_its_rate_while_young_and_when_old(half_life: float) -> None:
    rate = new_meters([half_life])
    for tick in range(1, 4001):
        add_rate(rate, 0, tick * SECOND // 20)
        if tick in (40, 400, 4000):
            assert rate_of(rate, 0, tick * SECOND // 20) == pytest.approx(20.0, rel=0.04)


def test_a_rate_halves_every_half_life_of_silence() -> None:
    rate = new_meters([2.0])
    for second in range(1, 101):
        add_rate(rate, 0, second * SECOND, 10.0)
    now = rate_of(rate, 0, 100 * SECOND)
    assert rate_of(rate, 0, 102 * SECOND) == pytest.approx(now / 2, rel=1e-6)
    assert rate_of(rate, 0, 10_000_000 * SECOND) == 0.0


def test_one_early_event_is_not_a_thousand_per_second() -> None:
    rate = new_meters([60.0])
    add_rate(rate, 0, 1_000_000)
    assert rate_of(rate, 0, 1_000_000) <= 1.01


def test_a_clock_running_backwards_stands_still() -> None:
    rate = new_meters([10.0])
    add_rate(rate, 0, 100 * SECOND)
    before = rate_of(rate, 0, 100 * SECOND)
    assert rate_of(rate, 0, 0) == before
    add_rate(rate, 0, 50 * SECOND)
    assert np.isfinite(rate_of(rate, 0, 100 * SECOND))


def test_a_jump_shows_in_the_fast_rate_first() -> None:
    pair = new_meters([1.0, 60.0])
    for tick in range(1, 1200):
        for place in (0, 1):
            add_rate(pair, place, tick * SECOND // 10)
    for tick in range(1, 31):
        for place in (0, 1):
            add_rate(pair, place, 120 * SECOND + tick * SECOND // 30)
    now = 121 * SECOND
    assert rate_of(pair, 0, now) / rate_of(pair, 1, now) > 1.7


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.nan, math.inf])
def test_a_half_life_that_is_no_time_is_refused(half_life: float) -> None:
    with pytest.raises(ValueError, match="half_lives_seconds"):
        new_meters([half_life])
