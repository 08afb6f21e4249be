import pytest

from agents.controller.baselines.burst import Burst
from agents.controller.baselines.static import Static
from agents.controller.interface import Observation, Proposal
from tests.agents.controller.observations import observe

SECOND = 1_000_000_000


class Counting:
    """An inner method that counts its turns."""

    name = "counting"
    period_ns = 5 * SECOND

    def __init__(self) -> None:
        self.turns = 0

    def propose(self, observation: Observation) -> Proposal:
        self.turns += 1
        return Proposal(0.7, "inner", {})


def play(method: Burst, rates: list[float], emb_ratio: float = 0.5) -> list[Proposal]:
    """One observation a second with these fast rates over a slow rate of 100."""
    return [
        method.propose(observe(now_ns=second * SECOND, emb_ratio=emb_ratio, requests_per_second_fast=rate, requests_per_second_slow=100.0))
        for second, rate in enumerate(rates)
    ]


def test_in_calm_the_inner_method_has_its_own_period_and_the_rest_is_hold() -> None:
    inner = Counting()
    proposals = play(Burst(inner), [100.0] * 11)
    assert [proposal.reason for proposal in proposals] == (["inner"] + ["between_decisions"] * 4) * 2 + ["inner"]
    assert inner.turns == 3
    assert {proposal.emb_ratio for proposal in proposals if proposal.reason == "between_decisions"} == {0.5}


def test_a_burst_freezes_the_ratio_of_its_onset_until_it_is_calm_again() -> None:
    method = Burst(Counting())
    proposals = play(method, [100.0, 100.0] + [250.0] * 12 + [120.0] + [100.0] * 3)
    assert [proposal.reason for proposal in proposals[:3]] == ["inner", "between_decisions", "burst_freeze"]
    assert all(proposal == Proposal(0.5, "burst_freeze", {"burst": 0.5}) for proposal in proposals[2:14])
    assert proposals[14].reason == "inner"
    assert not method.active


def test_a_short_burst_is_held_for_its_least_time() -> None:
    proposals = play(Burst(Counting(), seconds_min=10.0), [250.0] + [100.0] * 12)
    assert [proposal.reason for proposal in proposals].index("inner") == 10


def test_a_preset_ratio_is_proposed_during_the_burst() -> None:
    method = Burst(Counting(), preset_ratio=0.3)
    assert play(method, [100.0, 250.0])[1] == Proposal(0.3, "burst_preset", {"burst": 0.3})
    assert method.active


def test_a_burst_that_does_not_end_is_handed_back_in_time_and_not_taken_again() -> None:
    method = Burst(Counting(), seconds_max=20.0)
    reasons = [proposal.reason for proposal in play(method, [250.0] * 60)]
    assert reasons[:20] == ["burst_freeze"] * 20
    assert "burst_freeze" not in reasons[20:]


def test_after_a_timed_return_and_a_calm_the_next_burst_is_taken() -> None:
    method = Burst(Counting(), seconds_max=5.0, seconds_min=0.0)
    reasons = [proposal.reason for proposal in play(method, [250.0] * 10 + [100.0] * 5 + [250.0])]
    assert reasons[-1] == "burst_freeze"


def test_the_names_and_the_period_follow_the_inner_method() -> None:
    assert Burst(Static(0.5)).name == "static-0.50+burst"
    assert Burst(Static(0.5), 0.25).name == "static-0.50+burst-0.25"
    assert Burst(Static(0.5)).period_ns == SECOND
    assert not Burst(Static(0.5)).uses_cluster_reuse


@pytest.mark.parametrize(
    ("options", "field"), [({"preset_ratio": 1.0}, "preset_ratio"), ({"seconds_min": 9.0, "seconds_max": 1.0}, "seconds_min")]
)
def test_impossible_settings_are_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Burst(Counting(), **options)
