"""Advice on streams whose answer is known."""

import dataclasses
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from agents.profiles import Profile, load_profile
from agents.sim import advise as advice_module
from agents.sim.advise import Advice, advise
from agents.sim.splits import of_node
from agents.workloads.block_buffers import Room
from agents.workloads.blocks import RequestBlock

CPU = load_profile("cpu-demo")
PROFILE: Profile = msgspec.structs.replace(CPU, pool_bytes=32 * CPU.page_bytes, link_bytes_per_second=1e9)  # 8,192 rows or 2,048 tokens


@dataclasses.dataclass(frozen=True)
class Halves:
    """A stream of 128-token users and 96 candidates whose second half may want the other cache."""

    swaps: bool
    name: str = "halves"
    requests: int = 3_000
    duration_seconds: float = 300.0
    row_shift: int = 0

    def blocks(self, block_tokens: int, node: int = 0, nodes: int = 1) -> Iterator[RequestBlock]:
        chance = np.random.default_rng(1)
        count = self.requests
        late = (np.arange(count) >= 0.6 * count) & self.swaps
        # early: 12 users, whose prefixes fit, and rows from everywhere; late: users who never return, rows that nearly fill the pool
        users = np.where(late, 1_000 + np.arange(count), chance.integers(0, 12, count)).astype(np.uint64)
        rows = np.where(late[:, None], chance.integers(0, 6_000, (count, 96)), chance.integers(0, 400_000, (count, 96)))
        blocks = 128 // block_tokens
        whole = RequestBlock(
            at_ns=(np.sort(chance.uniform(0.0, self.duration_seconds, count)) * 1e9).astype(np.int64),
            user_keys=users << np.uint64(32) | np.uint64(1),
            history_tokens=np.full(count, 128),
            candidates=np.full(count, 96),
            block_hashes=np.repeat(users, blocks) * np.uint64(blocks) + np.tile(np.arange(blocks, dtype=np.uint64), count),
            block_offsets=np.arange(count + 1) * blocks,
            history_rows=np.empty(0, np.int64),
            history_offsets=np.zeros(count + 1, np.int64),
            candidate_rows=rows.ravel(),
            candidate_offsets=np.arange(count + 1) * 96,
        )
        yield of_node(whole, node, nodes)


@cache
def advice(swaps: bool, slo_ms: float = 120.0) -> Advice:
    return advise(Halves(swaps), PROFILE, slo_ms, [])


def test_where_the_traffic_changes_sides_moving_the_split_pays() -> None:
    found = advice(True).adapting
    assert found.pays
    assert found.mean_gain_ratio.low > 0.02
    assert found.ratio_highest - found.ratio_lowest > 0.3
    assert "knowing it in advance gains" in found.reason


def test_where_the_traffic_stays_moving_the_split_does_not_pay() -> None:
    found = advice(False).adapting
    assert not found.pays
    assert found.mean_gain_ratio.value < 0.02


def test_users_who_fit_ask_for_prefixes() -> None:
    found = advice(False)
    assert found.emb_ratio <= 0.4
    assert found.emb_ratio_low <= found.emb_ratio <= found.emb_ratio_high
    best = min(found.splits, key=lambda point: point.service_ms_mean)
    assert best.kv_hit_ratio > 0.9 > found.splits[-1].kv_hit_ratio


def test_the_nodes_meet_the_slo_and_one_less_would_not() -> None:
    found = advice(False, 12.0)
    assert found.nodes is not None
    assert found.nodes_low <= found.nodes <= found.nodes_high
    assert found.latency_ms_p99.value <= 12.0 * 1.1
    assert found.latency_ms_p99.low <= found.latency_ms_p99.value <= found.latency_ms_p99.high


def test_a_slo_below_one_requests_service_is_met_by_no_number_of_nodes() -> None:
    found = advice(False, 0.5)
    assert found.nodes is None
    assert "no number of nodes" in found.nodes_reason


def test_more_memory_never_costs_latency_and_the_need_is_the_least_that_does() -> None:
    found = advice(False)
    latencies = [point.latency_ms_p99 for point in found.pools]
    assert all(later <= earlier * 1.02 for earlier, later in pairwise(latencies))
    assert found.pool_gb_needed == min(point.pool_gb for point in found.pools if point.meets_slo)


def test_the_curves_rise_and_prefixes_are_worth_all_once_the_users_fit() -> None:
    curves = advice(False).curves
    for values in (curves.emb_ms_per_second, curves.kv_ms_per_second):
        assert (np.diff(values) >= -1e-9).all()
        assert len(values) == len(curves.capacity_gb)
    assert curves.kv_share_at_pool > 0.9
    assert curves.emb_share_at_pool < 0.2


def test_a_handful_of_requests_is_no_ground_for_advice() -> None:
    with pytest.raises(ValueError, match="trace: 100 requests are too few"):
        advise(Halves(False, requests=100), PROFILE, 100.0, [])


def test_the_queue_is_first_come_first_served() -> None:
    latencies = np.zeros(4)
    advice_module._queue(np.array([0.0, 1.0, 2.0, 100.0]), np.array([5.0, 5.0, 1.0, 2.0]), latencies)
    assert latencies.tolist() == [5.0, 9.0, 9.0, 2.0]


def test_a_block_has_room_for_at_least_one_request() -> None:
    assert Room(10, 10, 1 << 22).requests == 1
    assert Room(1, 1, 1).requests == 4096
