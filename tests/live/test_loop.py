"""The data loop in miniature: real router, real nodes, real load; then its journals are held against the simulator's body.

One run of half a minute serves all of these tests. Splits are moved by hand as well as by the
controller, so that the journal holds many moves and many evictions. In its middle a second router comes, with a burst of
requests behind it, and goes again, so that the journal holds a burst, what a burst layer made of it, and two routers' words.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agents.caches.policy import cache_policy
from agents.profiles import load_profile
from agents.router.replay import replay as replay_router
from agents.sim.replay import Parity, replay_file
from agents.workloads import journal
from agents.workloads.router_journal import read_router_records
from tests.live.processes import LiveFleet, live_fleet

pytestmark = pytest.mark.live

LOAD_SECONDS = 30.0
REQUESTS_PER_SECOND = 15.0
NODES = ("node-0", "node-1")
ROUTERS = ("router", "router-1")
CONTROLLER = "b5+burst"
CALM_TURNS = 10  # of a second and a half, before the second router comes: a burst stands out from a calm that was seen
BURST_SECONDS, BURST_REQUESTS_PER_SECOND = 5.0, 70.0


class Run(NamedTuple):
    """What one run left behind."""

    summary: dict[str, Any]
    status: dict[str, dict[str, Any]]
    router: dict[str, Any]
    answer: dict[str, Any]
    exit_codes: dict[str, int]
    journals: dict[str, Path]
    reasons: set[str]  # of the decisions
    burst: dict[str, Any]  # summary of the second load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with live_fleet(tmp_path_factory.mktemp("loop"), journal=True, controller=CONTROLLER) as fleet:
        yield _live_run(fleet)


def _live_run(fleet: LiveFleet) -> Run:
    rate = ("--rate", str(REQUESTS_PER_SECOND), "--fixed", "--duration", str(LOAD_SECONDS))
    load = fleet.start("load", "--workload", "steady", "--seed", "3", "--json", *rate)
    answer = fleet.infer(_infer_body())
    turn, codes = 0, {}
    while load.poll() is None:
        for name in NODES:
            if turn % 2:
                fleet.control(name, mode="auto")
            else:
                fleet.control(name, mode="override", emb_ratio=0.3 if turn % 4 else 0.7, ttl_ms=60_000, reason="exercise")
        turn += 1
        if turn == CALM_TURNS:
            _second_router_with_a_burst(fleet)
        if "load-1" in fleet.running and fleet.running["load-1"].poll() is not None and "router-1" in fleet.running:
            codes["router-1"] = fleet.stop("router-1")
        time.sleep(1.5)
    reasons = {record["reason"] for name in NODES for record in json.loads(fleet.get(name, "/v1/decisions?limit=512"))}
    status = {name: fleet.status(name) for name in NODES}
    router = fleet.status("router")
    codes |= {name: fleet.stop(name) for name in ("router", *NODES)}
    journals = {name: next(path for path in (fleet.journals / name).rglob("*journal") if path.is_file()) for name in (*ROUTERS, *NODES)}
    summary, burst = (json.loads(fleet.log(name).splitlines()[-1]) for name in ("load", "load-1"))
    return Run(summary, status, router, answer, codes, journals, reasons, burst)


def _second_router_with_a_burst(fleet: LiveFleet) -> None:
    fleet.start("router-1", "--journal", str(fleet.journals / "router-1"))
    rate = ("--rate", str(BURST_REQUESTS_PER_SECOND), "--fixed", "--duration", str(BURST_SECONDS))
    fleet.start("load-1", "--workload", "steady", "--seed", "4", "--json", *rate)  # waits for its router


def _infer_body() -> dict[str, Any]:
    tokens, candidates = 70, 16
    tensors = {
        "history_items": list(range(tokens)),
        "history_actions": [1] * tokens,
        "history_ts": list(range(1_700_000_000, 1_700_000_000 + tokens)),
        "candidates": list(range(500, 500 + candidates)),
    }
    inputs = [{"name": name, "datatype": "INT64", "shape": [1, len(data)], "data": data} for name, data in tensors.items()]
    return {"id": "one", "parameters": {"user_id": "somebody"}, "inputs": inputs}


def test_every_request_of_the_run_is_answered(run: Run) -> None:
    assert run.summary["failures"] == 0
    assert run.summary["requests"] >= 0.5 * LOAD_SECONDS * REQUESTS_PER_SECOND


def test_a_request_through_the_router_gets_a_finite_score_for_every_candidate(run: Run) -> None:
    (scores,) = run.answer["outputs"]
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("scores", "FP32", [1, 16])
    assert all(math.isfinite(score) for score in scores["data"])


def test_both_nodes_get_their_share(run: Run) -> None:
    served = [run.status[name]["requests_total"] for name in NODES]
    assert min(served) >= 0.1 * sum(served)


def test_the_splits_really_moved_and_evicted(run: Run) -> None:
    assert sum(run.status[name]["moved_pages_total"] for name in NODES) >= 10
    assert sum(run.status[name]["moves_total"] for name in NODES) >= 10
    assert sum(run.status[name]["emb_evictions_total"] + run.status[name]["kv_evictions_total"] for name in NODES) >= 1_000


def test_the_reported_ratio_is_the_ledgers_share_of_pages(run: Run) -> None:
    for status in run.status.values():
        assert status["emb"]["granted_bytes"] == pytest.approx(status["emb_ratio"] * status["pool_bytes"])
        granted = status["emb"]["granted_bytes"] + status["kv"]["granted_bytes"] + status["migrating_bytes"]
        assert granted == status["pool_bytes"]


def test_processes_end_cleanly_on_sigterm(run: Run) -> None:
    assert set(run.exit_codes.values()) == {0}


@pytest.fixture(scope="module")
def parities(run: Run) -> list[Parity]:
    return [replay_file(run.journals[name]) for name in NODES]


def test_the_simulators_body_recomputes_every_decision_of_the_live_nodes(parities: list[Parity]) -> None:
    assert [parity.mismatches for parity in parities] == [[], []]
    assert {parity.ended for parity in parities} == {"closed"}
    assert sum(parity.batches for parity in parities) > 100
    assert sum(parity.decisions for parity in parities) >= 10
    assert sum(parity.moved_pages for parity in parities) >= 10
    assert sum(parity.evictions for parity in parities) >= 1_000


def test_a_mutated_eviction_constant_is_noticed(run: Run) -> None:
    policy = cache_policy("shipped", load_profile("cpu-tiny").rows_per_page)._replace(clock_uses_max=2)
    assert not replay_file(run.journals["node-0"], policy).holds


def test_a_cut_off_journal_replays_up_to_the_cut(run: Run, tmp_path: Path) -> None:
    whole = run.journals["node-0"].read_bytes()
    cut = tmp_path / "cut.journal"
    cut.write_bytes(whole[: len(whole) // 2])
    parity = replay_file(cut)
    assert parity.holds
    assert parity.ended == "cut off"
    assert parity.batches > 0
    assert isinstance(journal.read_header(cut), journal.Header)


def test_the_journal_holds_a_burst_and_what_the_burst_layer_made_of_it(run: Run) -> None:
    assert {"recovery_surge", "recovery_easing"} & run.reasons
    assert run.burst["requests"] > 2 * BURST_REQUESTS_PER_SECOND


def test_the_journal_holds_two_routers_words(run: Run) -> None:
    for name in NODES:
        told = {record.message.router_id for record in journal.read_records(run.journals[name]) if isinstance(record, journal.Reuse)}
        assert len(told) == 2


def test_the_routers_picks_are_recomputed_too(run: Run) -> None:
    for name, summary in zip(ROUTERS, (run.summary, run.burst), strict=True):
        result = replay_router(read_router_records(run.journals[name]))
        assert result.mismatches == 0
        assert result.picks >= summary["requests"]
