import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics import cost as c
from agents.numerics.cost import Cost

DEMO = Cost(1.5, 0.0002, 0.0102, 0.012, 1.2e-5, 0.008, 1.0)


def test_a_request_is_the_sum_of_its_parts() -> None:
    # 500 tokens, 128 cached, 100 candidates: 472 rows, 118 missing; 372 new tokens
    prefill = 0.012 * 372 + 1.2e-5 * (500**2 - 128**2)
    gather = 354 * 0.0002 + 118 * 0.0102
    assert c.request_ms(DEMO, 500, 128, 100, 0.75) == pytest.approx(1.5 + prefill + gather + 0.8)


def test_a_hit_never_costs_less_than_its_floor_and_a_miss_has_none() -> None:
    assert c.prefill_ms(DEMO, 512, 512) == 1.0
    assert c.prefill_ms(DEMO, 1, 0) == pytest.approx(0.012012)


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 768), st.integers(0, 768), st.integers(0, 512), st.floats(0, 1))
def test_the_value_of_a_prefix_is_what_the_request_would_have_cost_more(one: int, two: int, candidates: int, hit_ratio: float) -> None:
    tokens, cached = max(one, two), min(one, two)
    saved = c.request_ms(DEMO, tokens, 0, candidates, hit_ratio) - c.request_ms(DEMO, tokens, cached, candidates, hit_ratio)
    assert c.kv_hit_value_ms(DEMO, tokens, cached, hit_ratio) == pytest.approx(max(0.0, saved), abs=1e-9)


def test_a_prefix_is_worth_more_where_its_rows_would_miss() -> None:
    low, high = (c.kv_hit_value_ms(DEMO, 512, 448, ratio) for ratio in (0.9, 0.2))
    assert high - low == pytest.approx(448 * 0.7 * 0.01)


def test_a_long_user_is_worth_far_more_than_a_short_one() -> None:
    assert c.kv_hit_value_ms(DEMO, 768, 768, 0.5) > 3 * c.kv_hit_value_ms(DEMO, 256, 256, 0.5)


def test_a_row_hit_saves_the_difference_and_is_never_negative() -> None:
    assert c.row_hit_value_ms(DEMO) == pytest.approx(0.01)
    assert c.row_hit_value_ms(DEMO._replace(ms_per_missing_row=0.0)) == 0.0


def test_sums_per_bin_price_like_single_hits_that_fit_the_floor() -> None:
    cached = np.array([300.0, 500.0, 700.0])
    one_by_one = sum(c.kv_hit_value_ms(DEMO, tokens, tokens, 0.6) for tokens in cached)
    together = c.kv_value_ms_per_second(DEMO, 0.6, np.array([3.0]), np.array([cached.sum()]), np.array([(cached**2).sum()]))
    assert together[0] == pytest.approx(one_by_one)


def test_worthless_hits_are_zero_and_not_negative() -> None:
    assert c.kv_value_ms_per_second(DEMO, 1.0, np.array([10.0]), np.array([10.0]), np.array([10.0])).tolist() == [0.0]


def test_a_nodes_curve_divides_both_axes_of_the_clusters() -> None:
    edges = np.array([0.0, 400.0, 800.0])
    value = np.array([80.0, 40.0, 999.0])  # the last, open bin is beyond any capacity
    capacities = np.array([0.0, 50.0, 100.0, 200.0, 900.0])
    np.testing.assert_allclose(c.node_share_of_cluster_value(edges, value, 4, capacities), [0.0, 10.0, 20.0, 30.0, 30.0])
    np.testing.assert_allclose(c.node_share_of_cluster_value(edges, value, 1, capacities), [0.0, 10.0, 20.0, 40.0, 120.0])


def test_a_cluster_of_no_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="nodes"):
        c.node_share_of_cluster_value(np.zeros(2), np.zeros(2), 0, np.zeros(1))
