import math

import numpy as np
import pytest

from agents.numerics.detectors import PageHinkley

SECOND = 1_000_000_000


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
