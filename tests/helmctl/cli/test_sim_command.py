import json
from pathlib import Path
from typing import Any

import pytest

from agents.workloads import journal
from helmctl.cli import sim
from helmctl.cli.main import run

SMALL = ["--profile", "cpu-tiny", "--workload", "steady", "--rate", "20", "--duration", "4"]


def test_a_run_with_faults_a_start_and_sampled_rows_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "2", "--fault", "node-loss@1+1:1", "--fault", "slow-link@2:0", "--emb-ratio", "0.3", "--row-shift", "2"]
    assert run(["sim", "run", *SMALL, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cell"]["nodes"] == len(found["nodes"]) == 2
    assert found["cell"]["requests"] > 30


def test_a_mix_says_how_many_nodes_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "run", *SMALL, "--profile", "cpu-tiny*1,cpu-tiny*2", "--method", "static-0.40"]) == 0
    told = capsys.readouterr().out
    assert "nodes                    3" in told
    assert "emb_ratio_max" in told


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--nodes", "0"], "nodes"),
        (["--duration", "-1"], "duration_seconds"),
        (["--warmup", "-1"], "warmup_seconds"),
        (["--method", "magic"], "controller"),
        (["--fault", "node-loss@-3:0"], "fault"),
        (["--fault", "node-loss@3:9"], "fault"),
        (["--row-shift", "99"], "row_shift"),
        (["--emb-ratio", "1"], "emb_ratio_start"),
        (["--rate", "100000"], "rate_per_second"),
        (["--profile", "cpu-tiny*x"], "profile"),
        (["--workload", "taobao/none"], "regime"),
        (["--trace", "nowhere.csv"], "nowhere.csv"),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_the_impossible_is_refused_in_one_line(command: str, options: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "sweep" and options[0] == "--emb-ratio":
        options = ["--ratio", "1"]
        field = "ratio"
    assert run(["sim", command, *SMALL, *options]) == 2
    told = capsys.readouterr().err
    assert field in told
    assert told.count("\n") == 1


@pytest.fixture
def known_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose figures are known: the second method takes half the time, `static-0.300` cannot keep up."""

    def cells(scenarios: list[Any], processes: int, done: Any) -> list[dict[str, Any]]:
        known = dict.fromkeys(("utilisation", "latency_ms_mean", "latency_ms_p50", "emb_hit_ratio", "kv_hit_ratio"), 0.5)
        p99 = {"static-0.50": 20.0, "b5": 10.0, "static-0.300": 500.0}
        return [
            known | {"method": one.method, "seed": one.seed, "latency_ms_p99": p99[one.method], "overloaded": one.method == "static-0.300"}
            for one in scenarios
        ]

    monkeypatch.setattr(sim, "sweep", cells)


def test_a_sweep_compares_with_its_first_method(known_cells: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "static-0.50", "--method", "b5", "--ratio", "0.3", "--seed", "1", "--seed", "2"]
    assert run(["sim", "sweep", *SMALL, *options]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["method", "static-0.50", "b5", "static-0.300"]
    assert lines[2].endswith("-50.0 %")
    assert lines[3].endswith("overloaded")


def test_a_sweep_against_an_overloaded_baseline_prints_no_percentage(known_cells: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "sweep", *SMALL, "--method", "static-0.300", "--method", "b5"]) == 0
    assert "%" not in capsys.readouterr().out


def test_a_sweep_as_json_has_rows_and_every_run(known_cells: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "sweep", *SMALL, "--method", "static-0.50", "--method", "b5", "--seed", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["p99_change_percent"] for row in found["rows"]] == [None, pytest.approx(-50.0)]
    assert [one["seed"] for one in found["cells"]] == [3, 3]


def test_a_later_part_of_a_journal_is_refused_with_the_file_to_begin_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = journal.Header(
        journal_version=1, wire_version=1, name="node-0", profile="cpu-tiny", config={}, salt_digest="ab", started_unix_ns=1, part=2
    )
    path = tmp_path / "17.p2.journal"
    path.write_bytes(journal.encode_record(header))
    assert run(["sim", "parity", str(path)]) == 2
    assert "17.p2.journal is part 2 of a run, which replays from 17.journal on" in capsys.readouterr().err
