"""Simulated fleets as wholes: faults, mixes of nodes, repetition, open loop, and caches that must be filled first."""

import hashlib
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.controller.baselines.s3 import Schedule
from agents.pool.state import Counter
from agents.sim.faults import SLOW_LINK_SHARE, parse_fault
from agents.sim.fleet import ORIGIN_NS, SimulatedFleet
from agents.sim.scenario import Scenario, run
from agents.sim.settle import Beginnings
from tests.agents.sim.streams import SECOND, TINY, RememberedStream, WrittenStream, costing, every, fleet_of, run_of, written

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
    """Not even those that it had queued or was working on."""
    stream = visits()
    stream.block.at_ns[150:180] = 1_995_000_000
    fleet = run_of(stream, PACED, PACED, faults=(parse_fault("node-loss@2+2:1"),))
    answers, head = fleet.statistics.answers, fleet.world.head[0]
    assert answers.shape[0] + head["refused"] == COUNT
    assert head["refused"] == 0
    assert head["rerouted"] >= 10
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
    undisturbed = fleet_of(visits(), PACED)
    assert undisturbed.run()
    cached, usual = (by_second(each, each.statistics.answers["cached"]) for each in (fleet, undisturbed))
    assert cached[2] == usual[2]
    assert cached[3] < usual[3]
    assert cached[5] > cached[3]


def test_a_slow_link_takes_three_times_as_long_for_missing_rows() -> None:
    rows = np.arange(COUNT * 32).reshape(COUNT, 32)  # never the same row twice
    profile = costing(TINY, ms_per_missing_row=0.02)
    fleet = run_of(written(every(10.0, COUNT), rows=rows), profile, faults=(parse_fault("slow-link@2+2:0"),))
    spent = fleet.statistics.service_ms[0].sum(axis=1)
    served = np.bincount((fleet.statistics.answers["arrival_ns"] - ORIGIN_NS) // SECOND, minlength=spent.shape[0])
    each = spent / np.maximum(served, 1)
    assert each[1] == pytest.approx(32 * 0.02)
    assert each[2] == each[3] == pytest.approx(32 * 0.02 / SLOW_LINK_SHARE)  # at once, not at the node's next decision
    assert each[4] == each[5] == pytest.approx(32 * 0.02)


def test_a_new_model_version_voids_every_prefix() -> None:
    stream = visits(users=10)
    answers = run_of(stream, PACED, PACED, faults=(parse_fault("version-flip@3"),)).statistics.answers
    flipped_ns = ORIGIN_NS + 3 * SECOND
    before, after = (answers[mask] for mask in (answers["arrival_ns"] < flipped_ns, answers["arrival_ns"] >= flipped_ns))
    for user in range(1, 11):
        own = after[stream.block.user_keys[after["number"]] == user]
        assert own["cached"][0] == 0
        assert own["cached"][-1] == 192
    assert (before["cached"][-50:] > 0).mean() > 0.9


@pytest.mark.parametrize("text", ["flood@3", "node-loss@-1", "node-loss@1:-2", "node-loss", "slow-link@nan", "slow-link@1+inf"])
def test_an_unknown_or_impossible_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fault:"):
        parse_fault(text)


# --- mixes, repetition, open loop ---------------------------------------------------------


def test_the_router_knows_which_nodes_of_a_mix_are_of_one_profile() -> None:
    other = msgspec.structs.replace(TINY, name="other")
    known = fleet_of(visits(), TINY, other, TINY).router.state.nodes["profile"].tolist()
    assert known[0] == known[2] != known[1]
    assert 0 not in known


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


def test_an_answer_that_is_late_on_its_way_back_delays_nobody_else() -> None:
    prompt, some_late = (run_of(visits(), PACED, PACED, router="round-robin", late_ms=late).statistics.answers for late in ((), (0.0, 5.0)))
    assert (some_late["number"] == prompt["number"]).all()
    more_ms = some_late["latency_ms"] - prompt["latency_ms"]
    assert sorted(set(more_ms.round(6).tolist())) == [0.0, 5.0]
    assert 0.4 < (more_ms > 0.0).mean() < 0.6


def test_replaying_the_routes_at_the_same_ratio_gives_every_node_the_same_service() -> None:
    fleet = run_of(visits(), PACED, PACED)
    replayed = run_of(visits(), PACED, PACED, routed=np.concatenate(fleet.routes))
    assert (replayed.statistics.answers["node"] == fleet.statistics.answers["node"]).all()
    assert np.array_equal(replayed.statistics.service_ms, fleet.statistics.service_ms)


# --- caches -------------------------------------------------------------------------------


def test_a_grown_cache_starts_empty() -> None:
    """The rows that a page was granted for come one by one, and hits follow the rows, not the grant."""
    chance = np.random.default_rng(6)
    rows = np.array([chance.choice(20_000, 8, replace=False) for _ in range(3000)])
    profile = msgspec.structs.replace(PACED, move_ratio_per_second=0.9, refill_bytes_per_second=40_000.0)
    stream = written(every(5.0, 3000, first_ms=1.0), rows=rows)
    schedule = Schedule(np.array([0, ORIGIN_NS + 6 * SECOND]), np.array([0.15, 0.25]))
    fleet = fleet_of(stream, profile, controllers=lambda _: schedule, emb_ratio_start=0.15, admission="none")
    seen = [observed(fleet, second) for second in range(15)]
    grown = next(second for second in range(15) if seen[second].emb_ratio > 0.2)
    before, just_grown, at_last = seen[grown - 1], seen[grown], seen[-1]
    assert before.filled == pytest.approx(1.0)
    assert just_grown.filled < 0.9
    assert at_last.filled > 0.98
    assert at_last.hit_ratio > before.hit_ratio + 0.08
    assert just_grown.hit_ratio < (before.hit_ratio + at_last.hit_ratio) / 2.0


class Observed(NamedTuple):
    """EMB's share at a second's end, its hit ratio in that second, and the used part of its pages."""

    emb_ratio: float
    hit_ratio: float
    filled: float


def observed(fleet: SimulatedFleet, second: int) -> Observed:
    before = fleet.nodes[0].state.counters.copy()
    fleet.advance(ORIGIN_NS + (second + 1) * SECOND)
    node = fleet.nodes[0]
    counters = node.state.counters
    gained = counters - before
    filled = counters[Counter.EMB_ROWS] / (node.emb_pages * node.rows_per_page)
    return Observed(node.ledger.emb_ratio, float(gained[Counter.EMB_HITS] / gained[Counter.EMB_LOOKUPS]), float(filled))


# --- sampling -----------------------------------------------------------------------------

SAMPLING_ERROR = 0.01  # between 1 / 16 and 1 / 64 of the demo's rows; `helmctl bench sim` states it for the product's own sizes


def test_hit_ratios_hardly_depend_on_how_many_rows_are_followed() -> None:
    cells = []
    for row_shift in (4, 6):
        scenario = Scenario(
            profile="cpu-demo", workload="steady", nodes=1, rate_per_second=10.0, duration_seconds=60.0, method="static-0.50"
        )
        result = run(msgspec.structs.replace(scenario, row_shift=row_shift))
        assert result is not None
        cells.append(result.cell)
    assert cells[0]["requests"] == cells[1]["requests"]
    assert cells[0]["kv_hit_ratio"] == pytest.approx(cells[1]["kv_hit_ratio"], abs=0.005)
    assert cells[0]["emb_hit_ratio"] == pytest.approx(cells[1]["emb_hit_ratio"], abs=SAMPLING_ERROR)
    assert cells[0]["service_ms_mean"] == pytest.approx(cells[1]["service_ms_mean"], rel=SAMPLING_ERROR)


def test_a_settled_fleet_knows_its_past_and_nothing_of_what_is_to_come() -> None:
    """It once rehearsed the minute that it then served: every row and every user was an acquaintance."""
    rows = np.arange(640).reshape(40, 16)
    past = written(every(50.0, 20), users=np.full(20, 7), tokens=np.full(20, 192), rows=rows[:20])
    coming = written(every(50.0, 20), users=np.arange(7, 27), tokens=np.full(20, 192), rows=rows[20:])
    fleet = fleet_of(RememberedStream(coming.block, past.block), PACED, settled=True)
    hits = int(fleet.nodes[0].state.counters[Counter.EMB_HITS])
    assert held(fleet, 0) == (320, 1)
    assert fleet.run()
    assert int(fleet.nodes[0].state.counters[Counter.EMB_HITS]) == hits
    assert fleet.statistics.answers["cached"].tolist() == [192] + [0] * 19


# --- fleets that begin alike --------------------------------------------------------------


def rehearsed() -> RememberedStream:
    """Visits with a past of other visits by the same users."""
    return RememberedStream(visits().block, visits(count=300).block)


def test_a_fleet_that_begins_as_the_one_before_it_answers_as_if_it_had_settled_itself() -> None:
    stream, beginnings = rehearsed(), Beginnings()
    for method in ("static-0.50", "b7", "helm"):
        by_itself = fleet_of(rehearsed(), PACED, PACED, settled=True, method=method)
        alike = fleet_of(stream, PACED, PACED, settled=True, method=method, beginnings=beginnings)
        assert by_itself.run()
        assert alike.run()
        assert digest(alike) == digest(by_itself)
        assert held(alike, 1) == held(by_itself, 1)
        assert alike.statistics.service_ms.tolist() == by_itself.statistics.service_ms.tolist()
    assert stream.lived == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"emb_ratio_start": 0.25},
        {"admission": "none"},
        {"router": "least-loaded"},
        {"hop_ns": 0},
        {"jitter": (0.5, 1.5)},
        {"late_ms": (0.0, 5.0)},
    ],
)
def test_a_fleet_that_begins_otherwise_settles_for_itself(change: dict[str, object]) -> None:
    stream, beginnings = rehearsed(), Beginnings()
    fleet_of(stream, PACED, PACED, settled=True, beginnings=beginnings)
    fleet_of(stream, PACED, PACED, settled=True, beginnings=beginnings, **change)
    assert stream.lived == 2


@pytest.mark.parametrize("fault", ["node-loss@0.5+1:1", "cold-start@0.5:0", "version-flip@0.5"])
def test_what_goes_wrong_after_a_shared_beginning_goes_as_it_would_have(fault: str) -> None:
    stream, beginnings, faults = rehearsed(), Beginnings(), (parse_fault(fault),)
    undisturbed = fleet_of(stream, PACED, PACED, settled=True, method="helm", beginnings=beginnings)
    by_itself = fleet_of(rehearsed(), PACED, PACED, settled=True, method="helm", faults=faults)
    alike = fleet_of(stream, PACED, PACED, settled=True, method="helm", faults=faults, beginnings=beginnings)
    for fleet in (undisturbed, by_itself, alike):
        assert fleet.run()
    assert digest(alike) == digest(by_itself) != digest(undisturbed)
    assert [held(alike, node) for node in range(2)] == [held(by_itself, node) for node in range(2)]
    assert stream.lived == 1


def test_another_profile_or_stream_is_another_beginning() -> None:
    stream, other, beginnings = rehearsed(), RememberedStream(visits().block, visits(count=200).block), Beginnings()
    for past, profile in ((stream, PACED), (stream, costing(PACED, ms_fixed=5.0)), (other, PACED), (stream, PACED)):
        fleet_of(past, profile, settled=True, beginnings=beginnings)
    assert (stream.lived, other.lived) == (3, 1)  # only the last one is kept


def test_a_fleet_too_big_to_be_kept_settles_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.sim.settle._KEPT_BYTES_MAX", 1000)
    stream, beginnings = rehearsed(), Beginnings()
    for _ in range(2):
        fleet_of(stream, PACED, settled=True, beginnings=beginnings)
    assert stream.lived == 2
