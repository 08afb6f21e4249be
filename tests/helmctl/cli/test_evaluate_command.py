"""What `helmctl eval` refuses before any work starts."""

from pathlib import Path

import pytest

from helmctl.cli.main import run


def refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of options that end with exit code 2."""
    assert run(["eval", *options]) == 2
    return capsys.readouterr().err


def test_an_unknown_suite_or_catalogue_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown 'papers', choose one of paper" in refused(["--suite", "papers"], capsys)
    assert "unknown 'ebay', choose from taobao" in refused(["--only", "ebay"], capsys)


def test_a_log_is_refused_where_no_log_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.parquet"
    log.touch()
    assert "only the generalisation suite" in refused(["--suite", "routing", "--log", str(log)], capsys)


def test_two_logs_of_one_name_and_an_unknown_method_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [tmp_path / place / "log.parquet" for place in ("here", "there")]
    for log in logs:
        log.parent.mkdir()
        log.touch()
    asked = [part for log in logs for part in ("--log", str(log))]
    assert "same name" in refused(["--suite", "generalisation", "--quick", *asked], capsys)
    assert "cannot read" in refused(["--suite", "generalisation", "--method", "policy-/nowhere/helm.json"], capsys)
