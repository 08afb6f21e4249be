"""Simulated fleets as wholes: faults, mixes of nodes, repetition, open loop, and caches that must be filled first."""

import hashlib

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.pool.state import Counter
from agents.sim.faults import SLOW_LINK_SHARE, parse_fault
from agents.sim.fleet import ORIGIN_NS, SimulatedFleet
from tests.agents.sim.streams import SECOND, TINY, WrittenStream, costing, every, fleet_of, run_of, written

COUNT = 600  # requests, one every 10 ms
PACED = costing(TINY, ms_fixed=4.0, ms_per_missing_row=0.02, ms_per_token=0.02)


def visits(count: int = COUNT, users: int = 30, step_ms: float = 10.0) -> WrittenStream:
    """Few users with three blocks each, who look at a thousand rows."""
    chance = np.random.default_rng(5)
    rows = np.array([chance.choice(1000, 32, replace=False) for _ in range(count)])
    return written(every(step_ms, count), users=chance.integers(1, users + 1, count), tokens=np.full(count, 192), rows=rows)


def digest(fleet: SimulatedFleet) -> str:
    return hashlib.sha256(fleet.statistics.answers.tobytes()).hexdigest()


def held(fleet: SimulatedFleet, node: int) -> tuple[int, int]:
    """Rows and prefixes that a node holds."""
    counters = fleet.nodes[node].state.counters
    return int(counters[Counter.EMB_ROWS]), int(counters[Counter.ENTRIES_LIVE])


def by_second(fleet: SimulatedFleet, values: NDArray[np.generic]) -> list[float]:
    """Mean of something of the answered requests, by the second of their arrival."""
    seconds = (fleet.statistics.answers["arrival_ns"] - ORIGIN_NS) // SECOND
    return [float(values[seconds == second].mean()) for second in range(int(seconds.max()) + 1)]


# --- faults -------------------------------------------------------------------------------


def test_a_lost_node_loses_no_accepted_request() -> None:
    fleet = run_of(visits(), PACED, PACED, faults=(parse_fault("node-loss@2+2:1"),))
    answers, head = fleet.statistics.answers, fleet.world.head[0]
    assert answers.shape[0] + head["refused"] == COUNT
    assert head["refused"] == 0
    assert head["rerouted"] > 0
    assert sorted(answers["number"]) == list(range(COUNT))
    away = (answers["arrival_ns"] > ORIGIN_NS + 2 * SECOND) & (answers["arrival_ns"] < ORIGIN_NS + 4 * SECOND)
    assert set(answers["node"][away]) == {0}


def test_a_lost_node_comes_back_empty_and_fills_again() -> None:
    fleet = fleet_of(visits(), PACED, PACED, faults=(parse_fault("node-loss@2+2:1"),))
    fleet.advance(ORIGIN_NS + 2 * SECOND - 1)
    assert min(held(fleet, 1)) > 0
    fleet.advance(ORIGIN_NS + 4 * SECOND)
    assert held(fleet, 1) == (0, 0)
    fleet.advance(ORIGIN_NS + 6 * SECOND)
    assert min(held(fleet, 1)) > 0


def test_a_fleet_whose_only_node_is_lost_refuses_and_counts_every_request() -> None:
    fleet = run_of(visits(), PACED, faults=(parse_fault("node-loss@2+2:0"),))
    refused = int(fleet.world.head[0]["refused"])
    assert 150 < refused < 450
    assert fleet.statistics.answers.shape[0] + refused == COUNT


def test_a_cold_start_empties_a_node_that_serves_on() -> None:
    fleet = fleet_of(visits(), PACED, faults=(parse_fault("cold-start@3:0"),))
    fleet.advance(ORIGIN_NS + 3 * SECOND - 1)
    assert min(held(fleet, 0)) > 0
    fleet.advance(ORIGIN_NS + 3 * SECOND)
    assert held(fleet, 0) == (0, 0)
    assert fleet.run()
    assert fleet.statistics.answers.shape[0] == COUNT
    cached = by_second(fleet, fleet.statistics.answers["cached"])
    assert cached[3] < cached[2]
    assert cached[5] == pytest.approx(cached[2], rel=0.1)


def test_a_slow_link_takes_three_times_as_long_for_missing_rows() -> None:
    rows = np.arange(COUNT * 32).reshape(COUNT, 32)  # never the same row twice
    profile = costing(TINY, ms_per_missing_row=0.02)
    fleet = run_of(written(every(10.0, COUNT), rows=rows), profile, faults=(parse_fault("slow-link@2+2:0"),))
    spent = fleet.statistics.service_ms[0].sum(axis=1)
    each = spent / np.bincount((fleet.statistics.answers["arrival_ns"] - ORIGIN_NS) // SECOND, minlength=spent.shape[0])
    assert each[1] == pytest.approx(32 * 0.02)
    assert each[3] == pytest.approx(32 * 0.02 / SLOW_LINK_SHARE)
    assert each[5] == pytest.approx(32 * 0.02)


def test_a_new_model_version_voids_every_prefix_and_keeps_the_rows() -> None:
    fleet = fleet_of(visits(), PACED, PACED, faults=(parse_fault("version-flip@3"),))
    fleet.advance(ORIGIN_NS + 3 * SECOND - 1)
    rows = [held(fleet, node)[0] for node in range(2)]
    fleet.advance(ORIGIN_NS + 3 * SECOND)
    hits = sum(int(node.state.counters[Counter.KV_HITS]) for node in fleet.nodes)
    assert [held(fleet, node)[0] for node in range(2)] == rows
    assert fleet.run()
    assert sum(int(node.state.counters[Counter.KV_HITS]) for node in fleet.nodes) > hits
    cached = by_second(fleet, fleet.statistics.answers["cached"])
    assert cached[3] < cached[2]


@pytest.mark.parametrize("text", ["flood@3", "node-loss@-1", "node-loss@1:-2", "node-loss", "slow-link@nan", "slow-link@1+inf"])
def test_an_unknown_or_impossible_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fault:"):
        parse_fault(text)


# --- mixes, repetition, open loop ---------------------------------------------------------


def test_a_faster_node_gets_more_requests() -> None:
    fast = msgspec.structs.replace(costing(TINY, ms_fixed=2.0, ms_per_missing_row=0.01, ms_per_token=0.01), name="fast")
    fleet = run_of(visits(users=600, step_ms=5.0), PACED, fast)
    served = np.bincount(fleet.statistics.answers["node"])
    assert served[1] > 1.3 * served[0]
    assert fleet.statistics.answers.shape[0] == COUNT


def test_one_seed_gives_the_same_answers_to_the_byte() -> None:
    assert digest(run_of(visits(), PACED, PACED, method="b5")) == digest(run_of(visits(), PACED, PACED, method="b5"))


@pytest.mark.parametrize("change", [{"router": "round-robin"}, {"method": "b5"}])
def test_another_router_or_method_sees_the_same_stream(change: dict[str, str]) -> None:
    answers, others = (run_of(visits(), PACED, PACED, **options).statistics.answers for options in ({}, change))
    assert (answers["arrival_ns"] == others["arrival_ns"]).all()
    if "router" in change:
        assert (answers["node"] != others["node"]).any()


def test_replaying_the_routes_at_the_same_ratio_gives_every_node_the_same_service() -> None:
    fleet = run_of(visits(), PACED, PACED)
    replayed = run_of(visits(), PACED, PACED, routed=np.concatenate(fleet.routes))
    assert (replayed.statistics.answers["node"] == fleet.statistics.answers["node"]).all()
    assert np.array_equal(replayed.statistics.service_ms, fleet.statistics.service_ms)


# --- caches -------------------------------------------------------------------------------


def hit_ratios_while_growing(seconds: int) -> tuple[list[float], list[float]]:
    """EMB's share of the pool and its hit ratio, second by second: a tenth until second six, then nine tenths."""
    chance = np.random.default_rng(6)
    rows = np.array([chance.choice(20_000, 128, replace=False) for _ in range(200 * seconds)])
    quick = msgspec.structs.replace(PACED, move_ratio_per_second=0.9)
    stream = written(every(5.0, 200 * seconds, first_ms=1.0), rows=rows)
    fleet = fleet_of(stream, quick, method="schedule-0:0.1,6:0.9", emb_ratio_start=0.1)
    before, ratios, found = fleet.nodes[0].state.counters.copy(), [], []
    for second in range(seconds):
        fleet.advance(ORIGIN_NS + (second + 1) * SECOND)
        counters = fleet.nodes[0].state.counters
        gained, before = counters - before, counters.copy()
        ratios.append(fleet.nodes[0].ledger.emb_ratio)
        found.append(float(gained[Counter.EMB_HITS] / gained[Counter.EMB_LOOKUPS]))
    return ratios, found


def test_a_grown_cache_starts_empty() -> None:
    """Its hit ratio climbs over seconds to what the size is worth in the long run; it does not jump there."""
    ratios, found = hit_ratios_while_growing(16)
    grown = next(second for second, ratio in enumerate(ratios) if ratio > 0.85)
    assert grown <= 9
    assert found[5] < 0.2
    assert found[grown] < found[grown + 1] < found[-1]
    assert found[-1] > 0.9
