"""The cluster's reuse statistics against a list that remembers everything."""

import math
from collections import OrderedDict

import numpy as np
import pytest

from agents.router.reuse import BINS, HALF_LIFE_SECONDS, ClusterReuseStatistics
from tests.agents.router.nodes import SECOND

WINDOW_NS = 60 * SECOND


class SlowStack:
    """An unbounded LRU stack with a doorkeeper, as an ordered dictionary: newest last."""

    def __init__(self) -> None:
        self.held: OrderedDict[int, int] = OrderedDict()
        self.seen_ns: dict[int, int] = {}

    def reference(self, now_ns: int, key: int, size: int) -> float:
        distance = math.inf
        if key in self.held:
            newer = list(self.held)[list(self.held).index(key) + 1 :]
            distance = sum(self.held[other] for other in newer) + self.held[key]
        back_soon = key in self.seen_ns and now_ns - self.seen_ns[key] <= WINDOW_NS
        self.seen_ns[key] = now_ns
        if back_soon:
            self.held.pop(key, None)
            self.held[key] = size
        return distance


def statistics(**changes: object) -> ClusterReuseStatistics:
    values: dict[str, object] = {"router_id": "r", "nodes": 4, "pool_tokens": 65_536, "block_tokens": 64, "window_ns": WINDOW_NS}
    return ClusterReuseStatistics(**(values | changes))  # type: ignore[arg-type]


def test_with_every_user_sampled_distances_are_exact() -> None:
    rng = np.random.default_rng(3)
    mine, slow = statistics(), SlowStack()
    now, reused = 0, 0
    for key in rng.zipf(1.3, 3_000) % 200 + 1:
        now += int(rng.integers(1, 40)) * 1_000_000  # all users come back within the window
        tokens = int(rng.integers(1, 12)) * 64
        got, want = mine.seen(now, int(key), tokens), slow.reference(now, int(key), tokens)
        assert got == want
        reused += math.isfinite(want)
    assert reused > 1_000


def test_a_user_enters_at_its_second_request_and_counts_at_its_third() -> None:
    mine = statistics()
    assert mine.seen(0, 1, 128) == math.inf
    assert mine.seen(SECOND, 1, 128) == math.inf
    assert mine.seen(2 * SECOND, 1, 128) == 128.0
    mine.seen(3 * SECOND, 2, 640)
    assert mine.seen(4 * SECOND, 1, 128) == 128.0  # a user seen once takes no room
    mine.seen(5 * SECOND, 2, 640)
    assert mine.seen(6 * SECOND, 1, 128) == 128.0 + 640.0


def test_a_user_that_comes_back_too_late_stays_outside() -> None:
    mine = statistics()
    mine.seen(0, 1, 128)
    assert mine.seen(61 * SECOND, 1, 128) == math.inf
    assert mine.seen(62 * SECOND, 1, 128) == math.inf
    assert mine.seen(63 * SECOND, 1, 128) == 128.0


def test_only_full_blocks_take_room() -> None:
    mine = statistics()
    for now in range(3):
        distance = mine.seen(now * SECOND, 1, 200)
    assert distance == 192.0


def test_the_message_prices_references_tokens_and_squares_by_distance() -> None:
    mine = statistics(nodes=1, pool_tokens=12_800)
    for now in range(3):
        mine.seen(now * SECOND, 1, 192)
    told = mine.message(3 * SECOND, at_unix_ns=77)
    assert (told.at_unix_ns, told.nodes, told.sampling_rate) == (77, 1, 1.0)
    assert told.edges_tokens == pytest.approx(list(np.linspace(0, 12_800, BINS + 1)))
    assert len(told.references_per_second) == len(told.tokens_per_second) == len(told.tokens_squared_per_second) == BINS + 1
    place = 1  # 192 lies in (100, 200]
    rate = told.references_per_second[place]
    assert rate > 0
    assert told.tokens_per_second[place] == pytest.approx(192 * rate)
    assert told.tokens_squared_per_second[place] == pytest.approx(192**2 * rate)
    assert told.references_per_second[-1] == pytest.approx(2 * rate, rel=0.05)  # two cold ones, a little older
    assert told.requests_per_second == pytest.approx(sum(told.references_per_second))


def test_a_steady_stream_reads_as_its_rate_and_fades_with_its_half_life() -> None:
    mine = statistics()
    for i in range(3_000):
        mine.seen(i * SECOND // 10, i % 50 + 1, 256)
    assert mine.message(300 * SECOND, 0).requests_per_second == pytest.approx(10.0, rel=0.02)
    later = mine.message((300 + int(HALF_LIFE_SECONDS)) * SECOND, 0)
    assert later.requests_per_second == pytest.approx(5.0, rel=0.05)


def test_a_sampled_stream_is_scaled_back_to_the_whole() -> None:
    mine = statistics(rate=0.25)
    for i in range(20_000):
        mine.seen(i * SECOND // 100, i % 2_000 + 1, 256)
    told = mine.message(200 * SECOND, 0)
    assert told.sampling_rate == pytest.approx(0.25)
    assert told.requests_per_second == pytest.approx(100.0, rel=0.05)
