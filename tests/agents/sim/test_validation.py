"""Validation on made-up runs: the device that is found, the errors that are told, and how far they reach."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.profiles import load_profile
from agents.sim.replay import Parity, Served
from agents.sim.scenario import Scenario
from agents.sim.validation.envelope import FILE, Validation, applicable, as_measured, keep_validation, outside, read_validations
from agents.sim.validation.figures import Compared, side
from agents.sim.validation.fitting import BATCHES_MIN, QUANTILES, fit_device, fit_hop
from agents.sim.validation.run import LiveNode, LiveRun, validate
from agents.workloads.demo import DemoParameters, synthetic_workload

COST = load_profile("cpu-demo").cost
STEADY = Scenario(profile="cpu-demo", workload="steady", nodes=4, duration_seconds=300.0, settled=False)
FOUND = Validation(
    at="2026-01-01T00:00:00Z",
    profile="cpu-demo",
    workload="steady",
    nodes=4,
    rate_per_node=10.0,
    utilisation=0.3,
    seconds=90.0,
    requests=2000,
    latency_p50_error=0.05,
    latency_p99_error=-0.1,
    node_p50_error_max=0.08,
    node_p99_error_max=0.15,
    hit_ratio_error=0.01,
    host_cpu_ratio=0.4,
    cost_factors={"ms_fixed": 2.0},
    jitter=(0.9, 1.1),
    hop_ms=0.7,
    late_ms=(0.0, 5.0),
)


def served(count: int, host: float, link: float, compute: float) -> list[Served]:
    """Batches on a device whose constants are the profile's times these."""
    chance = np.random.default_rng(1)
    batches = []
    for _ in range(count):
        requests, tokens, missing = int(chance.integers(1, 4)), float(chance.integers(64, 700)), int(chance.integers(0, 400))
        work = COST.ms_fixed * requests + COST.ms_per_candidate * 512 * requests + COST.ms_per_hit_row * 600
        prefill = COST.ms_per_token * tokens + COST.ms_per_token_squared * tokens**2
        took_ms = host * work + link * COST.ms_per_missing_row * missing + compute * prefill
        batches.append(Served(0, requests, 0, 600, missing, tokens, tokens**2, 512 * requests, np.zeros(requests), took_ms))
    return batches


def test_a_device_is_found_by_what_its_batches_took() -> None:
    device = fit_device(served(500, 1.5, 0.8, 2.0), COST)
    assert device.cost_factors["ms_fixed"] == device.cost_factors["ms_per_candidate"] == pytest.approx(1.5, rel=1e-3)
    assert device.cost_factors["ms_per_missing_row"] == pytest.approx(0.8, rel=1e-3)
    assert device.cost_factors["ms_per_token_squared"] == pytest.approx(2.0, rel=1e-3)
    assert np.allclose(device.jitter, 1.0, atol=1e-3)


def test_too_few_batches_tell_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_device(served(BATCHES_MIN - 1, 1.0, 1.0, 1.0), COST)


def test_a_hop_is_what_the_quickest_spends_each_way_and_what_others_spend_more_on_the_way_back() -> None:
    chance = np.random.default_rng(2)
    outside_ms = 1.0 + chance.exponential(2.0, 20_000)
    outside_ms[::100] = np.nan  # not answered
    hop = fit_hop(outside_ms, 0.2)
    assert hop.hop_ms == pytest.approx(0.6, abs=0.01)
    assert (len(hop.late_ms), hop.late_ms[0]) == (QUANTILES, 0.0)
    assert 2.0 * hop.hop_ms + np.mean(hop.late_ms) == pytest.approx(np.nanmean(outside_ms) + 0.2, rel=0.01)


def test_a_hop_never_ends_before_it_began() -> None:
    hop = fit_hop(np.linspace(-0.5, 0.5, BATCHES_MIN), 0.0)  # clocks of two processes differ
    assert hop.hop_ms == 0.0
    assert min(hop.late_ms) == 0.0 < max(hop.late_ms)


def test_too_few_requests_tell_nothing_of_a_hop() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_hop(np.ones(BATCHES_MIN - 1), 0.0)


def ran(*controllers: str) -> LiveRun:
    """Half a minute of one node per controller, of which nothing is told but what a device and a hop are fitted to."""
    sent_ns = np.arange(0, 30_000_000_000, 20_000_000)
    batches = [one._replace(now_ns=int(at_ns)) for one, at_ns in zip(served(sent_ns.size, 1.0, 1.0, 1.0), sent_ns, strict=True)]
    parity = Parity("node", 0, 0, 0, 0, 0, [], "")
    nodes = [LiveNode(f"node-{index}", controller, parity, batches) for index, controller in enumerate(controllers)]
    known_ms = np.full(sent_ns.size, 5.0)
    return LiveRun(sent_ns, known_ms + 1.0, known_ms, np.zeros(sent_ns.size, np.int64), 0, nodes, 0.0, 0.2)


@pytest.mark.parametrize(("controllers", "named"), [(["unheard-of"], "unheard-of"), (["helm", "b7"], "controller: the nodes had b7, helm")])
def test_who_decided_live_decides_in_the_simulator(controllers: list[str], named: str) -> None:
    scenario = msgspec.structs.replace(STEADY, nodes=len(controllers), duration_seconds=30.0, warmup_seconds=12.0, method="b5")
    stream = synthetic_workload("steady", 1, 50.0, True, DemoParameters.for_profile(load_profile("cpu-demo")))
    with pytest.raises(ValueError, match=named):
        validate(ran(*controllers), stream, scenario)


def test_errors_are_relative_to_what_was_measured() -> None:
    measured, predicted = side(np.full(50, 10.0), 0.8, 0.5), side(np.full(40, 10.9), 0.79, 0.53)
    one = Compared(name="node-0", measured=measured, predicted=predicted)
    assert (one.latency_p50_error, one.latency_p99_error) == (pytest.approx(0.09), pytest.approx(0.09))
    assert one.hit_ratio_error == pytest.approx(0.03)
    assert one.within_aim


def test_a_node_that_served_nearly_nothing_has_no_error() -> None:
    one = Compared(name="node-0", measured=side(np.full(5, 10.0), None, None), predicted=side(np.full(50, 10.0), 0.5, 0.5))
    assert (one.latency_p50_error, one.hit_ratio_error, one.within_aim) == (None, None, False)


@pytest.mark.parametrize(
    ("change", "utilisation", "per_second", "named"),
    [
        ({}, 0.3, 40.0, None),
        ({}, 0.3, 60.0, "requests/s a node"),
        ({}, 0.5, 40.0, "utilisation"),
        ({"workload": "burst"}, 0.3, 40.0, "burst"),
        ({"profile": "a100-80g"}, 0.3, 40.0, "profile"),
    ],
)
def test_an_answer_outside_of_what_was_measured_says_so(
    change: dict[str, str], utilisation: float, per_second: float, named: str | None
) -> None:
    reasons = outside(FOUND, msgspec.structs.replace(STEADY, **change), utilisation, per_second)
    assert reasons == [] if named is None else named in reasons[0]


def test_a_workload_that_changes_is_covered_only_as_long_as_it_was_measured() -> None:
    demo = msgspec.structs.replace(FOUND, workload="demo")
    assert "first 90 s" in outside(demo, msgspec.structs.replace(STEADY, workload="demo"), 0.3, 40.0)[0]


def test_without_a_live_run_nothing_is_covered() -> None:
    assert "never" in outside(None, STEADY, 0.3, 40.0)[0]
    assert as_measured(STEADY, None) == STEADY


def test_a_scenario_of_the_same_profile_runs_on_the_device_that_was_found() -> None:
    known = as_measured(STEADY, FOUND)
    assert (known.cost_factors, known.jitter) == (FOUND.cost_factors, FOUND.jitter)
    assert (known.hop_ms, known.late_ms) == (FOUND.hop_ms, FOUND.late_ms)
    other = msgspec.structs.replace(STEADY, profile="a100-80g")
    assert as_measured(other, FOUND) == other


def test_the_newest_of_each_workload_is_kept_and_the_nearest_is_applied(tmp_path: Path) -> None:
    later = msgspec.structs.replace(FOUND, at="2026-02-01T00:00:00Z", latency_p50_error=0.01)
    burst = msgspec.structs.replace(FOUND, workload="burst", at="2026-03-01T00:00:00Z")
    for one in (FOUND, burst, later):
        keep_validation(tmp_path, one)
    kept = read_validations(tmp_path)
    assert kept == [burst, later]
    assert applicable(kept, "cpu-demo", "steady") == later
    assert applicable(kept, "cpu-demo", "trend") == burst
    assert applicable([], "cpu-demo", "steady") is None


def test_a_damaged_file_is_no_validation(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{}", "utf-8")
    assert read_validations(tmp_path) == []
