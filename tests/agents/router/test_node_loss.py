"""A fleet that loses a node under load, under a virtual clock: nothing is lost, and ten seconds later it is as before."""

import numpy as np
from numpy.typing import NDArray

from agents.sim.faults import parse_fault
from agents.sim.fleet import ORIGIN_NS, SimulatedFleet
from tests.agents.sim.streams import SECOND, TINY, WrittenStream, costing, every, run_of, written

PACED = costing(TINY, ms_fixed=4.0, ms_per_missing_row=0.02, ms_per_token=0.02)
NODES = 4
LOST_SECONDS, BACK_SECONDS = 10, 14
MID_FLIGHT = 0.002  # every node has work in hand then
COUNT = 8_000  # requests, one every 4 ms: four nodes at a bit under a half of what they can do, three above it
WITHIN = 1.2


def visits() -> WrittenStream:
    """Users with three blocks each who come again and again."""
    chance = np.random.default_rng(5)
    rows = chance.integers(0, 40, (COUNT, 16)) * 16 + np.arange(16)  # sixteen different ones of a few hundred
    return written(every(4.0, COUNT), users=chance.integers(1, 200, COUNT), tokens=np.full(COUNT, 192), rows=rows)


def between(fleet: SimulatedFleet, first: int, end: int) -> NDArray[np.void]:
    """Answers to the requests that arrived in these seconds."""
    answers = fleet.statistics.answers
    seconds = (answers["arrival_ns"] - ORIGIN_NS) / SECOND
    return np.asarray(answers[(seconds >= first) & (seconds < end)])


def p99(fleet: SimulatedFleet, first: int, end: int) -> float:
    return float(np.percentile(between(fleet, first, end)["latency_ms"], 99))


def shares(fleet: SimulatedFleet, first: int, end: int) -> NDArray[np.float64]:
    """Each node's requests over the mean of the nodes that answered any."""
    counts = np.bincount(between(fleet, first, end)["node"], minlength=NODES)
    return np.asarray(counts[counts > 0] / counts[counts > 0].mean())


def test_a_lost_node_costs_no_request_and_ten_seconds_later_three_do_as_well_as_three() -> None:
    lost = run_of(visits(), *[PACED] * NODES, faults=(parse_fault(f"node-loss@{LOST_SECONDS + MID_FLIGHT}+60:1"),))
    never_there = run_of(visits(), *[PACED] * (NODES - 1))
    assert lost.statistics.answers.shape[0] == COUNT
    assert lost.world.head[0]["refused"] == 0
    assert lost.world.head[0]["rerouted"] > 0
    after = (LOST_SECONDS + 10, LOST_SECONDS + 20)
    assert between(lost, *after).shape[0] == 2_500  # one every 4 ms: as many as come
    assert p99(lost, *after) <= WITHIN * p99(never_there, *after)
    balance = shares(lost, *after)
    assert (balance.shape[0], bool(balance.max() <= WITHIN)) == (3, True)


def test_a_node_that_comes_back_empty_carries_its_share_again_ten_seconds_later() -> None:
    away = BACK_SECONDS - LOST_SECONDS
    back = run_of(visits(), *[PACED] * NODES, faults=(parse_fault(f"node-loss@{LOST_SECONDS}+{away}:1"),))
    never_lost = run_of(visits(), *[PACED] * NODES)
    assert back.statistics.answers.shape[0] == COUNT
    after = (BACK_SECONDS + 4, BACK_SECONDS + 14)
    assert p99(back, *after) <= WITHIN * p99(never_lost, *after)
    balance = shares(back, *after)
    assert balance.shape[0] == NODES
    assert 1 / WITHIN <= balance.min() <= balance.max() <= WITHIN
