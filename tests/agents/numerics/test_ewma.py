import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics.ewma import EwmaMean, EwmaRate, RatePair

SECOND = 1_000_000_000


def test_a_mean_is_nan_before_and_exact_after_the_first_sample() -> None:
    mean = EwmaMean(10.0)
    assert math.isnan(mean.mean)
    mean.add(5 * SECOND, 42.0)
    assert mean.mean == 42.0


def test_a_sample_one_half_life_old_weighs_half() -> None:
    mean = EwmaMean(10.0)
    mean.add(0, 0.0)
    mean.add(10 * SECOND, 3.0)
    assert mean.mean == pytest.approx(2.0)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-100, 100), st.floats(0.1, 5)), min_size=1, max_size=40))
def test_the_mean_equals_the_sum_over_all_samples(samples: list[tuple[int, float, float]]) -> None:
    mean = EwmaMean(7.0)
    now, times = 0, []
    for gap, value, weight in samples:
        now += gap * SECOND
        times.append(now)
        mean.add(now, value, weight)
    weights = [weight * 0.5 ** ((now - time) / (7 * SECOND)) for time, (_, _, weight) in zip(times, samples, strict=True)]
    exact = sum(w * value for w, (_, value, _) in zip(weights, samples, strict=True)) / sum(weights)
    assert mean.mean == pytest.approx(exact, abs=1e-9)


def test_samples_that_are_not_finite_or_weightless_are_left_out() -> None:
    mean = EwmaMean(1.0)
    mean.add(0, 1.0)
    for value, weight in [(math.nan, 1.0), (math.inf, 1.0), (5.0, 0.0), (5.0, math.nan)]:
        mean.add(0, value, weight)
    assert mean.mean == 1.0


@pytest.mark.parametrize("half_life", [1.0, 60.0])
def test_a_steady_stream_reads_its_rate_while_young_and_when_old(half_life: float) -> None:
    rate = EwmaRate(half_life, now_ns=0)
    for tick in range(1, 4001):
        rate.add(tick * SECOND // 20)
        if tick in (40, 400, 4000):
            assert rate.per_second(tick * SECOND // 20) == pytest.approx(20.0, rel=0.04)


def test_a_rate_halves_every_half_life_of_silence() -> None:
    rate = EwmaRate(2.0, now_ns=0)
    for second in range(1, 101):
        rate.add(second * SECOND, 10.0)
    now = rate.per_second(100 * SECOND)
    assert rate.per_second(102 * SECOND) == pytest.approx(now / 2, rel=1e-6)
    assert rate.per_second(10_000_000 * SECOND) == 0.0


def test_one_early_event_is_not_a_thousand_per_second() -> None:
    rate = EwmaRate(60.0, now_ns=0)
    rate.add(1_000_000)
    assert rate.per_second(1_000_000) <= 1.01


def test_a_clock_running_backwards_stands_still() -> None:
    rate = EwmaRate(10.0, now_ns=0)
    rate.add(100 * SECOND)
    before = rate.per_second(100 * SECOND)
    assert rate.per_second(0) == before
    rate.add(50 * SECOND)
    assert np.isfinite(rate.per_second(100 * SECOND))


def test_a_jump_shows_in_the_fast_rate_first() -> None:
    pair = RatePair(0)
    for tick in range(1, 1200):
        pair.add(tick * SECOND // 10)
    for tick in range(1, 31):
        pair.add(120 * SECOND + tick * SECOND // 30)
    now = 121 * SECOND
    assert pair.fast.per_second(now) / pair.slow.per_second(now) > 1.7


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.nan, math.inf])
def test_a_half_life_that_is_no_time_is_refused(half_life: float) -> None:
    with pytest.raises(ValueError, match="half_life_seconds"):
        EwmaMean(half_life)
