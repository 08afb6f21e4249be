"""What the environment may say about the live comparison, and what it may not."""

import asyncio
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import msgspec
import numpy as np
import pytest

from agents.profiles import Profile
from agents.sim.scenario import Scenario, SimResult
from helmctl.bench.fleet import BenchError
from helmctl.bench.live import AUTO, HASH, S0, Figures, Trial, Way, _live_run, _pairs, _predicted, _trial, measure
from helmctl.bench.live_play import Played, _watch_host


def test_a_trial_is_of_both_regimes_on_paced_nodes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _trial(90.0)
    assert (plain.profile, plain.regimes, plain.seconds) == ("cpu-paced", ("trend", "burst"), 90.0)
    assert (plain.rate, plain.s0_ratio, plain.nodes, plain.ways) == (0.0, 0.5, 4, (S0, AUTO, HASH))
    for name, value in (("PROFILE", "cpu-demo"), ("REGIMES", "burst"), ("RATE", "12.5"), ("S0", "0.4"), ("NODES", "2"), ("AGAINST", "s0")):
        monkeypatch.setenv(f"HELM_BENCH_LIVE_{name}", value)
    told = _trial(90.0)
    assert (told.profile, told.regimes, told.rate, told.s0_ratio, told.nodes) == ("cpu-demo", ("burst",), 12.5, 0.4, 2)
    assert told.ways == (S0, AUTO)


@pytest.mark.parametrize(("seconds", "burst"), [(90.0, 459.0), (30.0, 489.0), (400.0, 384.0)])
def test_a_whole_cycle_goes_by_unmeasured_and_as_much_calm_as_burst_is_measured(
    seconds: float, burst: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cycle of the trend takes 250 s, one of the burst stream 384; the second burst begins at 504."""
    assert _trial(seconds).warm_seconds == {"trend": 250.0, "burst": burst}
    monkeypatch.setenv("HELM_BENCH_LIVE_WARM_SECONDS", "45")
    assert _trial(seconds).warm_seconds == {"trend": 45.0, "burst": 45.0}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROFILE", "cpu-fast", "unknown 'cpu-fast'"),
        ("REGIMES", "burst,steady", "names other regimes than trend and burst"),
        ("REGIMES", "burst,burst", "or one twice"),
        ("REGIMES", "", "names other regimes"),
        ("AGAINST", "s0,auto", "names other ways than s0 and hash"),
        ("RATE", "fast", "'fast' is not a number above zero"),
        ("WARM_SECONDS", "-3", "'-3' is not a number above zero"),
    ],
)
def test_a_trial_that_cannot_be_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"HELM_BENCH_LIVE_{name}", value)
    with pytest.raises(BenchError, match=f"HELM_BENCH_LIVE_{name}: .*{message}"):
        _trial(90.0)


def test_every_run_pairs_with_the_same_blocks_auto_and_a_prediction_with_predictions() -> None:
    found = {way.name: [Figures(base + block, base / 2) for block in range(2)] for way, base in ((AUTO, 10.0), (S0, 20.0), (HASH, 40.0))}
    pairs = _pairs(found)
    assert pairs["live_p99_ratio_vs_s0"] == [(10.0, 20.0), (11.0, 21.0)]
    assert pairs["live_p99_ratio_vs_hash"] == [(10.0, 40.0), (11.0, 41.0)]
    assert pairs["live_mean_ratio_vs_s0"] == [(5.0, 10.0), (5.0, 10.0)]
    assert not [name for name in pairs if name.startswith("predicted_")]
    assert sorted(_pairs({AUTO.name: found[AUTO.name], S0.name: found[S0.name]})) == ["live_mean_ratio_vs_s0", "live_p99_ratio_vs_s0"]
    assert list(_pairs({AUTO.name: found[AUTO.name], HASH.name: found[HASH.name]})) == ["live_p99_ratio_vs_hash"]


def test_ways_take_turns_block_by_block_and_only_those_asked_for_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, str, int]] = []

    def live_run(regime: str, seed: int, way: Way, _trial: Trial) -> Figures:
        ran.append((way.name, regime, seed))
        return Figures(10.0, 5.0, "helm", (0.25, 0.75))

    monkeypatch.setattr("helmctl.bench.live._live_run", live_run)
    monkeypatch.setattr("helmctl.bench.live._predicted", lambda *_: None)
    for name, value in (("REGIMES", "trend"), ("RATE", "40"), ("AGAINST", "s0")):
        monkeypatch.setenv(f"HELM_BENCH_LIVE_{name}", value)
    results = measure(2, lambda _: None)
    assert ran == [("s0", "trend", 1), ("auto", "trend", 1), ("auto", "trend", 2), ("s0", "trend", 2)]
    assert [one.name for one in results][:2] == ["live_p99_ratio_vs_s0", "live_mean_ratio_vs_s0"]
    assert not [one.name for one in results if "hash" in one.name]
    assert [(one.name, round(one.median or 0.0, 2)) for one in results if "host" in one.name] == [
        ("live_host_busy_trend_s0", 0.5),
        ("live_host_busy_p90_trend_s0", 0.7),
        ("live_host_busy_trend_auto", 0.5),
        ("live_host_busy_p90_trend_auto", 0.7),
    ]
    ran.clear()
    monkeypatch.delenv("HELM_BENCH_LIVE_AGAINST")
    measure(2, lambda _: None)
    assert [way for way, _, _ in ran] == ["s0", "auto", "hash", "hash", "auto", "s0"]


def test_a_live_run_leaves_out_its_regimes_warm_up_and_pins_nodes_only_for_the_static_way(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = MagicMock()
    fleet.file.nodes = [SimpleNamespace(name="node-0"), SimpleNamespace(name="node-1")]
    fleet.call.return_value = b'{"controller": "helm"}'
    plays: list[tuple[str, int, float, float, float]] = []

    async def play(_fleet: Any, regime: str, seed: int, _profile: Profile, rate: float, seconds: float, settle: float) -> Played:
        plays.append((regime, seed, rate, seconds, settle))
        return Played(np.array([1.0]), np.array([7.0]), Counter(), np.array([0.25, 0.75]))

    monkeypatch.setattr("helmctl.bench.live.bench_fleet", lambda nodes, profile: nullcontext(fleet))
    monkeypatch.setattr("helmctl.bench.live.play", play)
    trial = _trial(90.0)._replace(rate=40.0)
    assert _live_run("trend", 3, AUTO, trial) == Figures(7.0, 7.0, "helm", (0.25, 0.75))
    assert [call.args for call in fleet.call.call_args_list] == [("node-0", "/v1/status")]
    _live_run("burst", 2, S0, trial)
    assert plays == [("trend", 3, 40.0, 90.0, 250.0), ("burst", 2, 40.0, 90.0, 459.0)]
    pinned = [call.args for call in fleet.call.call_args_list if call.args[1] == "/v1/control"]
    assert [node for node, _, _, _ in pinned] == ["node-0", "node-1"]
    assert msgspec.json.decode(pinned[0][2]) == {"mode": "pin", "emb_ratio": 0.5, "reason": "bench"}


def test_the_simulator_is_asked_of_the_same_run_from_empty_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live nodes have nothing in their caches when the stream begins; a settled fleet would promise what they cannot keep."""
    asked: list[Scenario] = []

    def simulate(scenario: Scenario) -> SimResult:
        asked.append(scenario)
        return SimResult(cell={"latency_ms_p99": 120.0, "latency_ms_mean": 50.0}, nodes=[], series={})

    monkeypatch.setattr("helmctl.bench.live.simulate", simulate)
    trial = _trial(90.0)._replace(rate=40.0)
    told = [_predicted("burst", 3, way, "helm", trial, lambda _: None) for way in (AUTO, S0, HASH)]
    assert told == [Figures(120.0, 50.0)] * 3
    assert [(one.method, one.router) for one in asked] == [("helm", "joint"), ("static-0.50", "joint"), ("helm", "consistent-hash")]
    assert {(one.profile, one.workload, one.seed, one.settled) for one in asked} == {("cpu-paced", "burst", 3, False)}
    assert {(one.duration_seconds, one.warmup_seconds, one.rate_per_second) for one in asked} == {(549.0, 459.0, 40.0)}


async def test_the_machine_is_watched_every_second_of_the_measured_part_and_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    shares = iter([float("nan"), 0.25, 0.75])  # the first reading has nothing to compare with

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise asyncio.CancelledError

    host = SimpleNamespace(read=lambda _now_ns: next(shares))
    monkeypatch.setattr("helmctl.bench.live_play.HostCpu", lambda: host)
    monkeypatch.setattr("helmctl.bench.live_play.asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr("helmctl.bench.live_play.time", SimpleNamespace(monotonic=lambda: 100.0, monotonic_ns=lambda: 0))
    busy: list[float] = []
    with pytest.raises(asyncio.CancelledError):
        await _watch_host(130.0, busy)
    assert slept == [30.0, 1.0, 1.0, 1.0]
    assert busy == [0.25, 0.75]
