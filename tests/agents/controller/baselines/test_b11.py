import pytest

from agents.controller.baselines.b11 import B11
from agents.controller.interface import Proposal
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe

SECOND = 1_000_000_000


def play(method: B11, turns: range, emb_bytes: float, kv_bytes: float, rate: float = 100.0, emb_ratio: float = 0.5) -> list[Proposal]:
    return [
        method.propose(
            observe(
                now_ns=turn * 5 * SECOND,
                emb_ratio=emb_ratio,
                requests_per_second_slow=rate,
                emb_bytes_touched_per_second=emb_bytes,
                kv_bytes_touched_per_second=kv_bytes,
            )
        )
        for turn in turns
    ]


def test_after_two_thousand_requests_the_split_follows_the_bytes() -> None:
    reasons = [(proposal.reason, proposal.emb_ratio) for proposal in play(B11(GuardRails()), range(6), 3e6, 1e6)]
    assert reasons[:4] == [("too_few_requests", 0.5)] * 4
    assert reasons[4] == ("demand", 0.75)
    assert reasons[5] == ("on_the_way", 0.75)


def test_inside_the_band_of_a_quarter_nothing_moves() -> None:
    assert play(B11(GuardRails()), range(6), 5.9e6, 4.1e6)[-1] == (0.5, "in_band", {"demand": pytest.approx(0.59)})


def test_it_acts_at_most_every_two_minutes() -> None:
    method = B11(GuardRails())
    play(method, range(5), 3e6, 1e6)
    turned = play(method, range(5, 40), 1e5, 3e6, emb_ratio=0.75)
    acted = [turn for turn, proposal in enumerate(turned, start=5) if proposal.reason == "demand"]
    assert acted == [4 + 24]
    assert turned[10].reason == "too_soon"


def test_demand_is_averaged() -> None:
    method = B11(GuardRails())
    play(method, range(4), 1e6, 1e6)
    assert play(method, range(4, 5), 1e6, 0.0)[0].layers == {"demand": pytest.approx(0.55)}


def test_the_floors_bound_it_and_silence_is_no_demand() -> None:
    assert play(B11(GuardRails(emb_ratio_max=0.7)), range(5), 1e6, 1.0)[-1].emb_ratio == 0.7
    assert play(B11(GuardRails()), range(5), 0.0, 0.0)[-1] == (0.5, "too_few_requests", {})
