"""Evaluation on made-up answers: the optimum's parabola, the plateau, paired changes, S0 and S1, and what a stopped suite keeps."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.profiles import load_profile
from agents.sim.evaluation import jobs
from agents.sim.evaluation.jobs import Job, carry_out
from agents.sim.evaluation.loads import LOADS, peak_utilisation, rate_per_node
from agents.sim.evaluation.optimum import GRID, distance, find_optimum, plateau, refined_argmin
from agents.sim.evaluation.report import alarms, capacity, change, gap_closed, interval, on_seeds_of
from agents.sim.evaluation.run import best_schedule, run_capacity, run_routing
from agents.sim.evaluation.schedules import LEADS_WINDOWS, LEANS, schedules_of
from agents.sim.evaluation.suites import (
    CATALOGUES,
    REGIMES,
    ROUTERS,
    Cell,
    Plan,
    best_statics,
    capacity_factors,
    carriers,
    first_jobs,
    methods_in,
    named_jobs,
    plan_of,
    runs_in,
    schedule_jobs,
    second_jobs,
    static_name,
)
from agents.sim.fleet import SimulatedFleet
from agents.sim.scenario import Scenario, run
from agents.workloads.drawn_once import DrawnSoFar
from agents.workloads.fleet_workload import FleetWorkload


def answer(seed: int, p99: float, *, overloaded: bool = False) -> dict[str, Any]:
    return {"cell": {"seed": seed, "latency_ms_p99": p99, "overloaded": overloaded}}


def bowl(bottom: float) -> np.ndarray:
    return 100.0 + 400.0 * (GRID - bottom) ** 2


def test_the_optimum_lies_between_the_grids_points_where_the_parabola_says() -> None:
    assert refined_argmin(bowl(0.43), GRID) == pytest.approx(0.43)
    assert refined_argmin(bowl(0.05), GRID) == GRID[0]


def test_the_plateau_is_where_the_cost_stays_within_one_percent() -> None:
    low, high = plateau(bowl(0.5), GRID)
    assert (low, high) == (pytest.approx(0.45, abs=0.01), pytest.approx(0.55, abs=0.01))


def test_an_optimum_that_moves_is_found_and_a_run_on_it_has_no_distance() -> None:
    seconds, warmup = 100, 10
    moving = np.linspace(0.3, 0.6, seconds)
    cost = np.stack([bowl(ratio) for ratio in moving], axis=1)
    found = find_optimum(np.repeat(cost[..., None] / 2, 2, axis=2), GRID, warmup, seconds)
    assert found.first_second == 25
    assert found.emb_ratio[0] == pytest.approx(moving[10:40].mean(), abs=1e-6)
    assert found.noise == 0.0
    ratios = np.full((seconds, 2), 0.4)
    ratios[25 : 25 + found.emb_ratio.shape[0]] = found.emb_ratio[:, None]
    assert distance(ratios, found) == (pytest.approx(0.0, abs=1e-6), 0.0)
    assert distance(ratios + 0.2, found).to_point == pytest.approx(0.2, abs=1e-6)
    assert 0.1 < distance(ratios + 0.2, found).to_plateau < 0.2


def test_a_clairvoyant_tries_the_cheapest_path_leaning_to_the_best_static_split_and_begun_early() -> None:
    """The first minute is cheapest at 0.3, the second at 0.5: moves of 0.02 a second get there at once."""
    service_ms = 10.0 * np.stack([bowl(0.3)] * 60 + [bowl(0.5)] * 60, axis=1)
    profile = load_profile("a100-80g")
    tried = schedules_of(service_ms, GRID, 0.4, profile, 1)
    assert len(tried) == len(LEANS) * len(LEADS_WINDOWS)
    whole, early = tried[-2], tried[-1]
    assert (whole[0], whole[-1]) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.5, abs=0.01))
    assert early[:-2] == whole[2:]
    assert tried[0] == pytest.approx([0.4 + 0.3 * (ratio - 0.4) for ratio in whole], abs=1e-3)


def test_s3_is_the_schedule_with_the_least_tail_and_never_worse_than_the_best_static_split() -> None:
    plan = plan_of("paper", quick=True, catalogues=("taobao",))
    cell = plan.swept_cells[0]
    answers = {job.key: answer(1, 10.0) | {"service_ms": np.ones((300, 2)).tolist()} for job in first_jobs(plan)}
    bests = best_statics(plan, answers)
    static, *moving = schedule_jobs(plan, cell, 1, bests, answers)
    answers |= {job.key: answer(1, 11.0) for job in moving}
    assert best_schedule(plan, cell, 1, bests, answers) == answers[static.key]
    answers[moving[2].key] = answer(1, 9.0)
    assert best_schedule(plan, cell, 1, bests, answers) == answer(1, 9.0)


def test_changes_are_paired_by_seed_and_left_out_beside_overload() -> None:
    measured, compared = [answer(1, 9.0), answer(2, 18.0)], [answer(2, 20.0), answer(1, 10.0)]
    found = change(measured, compared)
    assert found is not None
    assert (found["mean"], found["pairs"]) == (pytest.approx(-0.1), 2)
    assert change(measured, [answer(1, 10.0, overloaded=True), answer(2, 20.0)]) is None


def test_an_interval_needs_two_values() -> None:
    assert interval([3.0]) is None
    assert interval([3.0, 3.0]) == [3.0, 3.0]


def test_alarms_are_told_as_delay_after_an_onset_and_as_false_ones_per_hour() -> None:
    answers = [{"cell": {"alarms_seconds": [[76.0, 120.0], [78.0, 197.0], []]}}]
    found = alarms(answers, (75.0, 195.0), (30.0, 330.0))
    assert found == {"onset_delay_seconds": 2.0, "onsets_missed_ratio": 0.5, "false_alarms_per_node_hour": 4.0}
    calm = alarms(answers, (), (30.0, 330.0))
    assert calm == {"onset_delay_seconds": None, "onsets_missed_ratio": None, "false_alarms_per_node_hour": 16.0}


def test_a_gap_to_few_streams_is_taken_on_those_streams_alone() -> None:
    found = on_seeds_of([answer(1, 9.0), answer(3, 9.0)], [answer(seed, 10.0 + seed) for seed in (1, 2, 3)])
    assert found == [answer(1, 11.0), answer(3, 13.0)]


def test_a_share_of_the_gap_is_told_only_where_there_is_one() -> None:
    rows = [{"latency_ms_p99": p99, "overloaded": False} for p99 in (16.0, 20.0, 15.0)]
    assert gap_closed(*rows) == pytest.approx(0.8)
    assert gap_closed(rows[0], rows[1], rows[1]) is None


def test_the_best_statics_are_those_of_the_catalogue_the_cell_and_its_steady_cell() -> None:
    cells = tuple(Cell("taobao", regime, "normal", "none") for regime in REGIMES)
    plan = Plan(cells, (), (0.3, 0.5), (1,), (1,), (), (), False)
    tails = {
        ("steady", 0.3): 10.0,
        ("steady", 0.5): 9.0,
        ("trend", 0.3): 9.0,
        ("trend", 0.5): 20.0,
        ("burst", 0.3): 12.0,
        ("burst", 0.5): 10.0,
    }
    answers = {
        Job(cell.scenario(static_name(ratio), 1)).key: answer(1, tails[cell.regime, ratio]) for cell in cells for ratio in plan.ratios
    }
    bests = best_statics(plan, answers)
    assert {name.split("/", 1)[1]: ratio for name, ratio in bests.items()} == {
        "steady/normal/none/s0": 0.3,
        "trend/normal/none/s0": 0.3,
        "burst/normal/none/s0": 0.3,
        "steady/normal/none/s1": 0.5,
        "trend/normal/none/s1": 0.3,
        "burst/normal/none/s1": 0.5,
        "steady/normal/none/steady-tuned": 0.5,
        "trend/normal/none/steady-tuned": 0.5,
        "burst/normal/none/steady-tuned": 0.5,
    }


def test_every_kept_load_is_inside_its_bounds() -> None:
    table = json.loads((Path(__file__).parents[3] / "agents/sim/evaluation/loads.json").read_text("utf-8"))
    assert table.keys() == {f"{catalogue}/{regime}/{load}" for catalogue in CATALOGUES for regime in REGIMES for load in LOADS}
    for cell, found in table.items():
        catalogue, regime, load = cell.split("/")
        low, high = LOADS[load]
        assert rate_per_node(catalogue, regime, load) == found["rate_per_node"] > 0
        assert low <= found["utilisation"] <= high


def test_an_unknown_cell_or_suite_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="taobao/calm/normal"):
        rate_per_node("taobao", "calm", "normal")
    with pytest.raises(ValueError, match="suite"):
        plan_of("everything")


def test_the_busiest_minute_is_not_the_mean() -> None:
    service = np.zeros((1, 201, 2))
    service[0, :, 0] = 300.0
    service[0, 100:160, 1] = 600.0
    assert peak_utilisation(service, 30.0) == pytest.approx(0.9)


def test_a_piece_that_was_done_is_read_and_not_done_again(tmp_path: Path) -> None:
    job = Job(Cell("taobao", "steady", "normal", "none").scenario("b5", 1))
    (tmp_path / f"{job.key}.json").write_text('{"cell": {"seed": 77}}', "utf-8")
    assert carry_out(job, tmp_path) == {"cell": {"seed": 77}}


def test_another_log_under_the_same_path_is_another_question(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    job = Job(Scenario(trace=str(log)))
    keys = []
    for content in (b"monday", b"tuesday"):
        log.write_bytes(content)
        keys.append(job.key)
    assert keys[0] != keys[1]
    log.unlink()
    with pytest.raises(ValueError, match="log: cannot read"):
        _ = job.key


def noted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, of: int) -> list[str]:
    """Digests of the streams, argument number `of`, that a method was called for."""
    method, calls = getattr(owner, name), []

    def call(*arguments: Any) -> Any:
        calls.append(arguments[of].digest)
        return method(*arguments)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_pieces_share_a_stream_and_a_beginning_and_each_answers_as_it_would_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled, drawn = noted(monkeypatch, SimulatedFleet, "_settle", of=1), noted(monkeypatch, FleetWorkload, "blocks", of=0)
    monkeypatch.setattr(jobs, "_shared", jobs._Shared())
    asked = Cell("taobao", "steady", "normal", "none").scenario("b7", 1)
    small = msgspec.structs.replace(asked, nodes=1, duration_seconds=12.0, warmup_seconds=2.0, rate_per_second=150.0)
    scenarios = [msgspec.structs.replace(small, method=method, seed=seed) for seed in (1, 2) for method in ("static-0.50", "b7")]
    together = [carry_out(Job(scenario), tmp_path)["cell"] for scenario in scenarios]
    assert len(settled) == 2
    assert [drawn.count(digest) for digest in settled] == [1, 1]
    for scenario, cell in zip(scenarios, together, strict=True):
        alone = run(scenario)
        assert alone is not None
        assert {name: cell[name] for name in alone.cell} == alone.cell


def test_pieces_of_the_demo_share_its_stream_and_each_answers_as_it_would_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[DrawnSoFar] = []
    monkeypatch.setattr(jobs, "DrawnSoFar", lambda stream, bytes_max: kept.append(DrawnSoFar(stream, bytes_max)) or kept[-1])
    monkeypatch.setattr(jobs, "_shared", jobs._Shared())
    small = Scenario(
        profile="cpu-demo", workload="burst", nodes=1, duration_seconds=8.0, warmup_seconds=2.0, rate_per_second=20.0, row_shift=3
    )
    scenarios = [
        msgspec.structs.replace(small, method=method, admission=admission, seed=seed)
        for seed in (1, 2)
        for method, admission in (("static-0.50", "shipped"), ("b7", "none"))
    ]
    together = [carry_out(Job(scenario), tmp_path)["cell"] for scenario in scenarios]
    assert len(kept) == 2
    for scenario, cell in zip(scenarios, together, strict=True):
        alone = run(scenario)
        assert alone is not None
        assert {name: cell[name] for name in alone.cell} == alone.cell


def test_every_job_that_a_quick_report_names_was_asked_for() -> None:
    plan = plan_of("paper", quick=True, catalogues=("taobao",))
    answers = {job.key: answer(1, 10.0) | {"service_ms": np.ones((300, 2)).tolist()} for job in first_jobs(plan)}
    bests = best_statics(plan, answers)
    asked = answers.keys() | {job.key for job in second_jobs(plan, bests, answers)}
    assert {job.key for cell in plan.cells for jobs in named_jobs(plan, cell, bests).values() for job in jobs} <= asked
    assert {job.key for cell in plan.swept_cells for job in schedule_jobs(plan, cell, 1, bests, answers)} <= asked


def tail(p99: float, *, overloaded: bool = False) -> dict[str, Any]:
    return {"latency_ms_p99": p99, "slo_ms": 40.0, "overloaded": overloaded}


@pytest.mark.parametrize(
    ("tails", "factor", "bound"),
    [
        ([tail(20.0), tail(80.0)], 0.9, None),
        ([tail(20.0), tail(900.0, overloaded=True)], 0.8, None),
        ([tail(20.0), tail(39.0)], 1.0, "above"),
        ([tail(41.0), tail(80.0)], 0.8, "below"),
    ],
)
def test_a_capacity_lies_where_the_tail_crosses_the_slo(tails: list[dict[str, Any]], factor: float, bound: str | None) -> None:
    found = capacity((0.8, 1.0), tails)
    assert (found["factor"], found["bound"]) == (pytest.approx(factor), bound)


def test_capacity_is_asked_in_six_cells_of_32_nodes_of_every_router_and_of_who_moves_the_split() -> None:
    asked = carriers(quick=False)
    assert len({carrier.cell for carrier in asked}) == 6
    assert {carrier.cell.nodes for carrier in asked} == {32}
    assert {carrier.router for carrier in asked if carrier.method == "static-0.50"} == set(ROUTERS)
    assert {(carrier.method, carrier.router) for carrier in asked if carrier.method != "static-0.50"} == {
        ("b5", "joint"),
        ("helm", "joint"),
    }
    assert 1.0 in capacity_factors(quick=False)
    assert 1.0 in capacity_factors(quick=True)


def test_who_does_not_carry_a_load_is_not_asked_for_more_but_for_the_load_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, float]] = []

    def answered(jobs: Sequence[Job], folder: Path, processes: int, progress: Callable[[int, int], None]) -> dict[str, dict[str, Any]]:
        """A P99 of 40 ms, which is the SLO, times how far the arrivals are above what the router carries."""
        answers = {}
        for job in jobs:
            base = next(one for one in carriers(quick=True) if one.job(1.0).scenario.workload == job.scenario.workload)
            factor = round(job.scenario.rate_per_second / base.job(1.0).scenario.rate_per_second, 2)  # type: ignore[operator]
            carried = {"joint": 2.0, "kv-affinity": 1.0}.get(job.scenario.router, 0.5)
            asked.append((job.scenario.router, job.scenario.workload, factor))
            figures = {"latency_ms_p99": 40.0 * factor / carried, "slo_ms": 40.0, "overloaded": factor > 3.0 * carried}
            answers[job.key] = {"cell": defaultdict(lambda: 1.0, figures)}
        progress(len(jobs), len(jobs))
        return answers

    monkeypatch.setattr("agents.sim.evaluation.run.carry_out_all", answered)
    shown: list[tuple[int, int]] = []
    found = run_capacity(quick=True, folder=tmp_path, processes=1, progress=lambda done, total: shown.append((done, total)))
    factors, told = capacity_factors(quick=True), {(row["router"], row["capacity_bound"]) for row in found["cells"]}
    assert told == {
        ("joint", "above"),
        ("kv-affinity", None),
        ("consistent-hash", "below"),
        ("least-loaded", "below"),
        ("round-robin", "below"),
    }
    assert {factor for router, _, factor in asked if router == "least-loaded"} == {factors[0], 1.0}
    assert {factor for router, _, factor in asked if router == "joint"} == set(factors)
    assert all(done <= total for done, total in shown)


def test_every_router_is_held_against_ours_and_against_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tails_ms = {"joint": 20.0, "consistent-hash": 80.0}

    def answered(jobs: Sequence[Job], folder: Path, processes: int, progress: Callable[[int, int], None]) -> dict[str, dict[str, Any]]:
        """80 ms behind hashing, 20 behind ours, 40 behind others; half of it under `helm`."""
        answers = {}
        for job in jobs:
            tail_ms = tails_ms.get(job.scenario.router, 40.0) * (0.5 if job.scenario.method == "helm" else 1.0)
            figures = {"latency_ms_p99": tail_ms, "seed": job.scenario.seed, "overloaded": False, "method": job.scenario.method}
            answers[job.key] = {"cell": defaultdict(lambda: 1.0, figures)}
        return answers

    monkeypatch.setattr("agents.sim.evaluation.run.carry_out_all", answered)
    found = run_routing(
        quick=True, nodes=4, seeds=(1,), catalogues=("taobao",), folder=tmp_path, processes=1, progress=lambda done, total: None
    )
    steady = {row["router"]: row for row in found["cells"] if row["regime"] == "steady"}
    against_hashing = {router: row["p99_vs_hash"]["mean"] for router, row in steady.items()}
    assert {router: against_hashing[router] for router in ("consistent-hash+helm", "joint", "joint+helm", "kv-affinity")} == {
        "consistent-hash+helm": pytest.approx(-0.5),
        "joint": pytest.approx(-0.75),
        "joint+helm": pytest.approx(-0.875),
        "kv-affinity": pytest.approx(-0.5),
    }
    assert steady["kv-affinity"]["p99_vs_joint"]["mean"] == pytest.approx(1.0)


def test_a_burst_layer_is_compared_where_a_burst_comes() -> None:
    plan = plan_of("paper")
    assert "b5+burst" in methods_in(plan, Cell("taobao", "burst", "normal", "none"))
    assert "b5+burst" not in methods_in(plan, Cell("taobao", "trend", "normal", "none"))


def test_the_suites_stay_as_large_as_their_time_allows() -> None:
    """At four seconds a run and two at a time: an hour and twenty minutes for all of it, four minutes where it must be quick."""
    assert runs_in(plan_of("paper")) <= 2600
    assert runs_in(plan_of("paper", quick=True)) <= 160
