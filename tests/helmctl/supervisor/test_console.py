"""The console's build: which Node, when it is skipped, and what a failure says. A small npm made here stands for the real one."""

import sys
from pathlib import Path

import pytest

from helmctl.supervisor.console import build_console, find_node, is_new_enough, parse_version, source_key
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder

NPM = """#!/bin/sh
echo "$1 $2" >> "{diary}"
case "$1" in
    ci) mkdir -p node_modules ;;
    run) {build} ;;
esac
"""
BUILDS = "mkdir -p dist && echo built > dist/index.html"


def machine(tmp_path: Path, *, version: str = "v20.19.1", build: str = BUILDS) -> dict[str, str]:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in (("node", f"#!/bin/sh\necho {version}\n"), ("npm", NPM.format(diary=tmp_path / "diary", build=build))):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.fixture
def frontend(tmp_path: Path) -> Path:
    folder = tmp_path / "a frontend"
    (folder / "src/api").mkdir(parents=True)
    for name in ("package.json", "package-lock.json", "src/main.tsx"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def diary(tmp_path: Path) -> list[str]:
    return (tmp_path / "diary").read_text().splitlines()


@pytest.mark.parametrize(
    ("version", "fits"),
    [((20, 18), False), ((20, 19), True), ((21, 9), False), ((22, 11), False), ((22, 12), True), ((24, 0), True), (None, False)],
)
def test_vites_versions_of_node_are_known(version: tuple[int, int] | None, fits: bool) -> None:
    assert is_new_enough(version) is fits


def test_a_version_is_read_from_what_node_prints() -> None:
    assert parse_version("v20.19.1\n") == (20, 19)
    assert parse_version("command not found") is None


def test_the_machines_node_is_used_where_it_is_new_enough(tmp_path: Path) -> None:
    assert find_node(machine(tmp_path)) == tmp_path / "bin"


def test_an_old_node_is_passed_over_for_the_packages_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "venv"
    packaged.mkdir()
    machine(packaged, version="v24.19.0")
    monkeypatch.setattr(sys, "executable", str(packaged / "bin/python"))
    assert find_node(machine(tmp_path, version="v18.20.4")) == packaged / "bin"


def test_without_any_node_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere/python"))
    with pytest.raises(Refusal, match=r"^the console needs Node 20\.19 or 22\.12"):
        find_node({"PATH": str(tmp_path / "empty")})


def test_a_first_build_installs_and_builds_and_a_second_does_nothing(tmp_path: Path, frontend: Path, state: StateFolder) -> None:
    said: list[str] = []
    assert build_console(state, said.append, machine(tmp_path), frontend)
    assert diary(tmp_path) == ["ci --no-audit", "run build"]
    assert said == ["Installing the console's packages", "Building the console"]
    assert not build_console(state, said.append, {"PATH": ""}, frontend)
    assert len(diary(tmp_path)) == 2


def test_a_changed_source_builds_without_installing(tmp_path: Path, frontend: Path, state: StateFolder) -> None:
    environ = machine(tmp_path)
    build_console(state, lambda line: None, environ, frontend)
    (frontend / "src/main.tsx").write_text("changed")
    assert build_console(state, lambda line: None, environ, frontend)
    assert diary(tmp_path) == ["ci --no-audit", "run build", "run build"]


def test_a_changed_lock_installs_again(tmp_path: Path, frontend: Path, state: StateFolder) -> None:
    environ = machine(tmp_path)
    build_console(state, lambda line: None, environ, frontend)
    (frontend / "package-lock.json").write_text('{"a": 1}')
    build_console(state, lambda line: None, environ, frontend)
    assert diary(tmp_path)[2:] == ["ci --no-audit", "run build"]


def test_what_the_build_writes_is_no_source(frontend: Path) -> None:
    key = source_key(frontend)
    (frontend / "node_modules").mkdir()
    for made in ("node_modules/a.js", "src/api/schema.ts"):
        (frontend / made).write_text("made")
    assert source_key(frontend) == key
    (frontend / "src/new.ts").write_text("by hand")
    assert source_key(frontend) != key


def test_a_failed_build_shows_its_last_lines_and_is_tried_again(tmp_path: Path, frontend: Path, state: StateFolder) -> None:
    with pytest.raises(Refusal) as refused:
        build_console(state, lambda line: None, machine(tmp_path, build="echo 'type error in main.tsx' >&2; exit 1"), frontend)
    assert str(refused.value).splitlines() == [f"npm run build --silent failed in {frontend}:", "  type error in main.tsx"]
    assert build_console(state, lambda line: None, machine(tmp_path), frontend)
