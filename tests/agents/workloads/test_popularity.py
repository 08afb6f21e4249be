import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.workloads.popularity import PowerLaw, TwoLevelRows, draw_distinct
from agents.workloads.regimes import Moment

CALM = Moment(1.0, 10, 300.0, 400.0, 6.0, hot_rows=100, hot_row_ratio=0.8, row_offset=0, user_offset=0)


def chance(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_hot_share_of_draws_goes_to_the_hot_rows() -> None:
    law = TwoLevelRows(10_000, chance(7))
    only_hot = set(law.draw(chance(), 5_000, CALM._replace(hot_row_ratio=1.0)).tolist())
    rows = law.draw(chance(), 20_000, CALM).tolist()
    share = sum(row in only_hot for row in rows) / len(rows)
    assert len(only_hot) == 100
    assert share == pytest.approx(0.8, abs=0.015)  # five standard deviations


def test_hot_and_tail_rows_are_drawn_in_mixed_order() -> None:
    law = TwoLevelRows(10_000, chance(7))
    hot = set(law.draw(chance(), 5_000, CALM._replace(hot_row_ratio=1.0)).tolist())
    rows = law.draw(chance(), 2_000, CALM).tolist()
    first = sum(row in hot for row in rows[:1_000])
    assert first == pytest.approx(800, abs=65)


def test_drift_replaces_exactly_as_many_rows_as_it_says() -> None:
    law = TwoLevelRows(10_000, chance(7))
    before = set(law.draw(chance(), 5_000, CALM._replace(hot_row_ratio=1.0)).tolist())
    after = set(law.draw(chance(), 5_000, CALM._replace(hot_row_ratio=1.0, row_offset=30)).tolist())
    assert len(before & after) == 70


def test_drift_runs_around_the_table() -> None:
    law = TwoLevelRows(1_000, chance(7))
    assert np.array_equal(law.draw(chance(), 50, CALM._replace(row_offset=3)), law.draw(chance(), 50, CALM._replace(row_offset=1_003)))


def test_a_power_law_has_the_weights_of_its_formula() -> None:
    law = PowerLaw(50, 1.1, 2.0, chance(3))
    drawn = law.draw(chance(), 200_000, CALM)
    counts = np.sort(np.bincount(drawn, minlength=50))[::-1] / 200_000
    weights = np.array([1.0 / (rank + 2.0) ** 1.1 for rank in range(1, 51)])
    assert counts == pytest.approx(weights / weights.sum(), abs=0.004)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 90))
def test_distinct_draws_are_distinct_and_complete(seed: int, count: int) -> None:
    law = TwoLevelRows(200, chance(5))
    rows = draw_distinct(law, chance(seed), count, CALM._replace(hot_rows=100))
    assert len(set(rows.tolist())) == count
    assert rows.min() >= 0 and rows.max() < 200


def test_the_same_generator_state_draws_the_same_rows() -> None:
    law = TwoLevelRows(10_000, chance(7))
    assert np.array_equal(draw_distinct(law, chance(4), 512, CALM), draw_distinct(law, chance(4), 512, CALM))
