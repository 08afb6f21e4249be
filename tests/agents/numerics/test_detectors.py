import math

import numpy as np
import pytest

from agents.numerics.detectors import BurstDetector, PageHinkley
from agents.numerics.ewma import add_rate, new_meters, rate_of

SECOND = 1_000_000_000


def test_a_burst_starts_at_twice_the_slow_rate_and_ends_under_one_point_three() -> None:
    detector = BurstDetector()
    rates = [(100.0, 100.0), (199.0, 100.0), (200.0, 100.0), (150.0, 100.0), (131.0, 100.0), (129.0, 100.0), (199.0, 100.0)]
    assert [detector.update(fast, slow) for fast, slow in rates] == [False, False, True, True, True, False, False]


def test_doubling_by_a_few_arrivals_is_chance_and_not_a_burst() -> None:
    assert not BurstDetector().update(2.2, 1.0)
    assert BurstDetector().update(6.0, 1.0)


def test_rates_that_are_not_finite_or_zero_change_nothing() -> None:
    detector = BurstDetector()
    assert not detector.update(math.nan, 1.0)
    assert not detector.update(5.0, 0.0)
    detector.update(100.0, 10.0)
    assert detector.update(math.nan, 10.0)
    assert not detector.update(0.0, 0.0)


@pytest.mark.parametrize("base", [5.0, 50.0])
def test_poisson_arrivals_seldom_alarm_and_a_surge_does_within_two_seconds(base: float) -> None:
    rng = np.random.default_rng(8)
    pair, detector = new_meters([1.0, 60.0]), BurstDetector()
    alarms, was, found_at = 0, False, math.inf
    for tick in range(1, 36_000 + 100):  # an hour of 100 ms ticks, then a surge
        now = tick * SECOND // 10
        arrived = int(rng.poisson(base / 10 * (4.0 if tick > 36_000 else 1.0)))
        add_rate(pair, 0, now, arrived)
        add_rate(pair, 1, now, arrived)
        active = detector.update(rate_of(pair, 0, now), rate_of(pair, 1, now))
        if tick <= 36_000:
            alarms += active and not was
        elif active:
            found_at = min(found_at, tick / 10 - 3600)
        was = active
    assert alarms <= 1
    assert found_at <= 2.0


def test_detector_refuses_thresholds_without_hysteresis() -> None:
    with pytest.raises(ValueError, match="off_ratio"):
        BurstDetector(on_ratio=1.3, off_ratio=1.3)


def test_page_hinkley_sees_a_lasting_rise_and_a_lasting_fall_and_nothing_else() -> None:
    detector = PageHinkley(threshold=1.0, tolerance=0.05, samples_min=5)
    level = [1.0] * 50 + [1.5] * 20 + [0.5] * 20
    alarms = [place for place, value in enumerate(level) if detector.update(value)]
    assert len(alarms) == 2
    assert 50 < alarms[0] < 56
    assert 70 <= alarms[1] < 78


def test_page_hinkley_tolerates_noise_around_a_level() -> None:
    rng = np.random.default_rng(0)
    detector = PageHinkley(threshold=2.0, tolerance=0.1)
    assert not any(detector.update(float(value)) for value in rng.normal(1.0, 0.1, 5000))


def test_page_hinkley_leaves_out_values_that_are_not_finite() -> None:
    detector = PageHinkley(threshold=1.0, tolerance=0.0, samples_min=1)
    assert not detector.update(math.nan)
    assert not detector.update(math.inf)
    assert not detector.update(1.0)


@pytest.mark.parametrize(("threshold", "tolerance", "samples"), [(0.0, 0.0, 1), (1.0, -1.0, 1), (1.0, 0.0, 0)])
def test_page_hinkley_refuses_impossible_settings(threshold: float, tolerance: float, samples: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        PageHinkley(threshold, tolerance, samples)
