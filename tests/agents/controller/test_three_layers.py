import math
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.artifacts.card import Action
from agents.artifacts.policy_file import ArtefactError
from agents.controller.baselines.b5 import B5
from agents.controller.decide import DECISION, RULES, Base, decide, decide_first, new_memories
from agents.controller.features import PAPER
from agents.controller.guard import Guard, GuardInputs, rails_record, reason_names
from agents.controller.moment import fill, new_moments
from agents.controller.recovery import Phase
from agents.controller.three_layers import ThreeLayers
from agents.numerics.jit import kernel
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import GRID, observe, rising
from tests.agents.controller.policies import SEVEN, card, constant_policy, random_file, random_policy

SECOND = 1_000_000_000
RAILS = GuardRails()


@kernel
def decide_all(
    rules: np.ndarray, weights: np.ndarray, memories: np.ndarray, moments: np.ndarray, emb: np.ndarray, kv: np.ndarray, out: np.ndarray
) -> None:
    for node in range(memories.shape[0]):
        decide(rules[0], weights, memories[node], moments[node], emb[node], kv[node], out[node])


def test_between_its_turns_the_base_keeps_its_goal() -> None:
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(0.5)]))
    ratios = [method.propose(observe(now_ns=second * SECOND)).emb_ratio for second in range(1, 12)]
    assert ratios[:5] == pytest.approx([0.55] * 5)
    assert ratios == pytest.approx([0.55] * 11)  # the ratio observed is still 0.5: the same step, not one upon another


def test_a_wish_inside_the_dead_band_means_hold() -> None:
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(0.09)]))
    assert method.propose(observe()).emb_ratio == 0.5


def test_the_papers_policy_moves_by_its_increments() -> None:
    method = ThreeLayers(RAILS, name="paper", policy=constant_policy([0, 0, 0, 0, 0, 0, 1], SEVEN, PAPER))
    proposal = method.propose(observe())
    assert proposal.emb_ratio == pytest.approx(0.56)
    assert proposal.layers == {"base": pytest.approx(0.56), "residual": 0.0, "recovery": pytest.approx(0.0), "phase": 0.0, "frozen": 1.0}


def test_without_a_policy_b5_is_the_base_and_it_says_so() -> None:
    scene = observe(emb_value=rising(0.7, 300.0), kv_value=rising(0.2, 50.0))
    method = ThreeLayers(RAILS, rule=B5(RAILS))
    proposal = method.propose(scene)
    assert proposal.emb_ratio == B5(RAILS).propose(scene).emb_ratio
    assert (proposal.reason, method.base_name, method.policy_digest) == ("b5_gain", "b5", "")


def test_with_hold_as_base_the_node_goes_home() -> None:
    method = ThreeLayers(RAILS)
    assert method.base_name == "hold"
    method.propose(observe(now_ns=SECOND, emb_ratio=0.4))
    assert method.propose(observe(now_ns=2 * SECOND, emb_ratio=0.45)).emb_ratio == 0.4


def test_the_offset_is_added_to_the_goal_and_the_base_sees_the_node_without_it() -> None:
    method = ThreeLayers(RAILS, rule=B5(RAILS), recovery_on=False)
    assert method.restore_adapter(method.adapter_state() | {"offset": -0.03, "radius": 0.05, "samples": 9.0})
    scene = {"emb_value": rising(0.7, 300.0), "kv_value": rising(0.3, 300.0), "emb_ratio": 0.67}
    proposal = method.propose(observe(now_ns=SECOND, **scene))
    assert proposal.layers["residual"] == pytest.approx(-0.03)
    assert proposal.emb_ratio == pytest.approx(0.67)  # B5 sees 0.70, its optimum, and stays
    off = ThreeLayers(RAILS, rule=B5(RAILS), adapter_on=False)
    off.restore_adapter(method.adapter_state())
    assert off.propose(observe(now_ns=SECOND, **scene)).emb_ratio == pytest.approx(0.7, abs=0.01)


def test_a_policy_can_be_changed_without_missing_a_decision_and_a_bad_one_changes_nothing() -> None:
    method = ThreeLayers(RAILS, policy=constant_policy([10.0]))
    assert method.propose(observe(now_ns=SECOND)).emb_ratio == pytest.approx(0.6)
    before = method.policy_digest
    file = random_file(card())
    for weights, described in ((file.weights[:-4], file.card), (file.weights, b"{}"), (b"\x80\x04pickle", file.card)):
        with pytest.raises(ArtefactError):
            method.use_file(weights, described)
        assert method.policy_digest == before
    assert method.propose(observe(now_ns=2 * SECOND)).emb_ratio == pytest.approx(0.6)
    assert method.use_file(file.weights, file.card) == file.digest == method.policy_digest
    expected = ThreeLayers(RAILS, policy=random_policy(card())).propose(observe(now_ns=3 * SECOND)).emb_ratio
    changed = method.propose(observe(now_ns=3 * SECOND)).emb_ratio
    assert changed == pytest.approx(expected if abs(expected - 0.5) > 0.01 else 0.6, abs=1e-3)


def test_whatever_is_not_a_number_the_proposal_is_one() -> None:
    method = ThreeLayers(RAILS, policy=random_policy())
    numbers = [name for name, value in observe()._asdict().items() if isinstance(value, float) and name != "emb_ratio"]
    nothing = observe()._replace(**dict.fromkeys(numbers, math.nan))
    for turn in range(10):
        broken = nothing._replace(now_ns=(turn + 1) * 5 * SECOND, emb_value=np.full(101, np.nan), kv_value=np.full(101, np.nan))
        assert math.isfinite(method.propose(broken).emb_ratio)
    assert len(method.missing_features) > 10


def test_a_policy_anchored_in_curves_that_are_not_numbers_stays_where_it_is() -> None:
    anchored = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1, anchor="landscape")
    method = ThreeLayers(RAILS, policy=constant_policy([0.0], anchored))
    assert method.propose(observe(now_ns=SECOND, emb_value=rising(0.8, 300.0))).emb_ratio == pytest.approx(0.8, abs=0.01)
    broken = observe(now_ns=9 * SECOND, emb_ratio=0.7, emb_value=np.full(101, np.nan))
    assert method.propose(broken).emb_ratio == pytest.approx(0.8, abs=0.01)  # the goal it had


@pytest.mark.parametrize(("hold_ratio", "goal"), [(msgspec.UNSET, 0.54), (0.05, 0.5)])
def test_a_wish_nearer_than_the_policys_own_hold_changes_nothing(hold_ratio: float | msgspec.UnsetType, goal: float) -> None:
    wish = math.atanh(0.4)  # 0.04 from where the node is
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1, hold_ratio=hold_ratio)
    method = ThreeLayers(RAILS, policy=constant_policy([wish], action))
    assert method.propose(observe(now_ns=SECOND, emb_ratio=0.5)).emb_ratio == pytest.approx(goal, abs=1e-4)


@pytest.mark.parametrize(
    ("requests_per_second", "goal"), [(200.0, 0.54), (50.0, 0.54), (math.nan, 0.54), (25.0, 0.54), (20.0, 0.5), (1.0, 0.5)]
)
def test_a_wish_read_from_few_requests_must_go_further_to_be_followed(requests_per_second: float, goal: float) -> None:
    action = Action(
        kind="step", period_seconds=5.0, step_ratio_max=0.1, hold_ratio=0.027
    )  # 0.038 at half of the fifty, 0.043 at two fifths
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(0.4)], action))
    proposed = method.propose(observe(now_ns=SECOND, emb_ratio=0.5, requests_per_second_fast=requests_per_second)).emb_ratio
    assert proposed == pytest.approx(goal, abs=1e-4)


def test_a_wish_of_a_node_with_hardly_a_request_needs_twice_the_hold_and_no_more() -> None:
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1, hold_ratio=0.019)
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(0.4)], action))
    assert method.propose(observe(now_ns=SECOND, emb_ratio=0.5, requests_per_second_fast=0.1)).emb_ratio == pytest.approx(0.54, abs=1e-4)


def test_wishes_are_followed_half_way_and_forgotten_under_an_operator() -> None:
    """The network always wants 0.1 more than the node has: a first wish as it is, a later one with the one before."""
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1, follow_share=0.5)
    method = ThreeLayers(RAILS, policy=constant_policy([20.0], action))
    assert method.propose(observe(now_ns=5 * SECOND, emb_ratio=0.4)).emb_ratio == pytest.approx(0.5)
    assert method.propose(observe(now_ns=10 * SECOND, emb_ratio=0.5)).emb_ratio == pytest.approx(0.55)
    method.held = True
    assert method.propose(observe(now_ns=15 * SECOND, emb_ratio=0.3)).reason == "held_by_operator"
    method.held = False
    assert method.propose(observe(now_ns=20 * SECOND, emb_ratio=0.3)).emb_ratio == pytest.approx(0.4)


def test_for_ten_seconds_of_a_surge_the_base_is_asked_at_every_look_and_its_calm_wish_is_forgotten() -> None:
    """It wants 0.1 less than the node has, every five seconds in the calm; the node has 0.001 less at every look."""
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1, follow_share=0.5)
    method = ThreeLayers(RAILS, policy=constant_policy([-20.0], action))
    bases, found = {0: math.nan}, []
    for second in range(1, 120):
        rate = 300.0 if 60 < second <= 90 else 100.0
        scene = observe(
            now_ns=second * SECOND, emb_ratio=0.5 - 0.001 * second, requests_per_second_fast=rate, requests_per_second_slow=100.0
        )
        bases[second] = method.propose(scene).layers["base"]
        found.append(method.phase)
    asked = [second for second in range(50, 120) if bases[second] != bases[second - 1]]
    assert (found.index(Phase.SURGE) + 1, found.index(Phase.EASING) + 1) == (61, 91)
    assert asked == [51, 56, *range(61, 71), *range(75, 120, 5)]
    assert bases[61] == pytest.approx(0.5 - 0.061 - 0.1)
    assert bases[62] == pytest.approx(bases[61] - 0.0005)


def test_a_node_that_starts_cold_holds_until_its_measures_have_forgotten_the_empty_caches() -> None:
    """KV is full after half a minute; hit ratios and tails are of the last minute."""
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(-0.5)]))
    told = {second: method.propose(observe(now_ns=second * SECOND, kv_used_ratio=min(1.0, second / 30.0))) for second in range(100)}
    assert {told[second].emb_ratio for second in range(87)} == {0.5}
    assert {told[second].reason for second in range(87)} == {"caches_were_empty"}
    assert told[99].emb_ratio == pytest.approx(0.45)
    assert told[99].reason == "policy"


@pytest.mark.parametrize(("wish", "want"), [(-0.5, 0.5), (0.5, 0.55)])
def test_a_kv_that_never_fills_is_not_grown_but_rows_may_have_its_room(wish: float, want: float) -> None:
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(wish)]))
    told = [method.propose(observe(now_ns=second * SECOND, kv_used_ratio=0.6 if second else 0.0)) for second in range(0, 200, 5)]
    assert {(one.emb_ratio, one.reason) for one in told[:36]} == {(0.5, "caches_were_empty")}
    assert (told[-1].emb_ratio, told[-1].reason) == (pytest.approx(want), "kv_has_room")


def test_a_kv_that_was_grown_and_fills_again_is_no_cold_start() -> None:
    method = ThreeLayers(RAILS, policy=constant_policy([math.atanh(-0.5)]))
    assert method.propose(observe(now_ns=5 * SECOND, kv_used_ratio=0.6)).emb_ratio == pytest.approx(0.45)


def test_a_rule_is_not_held_by_empty_caches_because_it_reads_the_curves() -> None:
    scene = observe(emb_value=rising(0.7, 300.0), kv_value=rising(0.2, 50.0), kv_used_ratio=0.0)
    proposal = ThreeLayers(RAILS, rule=B5(RAILS)).propose(scene)
    assert (proposal.emb_ratio, proposal.reason) == (B5(RAILS).propose(scene).emb_ratio, "b5_gain")


def test_traffic_that_rises_while_the_caches_fill_is_no_burst() -> None:
    """A node that starts, or takes up another model, is given its traffic bit by bit; KV has room for it."""
    calm = {"requests_per_second_fast": 10.0, "requests_per_second_slow": 10.0}
    surge = {"requests_per_second_fast": 40.0, "requests_per_second_slow": 12.0, "queue_ms": 400.0, "utilisation": 1.0}
    ratios, phases = {}, {}
    for name, used in (("warm", 1.0), ("cold", 0.0)):
        method = ThreeLayers(RAILS, policy=constant_policy([0.0]))
        seconds = iter(range(1, 400))
        for second in (next(seconds) for _ in range(300)):
            method.propose(observe(now_ns=second * SECOND, emb_value=rising(1.0, 100.0), kv_value=rising(0.9, 400.0), **calm))
        for second in (next(seconds) for _ in range(10)):
            seen = observe(now_ns=second * SECOND, emb_value=rising(1.0, 100.0), kv_value=rising(0.9, 400.0), kv_used_ratio=used, **surge)
            ratios[name] = method.propose(seen).emb_ratio
        phases[name] = method.phase
    assert phases == {"warm": Phase.SURGE, "cold": Phase.CALM}
    assert ratios["warm"] < 0.5 == ratios["cold"]


def test_a_node_under_a_rule_waits_as_long_before_it_calls_a_rise_a_burst() -> None:
    method = ThreeLayers(RAILS, rule=B5(RAILS))
    phases = []
    for second in range(1, 400):
        rate = 10.0 if second % 100 < 50 else 20.0  # twice the traffic, from then on at every half
        seen = observe(now_ns=second * SECOND, requests_per_second_fast=rate, requests_per_second_slow=10.0, kv_used_ratio=0.1)
        method.propose(seen)
        phases.append(method.phase)
    assert set(phases[:180]) == {Phase.CALM}
    assert Phase.SURGE in phases[180:]


def test_equal_inputs_give_equal_decisions() -> None:
    chance = np.random.default_rng(0)
    rates = chance.uniform(5, 40, 100)
    ratios = chance.uniform(0.4, 0.6, 100)
    scenes = [
        observe(now_ns=(turn + 1) * SECOND, emb_ratio=float(ratios[turn]), requests_per_second_fast=float(rates[turn]))
        for turn in range(100)
    ]
    first, second = (ThreeLayers(RAILS, policy=random_policy()) for _ in range(2))
    assert [first.propose(scene) for scene in scenes] == [second.propose(scene) for scene in scenes]


# --- the whole decision as one kernel


def parts(nodes: int, policy: Any) -> tuple[np.ndarray, ...]:
    rules = np.zeros(1, RULES)
    rules["rails"], rules["head"], rules["base"] = rails_record(RAILS)[0], policy.head[0], Base.POLICY
    rules["adapter_on"] = rules["recovery_on"] = 1
    return rules, new_memories(nodes, 0.5), new_moments(nodes), np.zeros(nodes, DECISION)


def test_one_call_decides_as_controller_and_guard_do_one_after_the_other() -> None:
    policy, chance = random_policy(seed=4), np.random.default_rng(1)
    rules, memories, moments, decisions = parts(1, policy)
    method, guard = ThreeLayers(RAILS, policy=policy), Guard(RAILS, 0.02, 0.5)
    for turn in range(200):
        scene = observe(
            now_ns=(turn + 1) * SECOND,
            emb_ratio=float(chance.uniform(0.3, 0.7)),
            requests_per_second_fast=float(chance.uniform(5, 25)),
            utilisation=float(chance.uniform(0.2, 0.9)),
            service_ms=float(chance.uniform(10, 12)),
        )
        fill(moments, scene)
        decide_first(rules, policy.weights, memories, moments, scene.emb_value, scene.kv_value, decisions)
        limited = guard.limit(scene.now_ns, GuardInputs(method.propose(scene).emb_ratio, None, scene.emb_ratio))
        assert decisions["target"][0] == limited.target
        assert reason_names(int(decisions["guard_reasons"][0])) == limited.reasons


def test_many_nodes_in_one_kernel_decide_as_each_alone() -> None:
    policy = random_policy(seed=4)
    rules, memories, moments, decisions = parts(3, policy)
    emb, kv = np.stack([rising(knee, 100.0) for knee in (0.3, 0.5, 0.7)]), np.stack([rising(0.5, 100.0)] * 3)
    for node in range(3):
        fill(moments[node : node + 1], observe(emb_ratio=0.4 + 0.1 * node))
    decide_all(rules, policy.weights, memories, moments, emb, kv, decisions)
    for node in range(3):
        alone, one = new_memories(1, 0.5), np.zeros(1, DECISION)
        decide_first(rules, policy.weights, alone, moments[node : node + 1], emb[node], kv[node], one)
        assert decisions[node] == one[0]


def test_an_operator_is_obeyed_and_an_advisory_controller_is_not_heard() -> None:
    policy = constant_policy([10.0])
    rules, memories, moments, decisions = parts(1, policy)
    curves = rising(0.5, 100.0), rising(0.5, 100.0)
    fill(moments, observe(now_ns=SECOND))
    moments["proposing"] = 0
    decide_first(rules, policy.weights, memories, moments, *curves, decisions)
    assert (decisions["proposed"][0], decisions["target"][0]) == (pytest.approx(0.6), 0.5)
    moments["holding"], moments["held_ratio"] = 1, 0.23
    decide_first(rules, policy.weights, memories, moments, *curves, decisions)
    assert decisions["target"][0] == 0.23
    assert reason_names(int(decisions["guard_reasons"][0])) == ["held_by_operator"]


def test_the_refill_budget_bounds_growth_but_not_shrinking() -> None:
    guard = Guard(RAILS, 0.02, 0.5)
    assert guard.limit(0, GuardInputs(0.58, None, 0.5, refill_room_ratio=0.03)) == (pytest.approx(0.53), ["refill_budget"])
    assert guard.limit(10 * SECOND, GuardInputs(0.58, None, 0.5, refill_room_ratio=0.005)) == (pytest.approx(0.53), ["refill_budget"])
    assert guard.limit(20 * SECOND, GuardInputs(0.45, None, 0.5, refill_room_ratio=0.0)) == (pytest.approx(0.45), [])


def test_the_grid_of_the_tests_is_even() -> None:
    assert np.ptp(np.diff(GRID)) < 1e-12
