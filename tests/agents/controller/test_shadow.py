import pytest

from agents.controller.baselines.b5 import B5
from agents.controller.baselines.static import Static
from agents.controller.recovery import Phase
from agents.controller.shadow import WINDOWS_MAX, Shadowed
from agents.controller.status import feature_shares_of, status_of
from agents.controller.three_layers import ThreeLayers
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising
from tests.agents.controller.policies import constant_policy

SECOND = 1_000_000_000
RAILS = GuardRails()
SCENE = {"emb_value": rising(0.6, 100.0), "kv_value": rising(0.6, 100.0)}  # best between 0.4 and 0.6


def stubborn() -> Shadowed:
    """A policy that holds still, wherever it is."""
    return Shadowed(ThreeLayers(RAILS, policy=constant_policy([0.0]), adapter_on=False), B5(RAILS), RAILS)


def play(method: Shadowed, seconds: range, emb_ratio: float, **more: object) -> None:
    for second in seconds:
        method.propose(observe(now_ns=(second + 1) * SECOND, emb_ratio=emb_ratio, **SCENE, **more))


def test_the_rules_choice_is_known_beside_the_policys() -> None:
    method = stubborn()
    proposal = method.propose(observe(now_ns=SECOND, emb_ratio=0.2, **SCENE))
    assert proposal.emb_ratio == 0.2
    assert method.shadow_emb_ratio == pytest.approx(0.3)  # B5 wants the plateau, the guard lets it go a step


def test_a_policy_at_the_optimum_is_never_demoted_and_regrets_nothing() -> None:
    method = stubborn()
    play(method, range(1000), 0.5)
    assert (method.demoted, method.regret_ms) == (False, pytest.approx(0.0))


def test_regret_is_what_the_rule_would_have_saved_more() -> None:
    method = stubborn()
    play(method, range(101), 0.2)
    # at 0.2: 100 * 1/3 + 100; on the plateau's edge 0.4: 100 * 2/3 + 100; the rule needs some seconds to get there
    assert 100 * 100 / 3 * 0.85 < method.regret_ms < 100 * 100 / 3


def test_a_policy_that_loses_five_windows_in_a_row_is_demoted_and_the_rule_decides() -> None:
    method = stubborn()
    play(method, range(60 * WINDOWS_MAX), 0.2)
    assert not method.demoted
    play(method, range(60 * WINDOWS_MAX, 60 * WINDOWS_MAX + 2), 0.2)
    assert method.demoted
    proposal = method.propose(observe(now_ns=400 * SECOND, emb_ratio=0.2, **SCENE))
    assert proposal.reason == "demoted_b5_gain"
    assert proposal.emb_ratio > 0.35
    method.reinstate()
    assert method.propose(observe(now_ns=401 * SECOND, emb_ratio=0.2, **SCENE)).emb_ratio == 0.2


def test_what_it_costs_not_to_be_heard_is_not_held_against_the_policy() -> None:
    method = stubborn()
    method.follow(False)
    play(method, range(1000), 0.2)
    assert (method.demoted, method.regret_ms) == (False, 0.0)
    method.follow(True)  # from here on it is, and the rule sets out from where the node is
    play(method, range(1000, 1000 + 60 * WINDOWS_MAX - 2), 0.2)
    assert not method.demoted
    play(method, range(1000 + 60 * WINDOWS_MAX - 2, 1000 + 60 * WINDOWS_MAX + 2), 0.2)
    assert method.demoted


def test_after_a_demotion_the_rule_decides_in_the_burst_layer_and_the_policy_is_not_spoken_of() -> None:
    method = stubborn()
    method.demote()
    play(method, range(60), 0.5)
    calm = status_of(method)
    assert (calm.demoted, calm.phase, calm.refill_share, calm.missing_features, calm.shadow_emb_ratio) == (True, Phase.CALM, 1.0, (), None)
    assert feature_shares_of(method) == {}
    play(method, range(60, 70), 0.5, requests_per_second_fast=60.0)
    assert status_of(method).phase is Phase.SURGE
    assert status_of(method).refill_share < 1.0


def test_a_good_window_in_between_forgives() -> None:
    method = stubborn()
    for block in range(6):
        play(method, range(block * 240, block * 240 + 180), 0.2)
        play(method, range(block * 240 + 180, block * 240 + 240), 0.5)
    assert not method.demoted


def test_insurance_bought_in_a_surge_is_not_held_against_the_policy() -> None:
    method = stubborn()
    play(method, range(60), 0.5)
    play(method, range(60, 230), 0.2, requests_per_second_fast=60.0)
    assert method.inner.phase.name == "SURGE"
    assert method.regret_ms == pytest.approx(0.0, abs=100.0)


def test_insurance_is_allowed_while_latencies_are_far_under_the_slo_but_not_at_any_price() -> None:
    cheap, dear = stubborn(), stubborn()
    play(cheap, range(1000), 0.35, latency_ms_p99=50.0)  # 8 of 167 ms a second are lost
    play(dear, range(1000), 0.2, latency_ms_p99=50.0)  # 33 are
    assert (cheap.demoted, dear.demoted) == (False, True)


def test_a_shadow_needs_no_policy_to_compare_with() -> None:
    method = Shadowed(ThreeLayers(RAILS, rule=B5(RAILS)), Static(0.3), RAILS)
    assert method.propose(observe(now_ns=SECOND)).emb_ratio == 0.5
