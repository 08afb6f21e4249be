"""Where KV reuse is measured decides where B5 goes.

A small fleet with plain LRU caches: the router sends a user to the node that holds their prefix and scatters
everybody else. A node that has shrunk its KV therefore stops seeing the users it no longer holds: they return
elsewhere, and its own stream says that more KV would be worth little. The cluster's stream, divided
by the number of nodes, does not depend on who holds what.

A flood of users who never return, over a wide set of rows, rightly drives the fleet towards EMB. Then
ordinary traffic comes back, and only one of the two measurements finds the way back.
"""

from collections import OrderedDict
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from agents.controller.baselines.b5 import B5
from agents.controller.guard import Guard, GuardInputs
from agents.numerics.cost import node_share_of_cluster_value
from agents.numerics.reuse import record_rows, record_user
from agents.numerics.reuse_curve import Pace, curve, edges
from agents.numerics.reuse_state import new_reuse
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe

NODES = 4
POOL_ROWS = 4000  # a node's pool, in embedding rows
USER_ROWS = 20  # size of a user's prefix, in the same unit
ROW_MS = 0.1  # what a missing row costs
RECOMPUTE_MS = 6.0  # what a missing prefix costs, beside the rows of its history
HISTORY_ROWS = 10
HISTORY_MISS_RATIO = 0.5  # of a user who is not in KV
CANDIDATE_ROWS = 15
REQUESTS_PER_SECOND = 40
SECOND = 1_000_000_000
RAILS = GuardRails()
CAPACITY_RATIOS = np.linspace(0.0, 1.0, 129)


class Traffic(NamedTuple):
    """Two classes of users and of rows."""

    seconds: int
    hot_user_share: float
    hot_rows: int


HOT_USERS = 400
FLOOD = Traffic(seconds=100, hot_user_share=0.0, hot_rows=3000)
ORDINARY = Traffic(seconds=300, hot_user_share=0.85, hot_rows=2400)


class Request(NamedTuple):
    at_ns: int
    user: int
    rows_on_hit: np.ndarray  # candidates
    rows_on_miss: np.ndarray  # and the history's


@cache
def requests() -> list[Request]:
    """The flood, then ordinary traffic; one seed, one stream."""
    rng = np.random.default_rng(11)
    stream: list[Request] = []
    once = HOT_USERS
    for traffic in (FLOOD, ORDINARY):
        for _ in range(traffic.seconds * REQUESTS_PER_SECOND):
            once += 1
            user = int(rng.integers(HOT_USERS)) if rng.random() < traffic.hot_user_share else once
            hot = rng.random(CANDIDATE_ROWS) < 0.8
            rows = np.where(hot, rng.integers(0, traffic.hot_rows, CANDIDATE_ROWS), rng.integers(10_000, 500_000, CANDIDATE_ROWS))
            with_history = np.unique(np.concatenate([rows, rng.integers(0, traffic.hot_rows, HISTORY_ROWS)]))
            stream.append(Request(len(stream) * SECOND // REQUESTS_PER_SECOND, user, np.unique(rows), with_history))
    return stream


class Lru:
    """Keys of one size, oldest first."""

    def __init__(self) -> None:
        self.keys: OrderedDict[int, None] = OrderedDict()

    def touch(self, key: int, capacity: int) -> bool:
        if key in self.keys:
            self.keys.move_to_end(key)
            return True
        self.keys[key] = None
        while len(self.keys) > capacity:
            self.keys.popitem(last=False)
        return False


class TrapNode:
    """Two LRU caches of one pool, and both measurements of reuse."""

    def __init__(self) -> None:
        self.rows, self.users = Lru(), Lru()
        self.row_reuse = new_reuse(POOL_ROWS, keys_max=1 << 15)
        self.own_user_reuse = new_reuse(POOL_ROWS, keys_max=1 << 13)

    def serve(self, request: Request, emb_ratio: float, watched: bool) -> float:
        """Service milliseconds of the request at this ratio."""
        prefix_hit = self.users.touch(request.user, int((1 - emb_ratio) * POOL_ROWS / USER_ROWS))
        rows = request.rows_on_hit if prefix_hit else request.rows_on_miss
        missing = sum(not self.rows.touch(row, int(emb_ratio * POOL_ROWS)) for row in rows.tolist())
        if watched:
            record_user(self.own_user_reuse, request.at_ns, np.uint64(request.user), USER_ROWS)
            record_rows(self.row_reuse, request.at_ns, rows, 1)
        return ROW_MS * missing + (0.0 if prefix_hit else RECOMPUTE_MS)


class Fleet:
    """Residency routing over equal nodes, and the router's own measurement of the whole stream."""

    def __init__(self, watched: bool) -> None:
        self.nodes = [TrapNode() for _ in range(NODES)]
        self.user_reuse = new_reuse(POOL_ROWS * NODES, keys_max=1 << 14)
        self._scatter = np.random.default_rng(5)
        self._watched = watched

    def serve(self, request: Request, emb_ratios: list[float]) -> float:
        holders = [place for place, node in enumerate(self.nodes) if request.user in node.users.keys]
        place = holders[0] if holders else int(self._scatter.integers(NODES))
        if self._watched:
            record_user(self.user_reuse, request.at_ns, np.uint64(request.user), USER_ROWS)
        return self.nodes[place].serve(request, emb_ratios[place], self._watched)


@cache
def static_ms(emb_ratio: float) -> float:
    """Mean service in the second half of ordinary traffic at a fixed ratio: brute force."""
    fleet, ordinary = Fleet(watched=False), requests()[FLOOD.seconds * REQUESTS_PER_SECOND :]
    spent = [fleet.serve(request, [emb_ratio] * NODES) for request in ordinary]
    return float(np.mean(spent[len(spent) // 2 :]))


@cache
def best_static() -> float:
    """Best of 17 static ratios."""
    return min((float(ratio) for ratio in np.linspace(0.1, 0.9, 17)), key=static_ms)


def kv_value(fleet: Fleet, node: TrapNode, method: B5, now_ns: int) -> np.ndarray:
    """Milliseconds saved per second over KV capacities, from the stream the method asks for."""
    capacities = CAPACITY_RATIOS * POOL_ROWS
    hit_ms = RECOMPUTE_MS + HISTORY_ROWS * HISTORY_MISS_RATIO * ROW_MS
    if method.kv_stream == "node":
        return np.interp(capacities, edges(node.own_user_reuse), curve(node.own_user_reuse, now_ns, Pace.FAST).value[0]) * hit_ms
    cluster = curve(fleet.user_reuse, now_ns, Pace.FAST)
    return node_share_of_cluster_value(cluster.edges, np.diff(cluster.value[0]), NODES, capacities) * hit_ms


@cache
def adaptive(kv_stream: str) -> tuple[list[float], list[float], float]:
    """Mean ratio per decision, final ratio per node, mean service in the second half of ordinary traffic."""
    fleet = Fleet(watched=True)
    methods = [B5(RAILS, kv_stream=kv_stream) for _ in range(NODES)]  # type: ignore[arg-type]
    guards = [Guard(RAILS, move_ratio_per_second=0.02, emb_ratio=0.5) for _ in range(NODES)]
    ratios, trace, spent, due_ns = [0.5] * NODES, [], [], methods[0].period_ns
    for request in requests():
        if request.at_ns >= due_ns:
            due_ns += methods[0].period_ns
            for place, (method, guard, node) in enumerate(zip(methods, guards, fleet.nodes, strict=True)):
                seen = observe(
                    now_ns=request.at_ns,
                    emb_ratio=ratios[place],
                    refill_bytes_per_second=1e12,
                    capacity_ratio=CAPACITY_RATIOS,
                    emb_value=curve(node.row_reuse, request.at_ns, Pace.FAST).value[0] * ROW_MS,
                    kv_value=kv_value(fleet, node, method, request.at_ns),
                )
                guard.limit(request.at_ns, GuardInputs(method.propose(seen).emb_ratio, None, ratios[place]))
            trace.append(float(np.mean(ratios)))
        ratios = [guard.step(request.at_ns) for guard in guards]
        spent.append(fleet.serve(request, ratios))
    return trace, ratios, float(np.mean(spent[-ORDINARY.seconds * REQUESTS_PER_SECOND // 2 :]))


def test_the_best_static_split_of_ordinary_traffic_is_in_the_middle() -> None:
    assert 0.2 <= best_static() <= 0.6
    assert static_ms(best_static()) < 0.8 * static_ms(0.7)


@pytest.mark.parametrize("kv_stream", ["cluster", "node"])
def test_the_flood_drives_both_variants_towards_emb(kv_stream: str) -> None:
    trace, _, _ = adaptive(kv_stream)
    assert trace[FLOOD.seconds // 5 - 1] >= best_static() + 0.2


def test_measured_on_the_clusters_stream_every_node_comes_back_to_the_best_split() -> None:
    _, ratios, mean_ms = adaptive("cluster")
    assert max(abs(ratio - best_static()) for ratio in ratios) <= 0.1
    assert mean_ms <= 1.05 * static_ms(best_static())


def test_measured_on_the_nodes_own_stream_no_node_comes_back() -> None:
    _, ratios, mean_ms = adaptive("node")
    assert min(ratio - best_static() for ratio in ratios) > 0.15
    assert mean_ms > 1.2 * static_ms(best_static())
