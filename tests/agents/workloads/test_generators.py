import math
from collections import defaultdict
from itertools import islice, pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics.prefix import window_start
from agents.workloads.generators import (
    MixedArrivals,
    Population,
    Purpose,
    Stream,
    SyntheticWorkload,
    UserLog,
    VisitLaw,
    draw_actions,
    stream_of,
)
from agents.workloads.popularity import TwoLevelRows
from agents.workloads.regimes import Keyframe, Schedule, Traffic
from agents.workloads.request import Request

SMALL = Population(users=50, rows=2_000, candidates=20, tokens_max=64, actions=4)
CALM = Traffic(hot_users=5.0, hot_rows=200.0, history_tokens_low=24.0, history_tokens_high=48.0, events_per_request=3.0)


def schedule(*frames: tuple[float, Traffic]) -> Schedule:
    return Schedule([Keyframe(at, traffic) for at, traffic in frames])


def workload(seed: int = 1, traffic: Traffic = CALM, seconds: float = 60.0, rate: float = 20.0, loop: bool = False) -> SyntheticWorkload:
    stream = Stream(population=SMALL, visits=VisitLaw(), schedule=schedule((0.0, traffic), (seconds, traffic)))
    return SyntheticWorkload("test", stream, TwoLevelRows(SMALL.rows, stream_of(seed, Purpose.ROW_ORDER)), rate, seed, loop)


def as_bytes(request: Request) -> bytes:
    return b"".join([request.at_ns.to_bytes(8), request.user.to_bytes(8), *(array.tobytes() for array in request[2:])])


def test_the_same_seed_gives_the_same_requests_byte_for_byte() -> None:
    first = [as_bytes(request) for request in workload(3).requests()]
    assert len(first) > 900
    assert first == [as_bytes(request) for request in workload(3).requests()]


def test_a_workload_can_be_played_twice() -> None:
    stream = workload(3)
    assert [as_bytes(r) for r in islice(stream.requests(), 50)] == [as_bytes(r) for r in islice(stream.requests(), 50)]


def test_another_seed_gives_other_requests() -> None:
    assert [as_bytes(r) for r in islice(workload(3).requests(), 20)] != [as_bytes(r) for r in islice(workload(4).requests(), 20)]


def test_requests_come_in_order_within_the_duration_and_at_the_asked_rate() -> None:
    times = [request.at_ns for request in workload(rate=20.0).requests()]
    assert all(a <= b for a, b in pairwise(times))
    assert times[0] >= 0 and times[-1] < 60e9
    assert len(times) == pytest.approx(1_200, abs=250)  # visits come in clumps, so wider than Poisson


def test_every_request_is_one_a_node_accepts() -> None:
    for request in workload().requests():
        n = request.history_items.shape[0]
        assert 24 * 3 // 4 <= n <= 48
        assert request.history_actions.shape == request.history_ts.shape == (n,)
        assert len(set(request.candidates.tolist())) == SMALL.candidates
        for rows in (request.history_items, request.candidates):
            assert rows.dtype == np.int64 and rows.min() >= 0 and rows.max() < SMALL.rows
        assert request.history_actions.min() >= 0 and request.history_actions.max() < SMALL.actions
        assert (np.diff(request.history_ts) >= 0).all()


def test_a_users_requests_share_a_real_prefix_inside_a_visit() -> None:
    """The later history is the earlier one, less some quarter steps at its beginning, plus new events at its end."""
    last: dict[int, Request] = {}
    shared = slid = 0
    for request in workload(seconds=120.0).requests():
        before = last.get(request.user)
        last[request.user] = request
        if before is None or request.at_ns - before.at_ns > 30e9:
            continue
        starts = np.flatnonzero((before.history_ts == request.history_ts[0]) & (before.history_items == request.history_items[0]))
        assert starts.size
        kept = before.history_items[starts[0] :]
        assert np.array_equal(request.history_items[: kept.size], kept)
        assert np.array_equal(request.history_ts[: kept.size], before.history_ts[starts[0] :])
        shared += 1
        slid += starts[0] > 0
    assert shared > 1_000
    assert 0 < slid < shared / 2


def test_new_events_are_candidates_the_user_was_shown() -> None:
    last: dict[int, Request] = {}
    for request in workload().requests():
        before = last.get(request.user)
        last[request.user] = request
        if before is None:
            continue
        fresh = request.history_items[request.history_ts > before.history_ts[-1]]
        assert np.array_equal(fresh, before.candidates[: fresh.size])


def test_hot_users_send_their_share_of_the_requests() -> None:
    visits = VisitLaw()
    arrivals = MixedArrivals(SMALL, visits, schedule((0.0, CALM), (1_000.0, CALM)), 20.0, seed=2)
    hot = set(stream_of(2, Purpose.USER_ORDER).permutation(SMALL.users)[:5].tolist())
    users = [arrival.user for arrival in islice(arrivals.arrivals(), 20_000)]
    # five hot users send a tenth, and a tenth of the regular users' visits happen to be theirs as well
    assert sum(user in hot for user in users) / len(users) == pytest.approx(0.1 + 0.9 * 0.1, abs=0.03)


def test_the_stream_begins_stationary() -> None:
    traffic = msgspec.structs.replace(CALM, hot_request_ratio=0.0)
    firsts = [
        sum(1 for _ in iter_until(MixedArrivals(SMALL, VisitLaw(), schedule((0.0, traffic), (60.0, traffic)), 20.0, seed), 10.0))
        for seed in range(30)
    ]
    assert np.mean(firsts) == pytest.approx(200.0, rel=0.12)


def iter_until(arrivals: MixedArrivals, seconds: float) -> list[float]:
    times = []
    for arrival in arrivals.arrivals():
        if arrival.at_seconds >= seconds:
            return times
        times.append(arrival.at_seconds)
    return times


def test_cold_users_never_return() -> None:
    flood = msgspec.structs.replace(CALM, cold_request_ratio=0.5)
    users = [request.user for request in workload(traffic=flood).requests()]
    cold = [user for user in users if user >= SMALL.users]
    assert len(cold) == len(set(cold))
    assert len(cold) / len(users) == pytest.approx(0.5, abs=0.08)


def test_silence_sends_nothing_and_traffic_returns_after_it() -> None:
    silent = msgspec.structs.replace(CALM, rate_factor=0.0)
    frames = schedule((0.0, CALM), (20.0, CALM), (20.1, silent), (60.0, silent), (60.1, CALM), (80.0, CALM))
    stream = Stream(population=SMALL, visits=VisitLaw(), schedule=frames)
    rows = TwoLevelRows(SMALL.rows, stream_of(1, Purpose.ROW_ORDER))
    times = [request.at_ns / 1e9 for request in SyntheticWorkload("zero", stream, rows, 20.0, 1).requests()]
    assert not [at for at in times if 20.1 < at < 60.0]
    assert [at for at in times if at >= 60.0] and [at for at in times if at < 20.0]


def test_a_loop_goes_on_with_the_same_users_and_their_grown_histories() -> None:
    looping = workload(seconds=5.0, loop=True)
    assert math.isinf(looping.duration_seconds)
    requests = list(islice(looping.requests(), 400))
    assert requests[-1].at_ns > 10e9
    newest: dict[int, int] = defaultdict(int)
    for request in requests:
        assert request.history_ts[-1] >= newest[request.user]
        newest[request.user] = int(request.history_ts[-1])


def test_the_trend_to_longer_histories_reaches_users_who_come_back() -> None:
    long = msgspec.structs.replace(CALM, history_tokens_low=56.0, history_tokens_high=64.0)
    stream = Stream(population=SMALL, visits=VisitLaw(), schedule=schedule((0.0, CALM), (120.0, long), (180.0, long)))
    rows = TwoLevelRows(SMALL.rows, stream_of(1, Purpose.ROW_ORDER))
    requests = list(SyntheticWorkload("trend", stream, rows, 20.0, 1).requests())
    early = np.mean([r.history_items.size for r in requests if r.at_ns < 20e9])
    late = np.mean([r.history_items.size for r in requests if r.at_ns > 150e9])
    assert early < 35 and late > 48


def test_gaps_inside_a_visit_are_compressed_and_capped() -> None:
    law, chance = VisitLaw(compression=48.0), np.random.default_rng(1)
    gaps = np.array([law.gap(chance) for _ in range(20_000)])
    assert gaps.max() == pytest.approx(1_800.0 / 48.0)
    assert np.median(gaps) == pytest.approx(math.exp(4.26) / 48.0, rel=0.05)


def test_actions_halve_in_frequency_and_stay_in_range() -> None:
    counts = np.bincount(draw_actions(np.random.default_rng(1), 80_000, 4), minlength=4) / 80_000
    assert counts == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.01)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_per_second"):
        workload(rate=rate)


def test_an_impossible_population_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="users"):
        Population(users=0, rows=100, candidates=10, tokens_max=8, actions=2)
    with pytest.raises(ValueError, match="rows"):
        Population(users=1, rows=10, candidates=10, tokens_max=8, actions=2)


class SlowLog:
    """The user log as one growing list."""

    def __init__(self, items: list[int], total: int) -> None:
        self.items = [-1] * (total - len(items)) + items
        self.start = -1

    def window(self, tokens_max: int, fresh: bool, first: int) -> list[int]:
        total = len(self.items)
        self.start = max(first, window_start(total, tokens_max)) if fresh or self.start < 0 else self.start
        while total - self.start > tokens_max:
            self.start += max(1, tokens_max // 4)
        return self.items[self.start :]


@settings(max_examples=60)
@given(
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(8, 32)), max_size=40),
)
def test_a_users_log_is_the_tail_of_a_growing_list(extra: int, steps: list[tuple[int, bool, int]]) -> None:
    past = np.arange(32, dtype=np.int64)
    log = UserLog(past, past % 4, past + 1_000, 32 + extra)
    slow = SlowLog(past.tolist(), 32 + extra)
    value = 100
    for count, fresh, tokens_max in steps:
        fresh_items = np.arange(value, value + count, dtype=np.int64)
        value += count
        log.append(fresh_items, fresh_items % 4, fresh_items + 2_000)
        slow.items += fresh_items.tolist()
        items, actions, timestamps = log.window(tokens_max, fresh)
        assert items.tolist() == slow.window(tokens_max, fresh, extra)
        assert log.total == len(slow.items)
        assert actions.tolist() == (items % 4).tolist()
        assert (np.diff(timestamps) >= 0).all()
