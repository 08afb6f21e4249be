import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.controller.baselines.b5 import B5, ChangeTimes
from agents.controller.value import best_ratio
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import GRID, observe, rising

SECOND = 1_000_000_000
RAILS = GuardRails()


def slow_best(emb: NDArray[np.float64], kv: NDArray[np.float64], present: float) -> tuple[float, float]:
    """Every grid point by hand; among the best, the nearest to the present."""
    ratios = [0.1 + 0.8 * point / 128 for point in range(129)]
    values = [float(np.interp(r, GRID, emb) + np.interp(1 - r, GRID, kv)) for r in ratios]
    best = max(values)
    return min((abs(r - present), r) for r, v in zip(ratios, values, strict=True) if v >= best * (1 - 1e-9))[1], best


curves = st.lists(st.floats(0.0, 10.0), min_size=100, max_size=100).map(lambda steps: np.concatenate([[0.0], np.cumsum(steps)]))


@settings(deadline=None, max_examples=50)
@given(curves, curves, st.floats(0.1, 0.9))
def test_the_scan_finds_the_best_of_129_points(emb: NDArray[np.float64], kv: NDArray[np.float64], present: float) -> None:
    ratio, value, now = best_ratio(emb, kv, 0.1, 0.9, present, 129)
    _, slow_value = slow_best(emb, kv, present)
    assert value >= slow_value * (1 - 1e-12)
    assert value == pytest.approx(np.interp(ratio, GRID, emb) + np.interp(1 - ratio, GRID, kv))
    assert now == pytest.approx(np.interp(present, GRID, emb) + np.interp(1 - present, GRID, kv))
    assert value >= now


def test_an_emb_heavy_node_is_sent_to_the_knee_of_its_curve() -> None:
    proposal = B5(RAILS).propose(observe(emb_value=rising(0.7, 300.0), kv_value=rising(0.2, 50.0)))
    assert proposal.reason == "gain"
    assert proposal.emb_ratio == pytest.approx(0.7, abs=0.8 / 128)
    assert proposal.layers["gain_ms_per_second"] > 80.0


def test_on_a_plateau_the_present_ratio_wins() -> None:
    proposal = B5(RAILS).propose(observe(emb_ratio=0.43, emb_value=rising(0.3, 100.0), kv_value=rising(0.3, 100.0)))
    assert proposal.emb_ratio == 0.43
    assert proposal.reason == "gain_small"


def test_of_two_equal_optima_the_nearer_is_taken() -> None:
    emb = rising(0.2, 100.0)  # U is flat between 0.2 and 0.7
    proposal = B5(RAILS).propose(observe(emb_ratio=0.85, emb_value=emb, kv_value=rising(0.3, 100.0)))
    assert proposal.emb_ratio == pytest.approx(0.7, abs=0.8 / 128)


def test_a_cliff_beyond_a_valley_is_found() -> None:
    emb = np.where(GRID >= 0.8, 500.0, 0.0)  # nothing until everything fits
    proposal = B5(RAILS).propose(observe(emb_ratio=0.2, emb_value=emb, kv_value=rising(1.0, 100.0)))
    assert proposal.emb_ratio == pytest.approx(0.8, abs=0.8 / 128)


def test_a_gain_of_less_than_one_percent_is_left() -> None:
    # from 0.5 to the best the gain is 0.9 or 1.2 of 100
    for slope, reason in [(9.0, "gain_small"), (12.0, "gain")]:
        emb = 50.0 + np.clip(GRID - 0.5, 0.0, 0.1) * slope
        assert B5(RAILS).propose(observe(emb_value=emb, kv_value=np.full(101, 50.0))).reason == reason


def test_a_move_whose_refill_costs_more_than_it_gains_is_not_made() -> None:
    curves = {"emb_value": rising(0.7, 140.0), "kv_value": rising(0.2, 50.0)}
    # to 0.7: gain 40 ms/s over a horizon of 120 s = 4,800 ms; 13.4 MB move, so 1.5 * 13.4e6 * xi decides
    moved_bytes = 0.2 * (64 << 20)
    even = 4800.0 / 1.5 / moved_bytes
    free = {"refill_bytes_per_second": 1e12}
    assert B5(RAILS).propose(observe(**curves, **free, interference_ms_per_byte=even * 0.97)).reason == "gain"
    assert B5(RAILS).propose(observe(**curves, **free, interference_ms_per_byte=even * 1.03)).reason == "gain_under_cost"


def test_a_refill_longer_than_the_horizon_allows_is_not_begun() -> None:
    curves = {"emb_value": rising(0.7, 140.0), "kv_value": rising(0.2, 50.0)}
    moved_bytes = 0.2 * (64 << 20)
    # gain * 120 s > 1.5 * 0.5 * gain * seconds: up to 160 s of refill
    assert B5(RAILS).propose(observe(**curves, refill_bytes_per_second=moved_bytes / 155)).reason == "gain"
    assert B5(RAILS).propose(observe(**curves, refill_bytes_per_second=moved_bytes / 165)).reason == "gain_under_cost"


def test_floors_bound_the_grid() -> None:
    rails = GuardRails(emb_ratio_min=0.3, emb_ratio_max=0.6)
    proposal = B5(rails).propose(observe(emb_value=rising(1.0, 500.0), kv_value=rising(1.0, 10.0)))
    assert proposal.emb_ratio == pytest.approx(0.6)


def test_a_present_ratio_outside_the_floors_does_not_keep_the_node_there() -> None:
    proposal = B5(GuardRails(emb_ratio_min=0.3, emb_ratio_max=0.6)).propose(
        observe(emb_ratio=0.9, emb_value=rising(1.0, 10.0), kv_value=rising(1.0, 500.0))
    )
    assert proposal.emb_ratio == pytest.approx(0.3)


def test_curves_that_are_not_numbers_propose_nothing() -> None:
    broken = np.full(101, np.nan)
    assert B5(RAILS).propose(observe(emb_value=broken)) == (0.5, "curves_not_finite", {"best": 0.5})


def test_no_value_at_all_proposes_nothing() -> None:
    nothing = np.zeros(101)
    proposal = B5(RAILS).propose(observe(emb_value=nothing, kv_value=nothing, emb_value_total=0.0, kv_value_total=0.0))
    assert (proposal.emb_ratio, proposal.reason) == (0.5, "gain_small")


def test_equal_inputs_give_equal_proposals() -> None:
    rng = np.random.default_rng(1)
    seen = [
        observe(
            now_ns=turn * 5 * SECOND, emb_ratio=0.3 + 0.01 * turn, emb_value=np.cumsum(rng.random(101)), kv_value=np.cumsum(rng.random(101))
        )
        for turn in range(20)
    ]
    first, second = B5(RAILS), B5(RAILS)
    assert [first.propose(each) for each in seen] == [second.propose(each) for each in seen]


def test_calm_traffic_has_the_full_horizon() -> None:
    changes = ChangeTimes()
    rng = np.random.default_rng(2)
    horizons = [changes.horizon_seconds(turn * 5 * SECOND, float(rng.normal(20, 2)), 0.3) for turn in range(200)]
    assert set(horizons) == {120.0}


def test_traffic_that_changes_every_minute_halves_to_a_horizon_of_half_a_minute() -> None:
    changes = ChangeTimes()
    horizon = 120.0
    for turn in range(240):
        rate = 40.0 if turn // 12 % 2 else 10.0
        horizon = changes.horizon_seconds(turn * 5 * SECOND, rate, 0.3)
    assert 25.0 <= horizon <= 40.0


def test_zero_traffic_leaves_the_horizon_alone() -> None:
    assert ChangeTimes().horizon_seconds(0, 0.0, float("nan")) == 120.0


def test_names_say_which_curves_a_variant_wants() -> None:
    variants = [B5(RAILS), B5(RAILS, unit="hits"), B5(RAILS, kv_stream="node"), B5(RAILS, unit="hits", kv_stream="node")]
    assert [variant.name for variant in variants] == ["b5", "b5-hits", "b5-node-stream", "b5-hits-node-stream"]
    assert [variant.uses_cluster_reuse for variant in variants] == [True, True, False, False]
