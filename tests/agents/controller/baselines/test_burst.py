"""The burst layer around a rule: the rule decides, and in a burst EMB gets no more than the safe split."""

import pytest

from agents.controller.baselines.burst import Burst
from agents.controller.baselines.static import Static
from agents.controller.interface import Observation, Proposal
from agents.controller.recovery import Phase
from agents.controller.status import status_of
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising

SECOND = 1_000_000_000
RAILS = GuardRails()
CALM, SURGE = [200.0] * 15, [400.0] * 12  # what is calm takes ten seconds to learn


class Counting:
    """An inner method that counts its turns and always wants more EMB."""

    name = "counting"
    period_ns = 5 * SECOND

    def __init__(self) -> None:
        self.turns = 0
        self.rails = RAILS

    def propose(self, observation: Observation) -> Proposal:
        self.turns += 1
        return Proposal(0.7, "inner", {})

    def set_rails(self, rails: GuardRails) -> None:
        self.rails = rails


def play(method: Burst, rates: list[float]) -> list[Proposal]:
    """One observation a second of a node at 0.6 with these fast rates over a slow rate of 200; KV is short."""
    short = {"emb_ratio": 0.6, "emb_value": rising(0.4, 100.0), "kv_value": rising(0.8, 100.0)}
    return [
        method.propose(observe(now_ns=(second + 1) * SECOND, requests_per_second_fast=rate, requests_per_second_slow=200.0, **short))
        for second, rate in enumerate(rates)
    ]


def test_in_calm_the_inner_method_has_its_own_period_and_its_word() -> None:
    inner = Counting()
    proposals = play(Burst(inner, RAILS), [200.0] * 11)
    assert inner.turns == 3
    assert {proposal.emb_ratio for proposal in proposals} == {0.7}


def test_in_a_burst_emb_gets_no_more_than_the_safe_split() -> None:
    method = Burst(Counting(), RAILS)
    proposals = play(method, CALM + SURGE)
    assert proposals[len(CALM) - 1].emb_ratio == 0.7
    assert method.phase is Phase.SURGE
    assert proposals[-1].reason == "recovery_surge"
    assert proposals[-1].emb_ratio == pytest.approx(0.45)  # the safe split lies at 0.4, and no further than 0.15 away


def test_the_node_shows_the_phase_and_caps_its_refill() -> None:
    method = Burst(Counting(), RAILS)
    play(method, CALM + SURGE)
    status = status_of(method)
    assert (status.phase, status.refill_share, status.learned) == (Phase.SURGE, 0.25, False)


def test_a_preset_ratio_is_proposed_during_the_burst() -> None:
    proposals = play(Burst(Counting(), RAILS, preset_ratio=0.3), CALM + SURGE)
    assert (proposals[-1].emb_ratio, proposals[-1].reason) == (0.3, "recovery_preset")
    assert proposals[0].emb_ratio == 0.7


def test_the_operators_limits_reach_the_inner_method() -> None:
    inner, rails = Counting(), GuardRails(emb_ratio_min=0.2, emb_ratio_max=0.6)
    Burst(inner, RAILS).set_rails(rails)
    assert inner.rails == rails


def test_the_names_and_the_needs_follow_the_inner_method() -> None:
    assert Burst(Static(0.5), RAILS).name == "static-0.50+burst"
    assert Burst(Static(0.5), RAILS, 0.25).name == "static-0.50+burst-0.25"
    assert not Burst(Static(0.5), RAILS).uses_cluster_reuse


def test_an_impossible_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="preset_ratio"):
        Burst(Counting(), RAILS, preset_ratio=1.0)
