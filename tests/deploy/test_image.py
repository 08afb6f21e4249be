"""deploy/Dockerfile: its stages, and that each holds what its processes import. No engine is needed to look."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.composition import ROOT

DOCKERFILE = ROOT / "deploy/Dockerfile"
# Imports the given modules while refusing every package that is not allowed; prints what was asked for and refused.
PROBE = """
import importlib, sys
from importlib.abc import MetaPathFinder
allowed, installed = (set(text.split(",")) for text in sys.argv[1:3])
class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in installed and top not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r} in this image", name=name)
sys.meta_path.insert(0, Refuse())
if "django" in allowed:
    import django
    django.setup()
for name in sys.argv[3:]:
    importlib.import_module(name)
"""


class Stage(NamedTuple):
    """One `FROM ... AS name` with its lines."""

    base: str
    lines: list[str]


def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    for line in DOCKERFILE.read_text("utf-8").replace("\\\n", " ").splitlines():
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[start[2]] = Stage(start[1], [])
        elif found and line.strip() and not line.startswith("#"):
            next(reversed(found.values())).lines.append(line)
    return found


def chain(name: str) -> list[str]:
    """All lines that make a stage, those of the stages below it first."""
    stage = stages()[name]
    return [*(chain(stage.base) if stage.base in stages() else []), *stage.lines]


def copied(name: str) -> set[str]:
    return {line.split()[1].rstrip("/") for line in chain(name) if line.startswith("COPY ") and "--from" not in line}


def packages(files: set[str]) -> set[str]:
    """Everything that is installed with requirement files: what they pin and what that needs."""
    lines = [line.partition("#")[0].strip() for file in files for line in (ROOT / file).read_text("utf-8").splitlines()]
    lines = [line for line in lines if not line.startswith("-r")]  # another of the files
    todo, seen = [(Requirement(line), "") for line in lines if line], set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({**default_environment(), "extra": extra}):
            continue
        key = canonicalize_name(requirement.name)
        for wanted in requirement.extras or {""}:
            if (key, wanted) not in seen:
                seen.add((key, wanted))
                todo += [(Requirement(text), wanted) for text in _needs(key)]
    return {key for key, _ in seen}


def _needs(name: str) -> list[str]:
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []  # for another platform


def imports(names: set[str]) -> tuple[set[str], set[str]]:
    """Top-level modules of the packages `names`, and of everything that is installed here."""
    by_module = {module: {canonicalize_name(name) for name in found} for module, found in packages_distributions().items()}
    ours = {"agents", "apps", "helmctl", "tests"}
    return {module for module, found in by_module.items() if found & names}, set(by_module) - ours


def modules_of(target: str) -> list[str]:
    """What the services of an image run with `python -m`, and what they import once they run."""
    written = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"].values()
    commands = [service["command"] for service in written if service.get("build", {}).get("target") == target]
    run = {command[command.index("-m") + 1] for command in commands if "-m" in command}
    tasks = ["helmctl.celery", "apps.telemetry.tasks", "apps.whatif.tasks", "apps.policies.tasks"]
    warm = ["agents.node.warm"]
    later = {
        "web": [
            *tasks,
            *warm,
            "helmctl.asgi",
            "helmctl.beat",
            "helmctl.urls",
            "helmctl.cli.status",
            "apps.fleet.management.commands.seed_local",
        ],
        "worker": [*tasks, *warm, "apps.whatif.running", "agents.sim.fleet", "agents.learning.tune"],
        "agent": [*warm, "agents.router.warm", "agents.runtime.node_daemon", "agents.runtime.router.daemon", "agents.runtime.model.hstu"],
    }
    return [*sorted(run), *later[target], "helmctl.supervisor.health"]


@pytest.mark.parametrize("target", ["web", "worker", "agent"])
def test_an_image_holds_every_package_that_its_processes_import(target: str, tmp_path: Path) -> None:
    files = {name for name in copied(target) if name.startswith("requirements-")}
    allowed, installed = imports(packages(files))
    assert ("torch" in allowed) == (target != "web")
    environ = {"HELM_STATE_DIR": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "helmctl.settings", "PATH": ""}
    command = [sys.executable, "-c", PROBE, ",".join(allowed), ",".join(installed), *modules_of(target)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]


def test_a_package_that_is_missing_would_be_noticed(tmp_path: Path) -> None:
    allowed, installed = imports(packages({"requirements-agent.txt"}))
    environ = {"HELM_STATE_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "helmctl.settings", "PATH": ""}
    command = [sys.executable, "-c", PROBE, ",".join(allowed), ",".join(installed), "helmctl.asgi"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert "No module named 'django' in this image" in done.stderr


@pytest.mark.parametrize("target", ["web", "worker", "agent"])
def test_an_image_holds_the_sources_it_runs(target: str) -> None:
    django = set() if target == "agent" else {"manage.py", "apps"}
    assert copied(target) >= {"agents", "helmctl", *django}
    assert all((ROOT / name).exists() for name in copied(target))


@pytest.mark.parametrize("target", ["web", "worker", "agent"])
def test_processes_run_as_a_user_without_rights(target: str) -> None:
    assert [line for line in chain(target) if line.startswith("USER ")][-1] == "USER helm"
    assert any("useradd" in line and "helm" in line for line in chain(target))


def test_every_image_starts_from_a_slim_python() -> None:
    assert stages()["base"].base == "python:${PYTHON}-slim"
    assert "ARG PYTHON=3.11" in DOCKERFILE.read_text("utf-8")
    assert {stage.base for name, stage in stages().items() if name not in {"base", "console"}} <= set(stages())


def test_every_target_of_the_composition_is_a_stage() -> None:
    written = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"].values()
    builds = [service["build"] for service in written if "build" in service]
    assert {build["target"] for build in builds} == {"web", "worker", "agent"} <= set(stages())
    assert {build["dockerfile"] for build in builds} == {"deploy/Dockerfile"}


def test_the_image_sets_what_processes_expect_of_it() -> None:
    line = next(line for line in chain("web") if line.startswith("ENV "))
    set_here = dict(re.findall(r"(\w+)=(\S+)", line))
    assert set_here["NUMBA_CACHE_DIR"].startswith("/var/cache/helm")  # beside the sources the kernels belong to, not in a volume
    assert set_here["HELM_STATE_DIR"] == "/var/lib/helm"


def test_nothing_that_is_imported_is_compiled_at_a_start() -> None:
    assert "UV_COMPILE_BYTECODE=1" in next(line for line in chain("agent") if line.startswith("ENV "))
    sources = {"agents", "apps", "helmctl"}
    for image, held in {"agent": sources - {"apps"}, "worker": sources, "web": sources}.items():
        compiled = [line.split()[5:] for line in chain(image) if line.startswith("RUN python -m compileall -q ")]
        assert {folder for folders in compiled for folder in folders} == held, image
