"""`helmctl` as a person types it: help at once, one line and exit code 2 for a mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

from helmctl.cli.main import COMMANDS, Entry, available, run
from helmctl.supervisor.fleet_file import write_fleet_file
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.state import ROOT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["flet"], "helmctl: No such command 'flet'. Did you mean 'fleet'?\n"),
        (["fleet", "--nodes", "99"], "helmctl: --nodes must be 1 to 64, not 99.\n"),
        (["top", "--json"], "helmctl: no fleet on this machine; start one with: make fleet\n"),
        (["load", "--speed", "3"], "helmctl: no fleet on this machine; start one with: make fleet WORKLOAD=none\n"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr() == ("", line)


BAD_OPTIONS = [["fleet", "--nodes", "many"], ["fleet", "--color"], ["top", "--period", "0"], ["down", "now"], ["--x"]]


@pytest.mark.parametrize("arguments", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("helmctl: ") and said.err.count("\n") == 1


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in available())
    assert {"fleet", "down", "top", "load"} <= set(available())


def test_help_imports_no_command() -> None:
    code = "import sys; from helmctl.cli.main import run; run(['--help']); "
    code += "print(sorted(name for name in sys.modules if name.startswith('helmctl.cli.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['helmctl.cli.main']"


def test_a_command_whose_module_is_not_installed_is_not_offered() -> None:
    assert list(available({"a": Entry("helmctl.cli.nowhere", "a", ""), "top": COMMANDS["top"]})) == ["top"]


def test_down_with_nothing_running_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["down"]) == 0
    assert capsys.readouterr().out == "Nothing was running.\n"


def test_top_shows_an_unreachable_fleet_as_offline(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    write_fleet_file(state / "fleet.json", Plan(nodes=2, router_port=1, node_port=2))
    assert run(["top", "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert set(view) == {"nodes", "router"}
    assert [(node["name"], node["phase"]) for node in view["nodes"]] == [("node-0", "offline"), ("node-1", "offline")]
    assert view["router"] == {"phase": "offline"}


def test_load_hands_its_options_to_the_load_generator(state: Path) -> None:
    write_fleet_file(state / "fleet.json", Plan(nodes=1))
    command = [sys.executable, "-m", "helmctl.cli.main", "load", "--speed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).strip() == "load: --speed: only a log has one, give --trace too"
