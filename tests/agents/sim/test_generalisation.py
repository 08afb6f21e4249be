"""What no shipped policy was taught on, and that it is asked as the other suites ask."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.learning.config import load_config
from agents.sim.evaluation import generalisation
from agents.sim.evaluation.generalisation import Unseen, run_generalisation, unseen
from agents.sim.evaluation.jobs import Job, carry_out
from agents.sim.evaluation.loads import LOADS, find_load
from agents.sim.evaluation.run import Progress
from agents.sim.scenario import Scenario

SEEDS = (1, 2)
RATE_PER_NODE = 40.0


def short(row: Unseen) -> Unseen:
    """The same row as a run of seconds."""
    scenario = msgspec.structs.replace(row.scenario, nodes=1, duration_seconds=6.0, warmup_seconds=2.0)
    return row._replace(scenario=scenario)


def one_by_one(jobs: list[Job], folder: Path, processes: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Answers as a pool of processes gives them, without the seconds that one takes to start."""
    del processes
    answers = {job.key: carry_out(job, folder) for job in jobs}
    progress(len(answers), len(answers))
    return answers


@pytest.mark.parametrize("policy", ["helm", "paper"])
def test_every_row_has_a_machine_or_a_workload_that_stands_in_no_training_config(policy: str) -> None:
    episodes = load_config(policy).episodes
    taught = {machine.profile for machine in episodes.hardware}
    for row in unseen():
        new = row.scenario.profile not in taught if row.kind == "hardware" else row.scenario.workload not in episodes.workloads
        assert new, row


def test_a_log_is_one_more_row_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("shop.csv", "news.csv")]
    for log in logs:
        log.write_text("user,item,ts\n" + "".join(f"{event % 5},{event % 7},{event}\n" for event in range(100)), "utf-8")
    rows = unseen(logs, quick=True)
    assert [(row.kind, row.profile) for row in rows] == [("workload", "demo")] * 2 + [("log", "shop"), ("log", "news")]
    assert rows[2].scenario.trace == str(logs[0])
    with pytest.raises(ValueError, match="same name"):
        unseen([Path("here/shop.parquet"), Path("there/shop.parquet")])


def test_a_log_that_cannot_be_replayed_is_refused_before_any_work(tmp_path: Path) -> None:
    log = tmp_path / "shop.csv"
    log.write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(ValueError, match="column"):
        unseen([log])


@pytest.mark.parametrize("load", ["normal", "high"])
def test_a_load_is_found_at_the_best_of_the_splits_however_fast_the_work_grows(load: str) -> None:
    def utilisation(scenario: Scenario) -> float:
        assert scenario.rate_per_second is not None
        away = float(scenario.method.removeprefix("static-")) - 0.45
        return (scenario.rate_per_second / scenario.nodes / 500.0) ** 1.5 * (1.0 + 10.0 * away * away)

    found = find_load(Scenario(nodes=3), load, 20.0, ratios=(0.3, 0.45, 0.6), utilisation=utilisation)
    low, high = LOADS[load]
    assert found.emb_ratio == 0.45
    assert low < found.utilisation < high
    assert found.rate_per_node == pytest.approx(500.0 * found.utilisation ** (1 / 1.5))


def test_methods_meet_one_load_and_are_told_against_hindsight_and_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [short(row) for row in unseen(quick=True)[:1]]
    monkeypatch.setattr(generalisation, "unseen", lambda logs, quick: rows)
    monkeypatch.setattr(generalisation, "RATIOS", (0.4, 0.5))
    monkeypatch.setattr(generalisation, "carry_out_all", one_by_one)
    monkeypatch.setattr(generalisation, "_loads", lambda rows, folder, processes, told: [RATE_PER_NODE])
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    found: dict[str, Any] = run_generalisation(
        quick=True, seeds=SEEDS, methods=("b5", "b7"), logs=(), folder=tmp_path, processes=1, progress=progress
    )
    lines = {line["method"]: line for line in found["cells"]}
    assert sorted(lines) == ["b5", "b7", "s1"]
    assert {(line["seeds"], line["regime"], line["hardware"], line["unseen"]) for line in lines.values()} == {
        (2, "trend", "cpu-demo", "workload")
    }
    assert {line["rate_per_node"] for line in lines.values()} == {RATE_PER_NODE}
    assert "p99_vs_s1" in lines["b5"]
    assert "p99_vs_s1" not in lines["s1"]
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
