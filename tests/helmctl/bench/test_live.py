"""What the environment may say about the live comparison, and what it may not."""

import pytest

from agents.sim.scenario import Scenario, SimResult
from agents.workloads.demo import DemoParameters, keyframes
from helmctl.bench.fleet import BenchError
from helmctl.bench.live import AUTO, HASH, S0, Figures, _pairs, _predicted, _trial


def test_a_trial_is_of_both_regimes_on_paced_nodes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _trial(90.0)
    assert (plain.profile, plain.regimes, plain.seconds) == ("cpu-paced", ("trend", "burst"), 90.0)
    assert (plain.rate, plain.s0_ratio, plain.nodes, plain.ways) == (0.0, 0.5, 4, (S0, AUTO, HASH))
    for name, value in (("PROFILE", "cpu-demo"), ("REGIMES", "burst"), ("RATE", "12.5"), ("S0", "0.4"), ("NODES", "2"), ("AGAINST", "s0")):
        monkeypatch.setenv(f"HELM_BENCH_LIVE_{name}", value)
    told = _trial(90.0)
    assert (told.profile, told.regimes, told.rate, told.s0_ratio, told.nodes) == ("cpu-demo", ("burst",), 12.5, 0.4, 2)
    assert told.ways == (S0, AUTO)


def test_a_trend_is_measured_after_a_whole_cycle_and_a_burst_from_its_begin_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = DemoParameters()
    cycle = keyframes("trend", parameters)[-1].at_seconds
    assert _trial(90.0).warm_seconds == {"trend": cycle, "burst": parameters.steady_seconds}
    monkeypatch.setenv("HELM_BENCH_LIVE_WARM_SECONDS", "45")
    assert _trial(90.0).warm_seconds == {"trend": 45.0, "burst": 45.0}


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
    del found[HASH.name]
    assert sorted(_pairs(found)) == ["live_mean_ratio_vs_s0", "live_p99_ratio_vs_s0"]


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
    assert {(one.duration_seconds, one.warmup_seconds, one.rate_per_second) for one in asked} == {(210.0, 120.0, 40.0)}
