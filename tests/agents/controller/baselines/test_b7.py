import math

import numpy as np
import pytest

from agents.controller.baselines.b7 import B7, Holt
from agents.controller.guard import Guard, GuardInputs
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import GRID, observe, rising

SECOND = 1_000_000_000
RAILS = GuardRails()
FAST = {"refill_bytes_per_second": 1e9, "emb_hit_ratio": 0.5, "kv_hit_ratio": 0.5, "kv_bytes_touched_per_second": 1e9}


def drive(method: B7, seconds: int, start: float = 0.5, **curves: object) -> list[float]:
    """The node's loop in small: decide every 5 s, walk at the actuator's rate."""
    guard, ratio, ratios = Guard(RAILS, 0.02, start), start, []
    for second in range(seconds):
        now_ns = second * SECOND
        if second % 5 == 0:
            proposal = method.propose(observe(now_ns=now_ns, emb_ratio=ratio, **FAST, **curves))
            guard.limit(now_ns, GuardInputs(proposal.emb_ratio, None, ratio))
        ratio = guard.step(now_ns)
        ratios.append(ratio)
    return ratios


@pytest.mark.parametrize(("emb_knee", "kv_knee", "best"), [(0.7, 0.3, 0.7), (0.3, 0.7, 0.3), (0.62, 0.38, 0.62)])
def test_a_known_optimum_is_reached_and_kept(emb_knee: float, kv_knee: float, best: float) -> None:
    ratios = drive(B7(RAILS), 120, emb_value=rising(emb_knee, 300.0), kv_value=rising(kv_knee, 300.0))
    assert ratios[-1] == pytest.approx(best, abs=0.02)
    assert ratios[-1] == ratios[-30]


def test_on_a_plateau_it_holds() -> None:
    proposal = B7(RAILS).propose(observe(emb_ratio=0.43, emb_value=rising(0.3, 100.0), kv_value=rising(0.3, 100.0)))
    assert (proposal.emb_ratio, proposal.reason) == (0.43, "gain_small")


def test_a_growth_that_cannot_be_filled_in_time_is_not_begun_and_one_that_can_is() -> None:
    curves = {"emb_value": rising(0.7, 140.0), "kv_value": rising(0.52, 90.0)}
    nothing = {"emb_hit_ratio": 1.0, "kv_hit_ratio": 0.5, "kv_bytes_touched_per_second": 1e9}
    dear = observe(**curves, **nothing, refill_bytes_per_second=1e6, interference_ms_per_byte=1e-2)
    free = observe(**curves, **nothing, refill_bytes_per_second=1e9, interference_ms_per_byte=0.0)
    assert B7(RAILS).propose(free).emb_ratio > 0.5
    assert B7(RAILS).propose(dear).emb_ratio <= 0.5


def test_rising_demand_for_kv_is_anticipated() -> None:
    # today both sides are worth the same; KV's offered value has doubled within a minute
    still, growing = B7(RAILS), B7(RAILS)
    for turn in range(13):
        kv_total = 100.0 * (1.0 + turn / 12)
        scene = {"emb_value": rising(1.0, 200.0), "now_ns": turn * 5 * SECOND, "emb_value_total": 200.0, "slo_ms": 1e6, **FAST}
        last_still = still.propose(observe(**scene, kv_value=rising(1.0, 200.0), kv_value_total=200.0))
        last_growing = growing.propose(observe(**scene, kv_value=rising(1.0, kv_total), kv_value_total=kv_total))
    assert last_still.emb_ratio == 0.5
    assert last_growing.emb_ratio < 0.5


def test_the_proposal_is_what_the_actuator_can_reach_before_the_next_decision() -> None:
    proposal = B7(RAILS).propose(observe(**FAST, emb_value=rising(0.9, 900.0), kv_value=rising(0.1, 10.0)))
    assert proposal.emb_ratio == pytest.approx(0.5 + 3 * 0.04)
    assert proposal.reason == "plan"


def test_a_present_ratio_outside_the_floors_is_led_back_inside() -> None:
    rails = GuardRails(emb_ratio_min=0.3, emb_ratio_max=0.6)
    proposal = B7(rails).propose(observe(**FAST, emb_ratio=0.9, emb_value=rising(0.3, 10.0), kv_value=rising(0.7, 500.0)))
    assert 0.3 <= proposal.emb_ratio <= 0.6


def test_curves_that_are_not_numbers_propose_nothing() -> None:
    assert B7(RAILS).propose(observe(emb_value=np.full(101, np.nan))) == (0.5, "curves_not_finite", {})


def test_no_value_at_all_proposes_nothing() -> None:
    nothing = np.zeros(101)
    proposal = B7(RAILS).propose(observe(emb_value=nothing, kv_value=nothing, emb_value_total=0.0, kv_value_total=0.0))
    assert (proposal.emb_ratio, proposal.reason) == (0.5, "gain_small")


def test_equal_inputs_give_equal_proposals() -> None:
    rng = np.random.default_rng(1)
    seen = [
        observe(now_ns=turn * 5 * SECOND, emb_value=np.cumsum(rng.random(GRID.shape[0])), kv_value=np.cumsum(rng.random(GRID.shape[0])))
        for turn in range(10)
    ]
    first, second = B7(RAILS), B7(RAILS)
    assert [first.propose(each) for each in seen] == [second.propose(each) for each in seen]


def test_holt_follows_a_line_and_never_goes_below_nothing() -> None:
    holt = Holt()
    assert math.isnan(holt.ahead(5.0))
    for turn in range(200):
        holt.add(turn * 5 * SECOND, 10.0 + 2.0 * turn)
    assert holt.ahead(0.0) == pytest.approx(10.0 + 2.0 * 199, rel=0.02)
    assert holt.ahead(50.0) - holt.ahead(0.0) == pytest.approx(20.0, rel=0.05)
    holt.add(201 * 5 * SECOND, math.nan)
    for turn in range(202, 230):
        holt.add(turn * 5 * SECOND, 0.0)
    assert holt.ahead(600.0) == 0.0


def test_holt_takes_one_sample_per_bucket() -> None:
    holt = Holt()
    holt.add(0, 10.0)
    holt.add(1 * SECOND, 1000.0)
    assert holt.ahead(0.0) == 10.0
    holt.add(5 * SECOND, 20.0)
    assert holt.ahead(0.0) == pytest.approx(13.0)
