import math
from collections.abc import Iterator

import numpy as np
import pytest

from agents.workloads.describe import describe
from agents.workloads.request import Request


class Fixed:
    """A workload of given (seconds, user, tokens, rows)."""

    name = "fixed"
    duration_seconds = 1_000.0

    def __init__(self, rows: list[tuple[float, int, int, list[int]]]) -> None:
        self._rows = rows

    def requests(self) -> Iterator[Request]:
        for at, user, tokens, candidates in self._rows:
            history = np.zeros(tokens, np.int64)
            yield Request(round(at * 1e9), user, history, history, history, np.array(candidates, np.int64))


def test_a_small_stream_is_described_exactly() -> None:
    facts = describe(
        Fixed([(0.0, 1, 10, [1, 2]), (30.0, 1, 20, [1, 3]), (45.0, 2, 30, [4, 5]), (100.0, 1, 40, [1, 6]), (150.0, 9, 50, [7, 8])]), 120.0
    )
    assert facts["requests"] == 4
    assert facts["users"] == 2
    assert facts["requests_per_second"] == pytest.approx(4 / 120)
    assert facts["requests_per_second_peak_10s"] == pytest.approx(0.1)
    assert facts["revisit_seconds_p50"] == pytest.approx(50.0)  # gaps of 30 and 70 s
    assert facts["admitted_ratio"] == pytest.approx(1 / 4)
    assert facts["users_distinct_60s_mean"] == pytest.approx(1.5)
    assert facts["history_tokens_mean"] == pytest.approx(25.0)
    assert facts["rows_distinct"] == 6
    assert facts["rows_distinct_60s_mean"] == pytest.approx((5 + 2) / 2)
    assert facts["rows_seen_once_ratio"] == pytest.approx(5 / 6)
    assert facts["row_top_10pct_ratio"] == pytest.approx(3 / 8)


def test_silence_is_described_without_a_stumble() -> None:
    facts = describe(Fixed([]), 60.0)
    assert facts["requests"] == 0
    assert math.isnan(float(facts["revisit_seconds_p50"])) and math.isnan(float(facts["admitted_ratio"]))
