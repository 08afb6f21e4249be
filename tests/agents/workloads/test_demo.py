from collections import OrderedDict, defaultdict
from functools import cache
from itertools import islice

import numpy as np
import pytest

from agents.profiles import load_profile
from agents.workloads.demo import REGIMES, DemoParameters, keyframes, synthetic_workload
from agents.workloads.generators import SyntheticWorkload
from agents.workloads.regimes import Schedule
from agents.workloads.request import Request

PROFILE = load_profile("cpu-demo")
NODES = 4


@pytest.mark.parametrize("name", REGIMES)
def test_every_regime_yields_requests_the_profile_serves(name: str) -> None:
    stream = synthetic_workload(name, 1, parameters=DemoParameters.for_profile(PROFILE))
    assert stream.name == name
    for request in islice(stream.requests(), 40):
        assert 256 <= request.history_items.size <= PROFILE.model.tokens_max
        assert len(set(request.candidates.tolist())) == PROFILE.candidates
        assert max(request.candidates.max(), request.history_items.max()) < PROFILE.rows
        assert request.history_actions.max() < PROFILE.model.actions


def test_an_unknown_workload_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="steady"):
        synthetic_workload("nope", 1)


def test_the_demo_takes_about_ten_minutes_and_ends_as_it_began() -> None:
    frames = keyframes("demo", DemoParameters())
    assert 570 <= frames[-1].at_seconds <= 630
    assert frames[0].traffic == frames[-1].traffic == DemoParameters().steady


def test_the_demo_passes_through_all_its_regimes_in_order() -> None:
    p = DemoParameters()
    order = [frame.traffic for frame in keyframes("demo", p)]
    assert order.index(p.trend) < order.index(p.burst)
    assert order[order.index(p.burst) + 2] == p.steady


def test_a_burst_rises_within_seconds_to_one_and_a_half_to_twice_the_rate() -> None:
    p = DemoParameters()
    schedule = Schedule(keyframes("burst", p))
    before, after = schedule.at(p.steady_seconds), schedule.at(p.steady_seconds + p.burst_onset_seconds + 1)
    assert p.burst_onset_seconds <= 5
    assert 1.5 <= after.rate_factor / before.rate_factor <= 2.0
    assert (p.steady.hot_request_ratio, p.burst.hot_request_ratio) == (0.1, 0.3)


def test_the_trend_lengthens_histories_as_eight_to_fifteen_thousand_does() -> None:
    p = DemoParameters()
    grown = (p.trend.history_tokens_low + p.trend.history_tokens_high) / (p.steady.history_tokens_low + p.steady.history_tokens_high)
    assert grown == pytest.approx(15 / 8, abs=0.2)


def test_zero_traffic_is_a_silence_of_two_minutes() -> None:
    times = np.array([request.at_ns / 1e9 for request in synthetic_workload("zero", 1).requests()])
    assert np.diff(times).max() > 115


def test_sessions_are_users_who_come_for_several_requests_and_go() -> None:
    counts: dict[int, int] = defaultdict(int)
    for request in islice(synthetic_workload("sessions", 1).requests(), 2_000):
        counts[request.user] += 1
    assert np.mean(list(counts.values())) > 3


def test_smooth_traffic_has_power_law_users() -> None:
    users = [request.user for request in islice(synthetic_workload("smooth", 1).requests(), 2_000)]
    _, counts = np.unique(users, return_counts=True)
    weights = np.arange(1, 4_001) ** -0.8
    assert counts.max() / 2_000 == pytest.approx(weights[0] / weights.sum(), abs=0.01)


# --- the reason for all the numbers: the best split must move ------------------------------


def window(stream: SyntheticWorkload, seconds: float) -> list[Request]:
    """Requests of node 0 of four, users hashed to nodes."""
    kept = []
    for request in stream.requests():
        if request.at_ns >= seconds * 1e9:
            return kept
        if request.user % NODES == 0:
            kept.append(request)
    return kept


class Lru:
    """A cache of weighted ids, least recently used first out."""

    def __init__(self, capacity: int) -> None:
        self._room, self._held = capacity, OrderedDict[int, int]()

    def touch(self, key: int, weight: int) -> bool:
        hit = key in self._held
        self._room += self._held.pop(key, 0) - weight
        self._held[key] = weight
        while self._room < 0:
            self._room += self._held.popitem(last=False)[1]
        return hit


SAMPLE = 32  # rows looked at: one in 32; capacities scaled alike


def hit_ratios(requests: list[Request], emb_ratio: float, from_seconds: float) -> tuple[float, float, float]:
    """EMB and KV hit ratio, and the cost in ms a request, with LRU caches that the split gives their pages."""
    cost = PROFILE.cost
    rows = Lru(int(emb_ratio * PROFILE.pages * PROFILE.rows_per_page / SAMPLE))
    users = Lru(int((1 - emb_ratio) * PROFILE.pages))
    row_hits = row_touches = user_hits = count = 0
    prefill = 0.0
    for request in requests:
        hits = [rows.touch(row, 1) for row in request.candidates.tolist() if row % SAMPLE == 5]
        tokens = request.history_items.size
        hit = users.touch(request.user, -(-tokens // PROFILE.block_tokens))
        if request.at_ns < from_seconds * 1e9:
            continue
        count += 1
        row_hits, row_touches, user_hits = row_hits + sum(hits), row_touches + len(hits), user_hits + hit
        prefill += 0.0 if hit else cost.ms_per_token * tokens + cost.ms_per_token_squared * tokens**2
    emb, kv = row_hits / row_touches, user_hits / count
    missing = PROFILE.candidates + (1 - kv) * np.mean([r.history_items.size for r in requests])
    return emb, kv, float(prefill / count + (1 - emb) * missing * cost.ms_per_missing_row)


GRID = (0.30, 0.40, 0.50, 0.60, 0.70, 0.80)


@cache
def best_split(name: str, from_seconds: float, to_seconds: float) -> float:
    requests = window(synthetic_workload(name, 1), to_seconds)
    costs = {}
    for emb_ratio in GRID:
        emb, kv, ms = hit_ratios(requests, emb_ratio, from_seconds)
        costs[emb_ratio] = ms
        if emb_ratio in (0.4, 0.7):
            assert 0.2 <= emb <= 0.95 and 0.2 <= kv <= 0.95
    return min(costs, key=lambda ratio: costs[ratio])


def test_the_best_split_moves_by_more_than_a_fifth_between_steady_and_burst() -> None:
    burst = DemoParameters().steady_seconds + 20
    assert round(best_split("steady", 80, 150) - best_split("burst", burst, burst + 70), 2) >= 0.2


def test_the_best_split_moves_by_more_than_a_fifth_during_the_trend() -> None:
    p = DemoParameters()
    trend = best_split("trend", p.trend_seconds, p.trend_seconds + p.hold_seconds)
    assert round(best_split("steady", 80, 150) - trend, 2) >= 0.2
