"""`helmctl policy train`: what it refuses, and what it leaves in the folder."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from helmctl.cli.main import run
from tests.agents.learning import tiny


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config", "atari"], "unknown 'atari'"),
        (["--config", "missing/config.toml"], "missing/config.toml"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy", "train", "--out", str(tmp_path), *arguments]) == 2
    told = capsys.readouterr().err
    assert named in told
    assert told.count("\n") == 1


def test_a_bad_field_is_refused_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(tiny.TEXT.format(features="helm", action=tiny.STEP).replace("fleets = 1", "fleets = 0"))
    assert run(["policy", "train", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "fleets" in capsys.readouterr().err


def test_a_run_leaves_policy_card_and_curve(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(tiny.TEXT.format(features="helm", action=tiny.STEP))
    out = tmp_path / "out"
    assert run(["policy", "train", "--config", str(path), "--seed", "3", "--steps", "10", "--no-evaluate", "--out", str(out)]) == 0
    card = json.loads((out / "tiny.json").read_text())
    assert (card["seed"], card["training"]["steps"]) == (3, 10)
    assert pq.read_table(out / "tiny-curve.parquet").num_rows == 1
