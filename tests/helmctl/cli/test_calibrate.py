import json
from pathlib import Path

import pytest
import torch

from agents.profiles import load_profile
from agents.profiles.text import profile_text
from helmctl.cli.main import run
from tests.agents.runtime.device.parts import PROFILE


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "tiny.toml"
    path.write_text(profile_text(PROFILE))
    return str(path)


def test_a_measured_profile_can_be_used_wherever_a_profile_is_named(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.toml"
    assert run(["calibrate", "--device", "cpu", "--profile", tiny, "--runs", "1", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    mine = load_profile(str(out))
    assert (mine.name, mine.kind, mine.device) == ("mine", "cpu-demo", "cpu")
    assert mine.link_bytes_per_second == PROFILE.link_bytes_per_second  # emulated: a setting, not a finding
    assert mine.calibration is not None
    assert [term.term for term in mine.calibration.terms] == ["link", "gather", "candidates", "prefill", "delta"]
    assert mine.calibration.emulated
    assert set(mine.calibration.versions) == {"helm", "torch", "python"}
    assert said["cost"]["ms_per_token"] == mine.cost.ms_per_token
    assert said["calibration"]["terms"][0]["r_squared"] == mine.calibration.terms[0].r_squared
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["mine.toml", "tiny.toml"]


def test_without_json_every_constant_and_every_error_is_shown(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", "--profile", tiny, "--runs", "1"]) == 0
    said = capsys.readouterr().out
    for word in ("emulated link", "ms_per_missing_row", "kv_hit_compute_ratio", "R^2", "prefill", "delta"):
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--device", "tpu"], "--device tpu: choose cpu or cuda"),
        (["--device", "cuda"], "device cuda: torch"),
        (["--profile", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--profile", "a100-80g"], "kv_token_bytes"),
        (["--out", "mine.json"], "its file ends in .toml"),
        (["--out", "nowhere/mine.toml"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    tiny: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert run(["calibrate", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
