import math

import numpy as np
import pytest

from agents.controller.recovery import SAFE_DISTANCE_MAX, Phase, safe_split
from agents.controller.three_layers import ThreeLayers
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising

SECOND = 1_000_000_000
RAILS = GuardRails()


def layers(**options: bool) -> ThreeLayers:
    return ThreeLayers(RAILS, adapter_on=False, **options)


def arrivals(rates: np.ndarray, seed: int, every_seconds: int = 1) -> list[tuple[int, float, float]]:
    """(second, fast, slow): Poisson arrivals at these rates per second through the node's own decaying rates."""
    chance, keep_fast, keep_slow = np.random.default_rng(seed), 0.5, 0.5 ** (1 / 60)
    fast = slow = float(rates[0])
    seen = []
    for second, rate in enumerate(rates):
        count = float(chance.poisson(rate))
        fast, slow = keep_fast * fast + (1 - keep_fast) * count, keep_slow * slow + (1 - keep_slow) * count
        if second % every_seconds == 0:
            seen.append((second, fast, slow))
    return seen


def phases(seen: list[tuple[int, float, float]], **more: float) -> list[Phase]:
    method, found = layers(), []
    for second, fast, slow in seen:
        moment = observe(now_ns=(second + 1) * SECOND, requests_per_second_fast=fast, requests_per_second_slow=slow, **more)
        method.propose(moment)
        found.append(method.phase)
    return found


def onsets(found: list[Phase]) -> list[int]:
    return [turn for turn in range(1, len(found)) if found[turn] is Phase.SURGE and found[turn - 1] is not Phase.SURGE]


@pytest.mark.parametrize("rate", [20.0, 200.0])
@pytest.mark.parametrize("every_seconds", [1, 5])
def test_an_hour_of_steady_arrivals_raises_at_most_one_alarm(rate: float, every_seconds: int) -> None:
    for seed in range(3):
        assert len(onsets(phases(arrivals(np.full(3600, rate), seed, every_seconds)))) <= 1


def test_an_hour_of_slowly_changing_arrivals_raises_at_most_one_alarm() -> None:
    rates = 200.0 * (1.0 + 0.3 * np.sin(np.arange(3600) / 600.0 * 2.0 * math.pi))
    for seed in range(3):
        assert len(onsets(phases(arrivals(rates, seed)))) <= 1


@pytest.mark.parametrize(
    ("rise", "rate", "every_seconds"), [(1.5, 200.0, 1), (2.0, 200.0, 1), (2.0, 60.0, 1), (1.5, 200.0, 5), (2.0, 60.0, 5)]
)
def test_a_burst_is_seen_within_two_decisions(rise: float, rate: float, every_seconds: int) -> None:
    for seed in range(5):
        rates = np.concatenate([np.full(300, rate), np.full(60, rise * rate)])
        first = onsets(phases(arrivals(rates, seed, every_seconds)))[0]
        # the burst begins with second 300; a decision every second has two to see it, and the rate's own second
        assert 300 // every_seconds <= first <= 300 // every_seconds + 2


def test_traffic_that_begins_is_no_burst() -> None:
    """At first, and after a silence: both decaying rates rise from nothing, the fast one first."""
    for seed in range(5):
        rates = np.concatenate([np.zeros(30), np.full(120, 200.0), np.zeros(120), np.full(120, 200.0)])
        assert onsets(phases(arrivals(rates, seed))) == []


def test_clients_that_connect_within_four_seconds_are_no_burst() -> None:
    for seed in range(5):
        rates = np.concatenate([np.full(4, 100.0), np.full(120, 200.0)])
        assert onsets(phases(arrivals(rates, seed))) == []


def test_the_second_of_two_bursts_is_seen_as_soon_as_the_first() -> None:
    """Two minutes apart, as the slow rate still remembers the first one."""
    decay = np.linspace(320.0, 200.0, 40)
    for seed in range(5):
        rates = np.concatenate([np.full(75, 200.0), np.full(36, 320.0), decay, np.full(44, 200.0), np.full(36, 320.0), decay])
        first, *again = onsets(phases(arrivals(rates, seed)))
        assert 75 <= first <= 78
        assert [turn for turn in again if 195 <= turn <= 198]


def test_each_phase_is_visible_and_the_node_is_handed_back() -> None:
    rates = np.concatenate([np.full(100, 200.0), np.full(30, 400.0), np.full(60, 200.0)])
    found = phases(arrivals(rates, 1))
    surge = [turn for turn, phase in enumerate(found) if phase is Phase.SURGE]
    easing = [turn for turn, phase in enumerate(found) if phase is Phase.EASING]
    assert surge == list(range(surge[0], surge[-1] + 1))
    assert 130 <= easing[0] <= 136
    assert len(easing) == 20
    assert found[-1] is Phase.CALM


def test_a_burst_that_lasts_is_handed_back_after_three_minutes_and_becomes_the_new_calm() -> None:
    rates = np.concatenate([np.full(100, 200.0), np.full(600, 400.0)])
    found = phases(arrivals(rates, 2))
    assert found.count(Phase.SURGE) in range(175, 182)
    assert onsets(found)[1:] == []


def test_refill_is_capped_while_it_lasts() -> None:
    method = layers()
    shares = []
    for second, fast, slow in arrivals(np.concatenate([np.full(60, 200.0), np.full(20, 400.0), np.full(60, 200.0)]), 3):
        method.propose(observe(now_ns=(second + 1) * SECOND, requests_per_second_fast=fast, requests_per_second_slow=slow))
        shares.append((method.phase, method.refill_share))
    assert set(shares) == {(Phase.CALM, 1.0), (Phase.SURGE, 0.25), (Phase.EASING, 0.5)}


def test_latency_far_above_its_band_and_the_slo_is_a_burst_too() -> None:
    def p99(turn: int) -> float:
        return 60.0 + turn % 3 if turn < 60 else 200.0

    method, found = layers(), []
    for turn in range(70):
        method.propose(observe(now_ns=(turn + 1) * SECOND, latency_ms_p99=p99(turn), slo_ms=120.0))
        found.append(method.phase)
    assert onsets(found) == [61]  # the second time in a row


def test_a_latency_that_stays_high_is_handed_back_and_becomes_the_new_calm() -> None:
    method, found = layers(), []
    for turn in range(700):
        method.propose(observe(now_ns=(turn + 1) * SECOND, latency_ms_p99=60.0 if turn < 60 else 200.0, slo_ms=120.0))
        found.append(method.phase)
    assert onsets(found) == [61]
    assert found.count(Phase.SURGE) == 180
    assert found[-1] is Phase.CALM


def test_a_latency_that_creeps_up_or_stays_within_the_slo_is_none() -> None:
    creeping = [60.0 * 1.004**turn for turn in range(300)]  # doubles in three minutes
    within = [40.0] * 60 + [100.0] * 60
    for series in (creeping, within):
        method, found = layers(), []
        for turn, p99 in enumerate(series):
            method.propose(observe(now_ns=(turn + 1) * SECOND, latency_ms_p99=p99, slo_ms=120.0))
            found.append(method.phase)
        assert set(found) == {Phase.CALM}


def test_in_a_surge_the_safe_split_is_proposed_whatever_the_base_wants() -> None:
    emb, kv = rising(0.8, 100.0), rising(0.8, 100.0)
    method = layers()
    for turn in range(30):
        method.propose(observe(now_ns=(turn + 1) * SECOND, emb_ratio=0.7, emb_value=emb, kv_value=kv))
    for turn in range(30, 34):
        proposal = method.propose(
            observe(now_ns=(turn + 1) * SECOND, emb_ratio=0.7, emb_value=emb, kv_value=kv, requests_per_second_fast=40.0)
        )
    assert proposal.reason == "recovery_surge"
    assert safe_split(emb, kv, 0.1, 0.9, 0.7, 1.5) < 0.7 - SAFE_DISTANCE_MAX
    assert proposal.emb_ratio == pytest.approx(0.7 - SAFE_DISTANCE_MAX)  # for the alarm may be false
    assert proposal.layers["recovery"] == pytest.approx(proposal.emb_ratio - 0.7)


def test_the_safe_split_is_best_in_its_worse_case() -> None:
    emb, kv = rising(0.7, 100.0), rising(0.7, 100.0)

    def worst(ratio: float) -> float:
        calm = [float(np.interp(at, np.linspace(0, 1, 101), emb) + np.interp(1 - at, np.linspace(0, 1, 101), kv)) for at in (ratio, *GRID)]
        surge = [
            float(np.interp(at, np.linspace(0, 1, 101), emb) + 2 * np.interp(1 - at, np.linspace(0, 1, 101), kv)) for at in (ratio, *GRID)
        ]
        return min(calm[0] / max(calm), surge[0] / max(surge))

    chosen = safe_split(emb, kv, 0.1, 0.9, 0.5, 2.0)
    assert worst(chosen) == pytest.approx(max(worst(ratio) for ratio in GRID))
    assert chosen < 0.5


GRID = [0.1 + 0.8 * point / 32 for point in range(33)]


def test_where_nothing_is_known_the_safe_split_is_the_present_one() -> None:
    assert safe_split(np.zeros(5), np.zeros(5), 0.1, 0.9, 0.37, 2.0) == 0.37
    assert safe_split(np.full(5, np.nan), np.zeros(5), 0.1, 0.9, 0.37, 2.0) == 0.37


def test_switched_off_it_never_takes_over() -> None:
    method = layers(recovery_on=False)
    for second, fast, slow in arrivals(np.concatenate([np.full(60, 200.0), np.full(30, 600.0)]), 3):
        method.propose(observe(now_ns=(second + 1) * SECOND, requests_per_second_fast=fast, requests_per_second_slow=slow))
        assert method.phase is Phase.CALM


def test_rates_that_are_not_numbers_alarm_nobody() -> None:
    nan = float("nan")
    assert set(phases([(turn, nan, nan) for turn in range(50)])) == {Phase.CALM}
