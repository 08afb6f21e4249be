"""The estimator against exact curves at full size: ten hashes of each stream."""

import numpy as np
import pytest

from agents.profiles import load_profile
from helmctl.bench import curve_accuracy as accuracy
from helmctl.bench.exact_reuse import exact_hits


@pytest.mark.verify
def test_a_sample_of_one_in_eight_is_within_a_hundredth_in_hits_and_in_milliseconds() -> None:
    found = accuracy.errors(accuracy.demo_users(load_profile("cpu-demo"), 200_000, 0), accuracy.RATE)
    assert max(error.hits_max for error in found) <= 0.01
    assert max(error.ms_max for error in found) <= 0.01


@pytest.mark.verify
def test_ten_million_ids_at_one_in_256_are_within_two_hundredths() -> None:
    stream = accuracy.ten_million_ids(accuracy.BIG_REFERENCES)
    found = accuracy.errors(stream, accuracy.BIG_RATE, accuracy.BIG_CAPACITY, accuracy.BIG_KEYS_MAX)
    assert max(error.hits_max for error in found) <= 0.02


def test_exact_hits_are_those_of_a_cache_walked_by_hand() -> None:
    keys, sizes = np.array([0, 1, 0, 2, 1, 1]), np.array([10, 10, 10, 15, 10, 10])
    # 0 again: 10 + 10; 1 again: 15 + 10 + 10; 1 again: its own 10
    assert exact_hits(keys, sizes, np.ones(6), np.linspace(0.0, 40.0, 5)).tolist() == [0, 1, 2, 2, 3]
