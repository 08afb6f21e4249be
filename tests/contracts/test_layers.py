"""The import order of the house, and what the pure centre may not touch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ("wire", "profiles", "numerics", "pool", "workloads", "caches", "artifacts", "controller", "router", "node")
CLOCKS_AND_CHANCE = {"time", "random", "asyncio", "threading", "subprocess", "multiprocessing"}
NETWORKS_AND_DEVICES = {"socket", "ssl", "selectors", "http", "urllib", "aiohttp", "httpx", "requests", "uvloop", "torch"}
IMPURE = CLOCKS_AND_CHANCE | NETWORKS_AND_DEVICES


def modules(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it, inside functions too."""
    found: set[str] = set()
    for item in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(item, ast.Import):
            found.update(alias.name.split(".")[0] for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.module and item.level == 0:
            found.add(item.module.split(".")[0])
    return found


def test_imports_go_downward_only() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", PURE)
def test_the_brain_imports_no_clock_no_chance_and_no_device(package: str) -> None:
    broken = {str(path.relative_to(ROOT)): sorted(imported(path) & IMPURE) for path in modules(ROOT / "agents" / package)}
    assert {path: names for path, names in broken.items() if names} == {}


def test_the_rule_would_notice_a_clock_inside_a_function(tmp_path: Path) -> None:
    path = tmp_path / "sly.py"
    path.write_text("def f():\n    from time import time\n    import torch.nn\n    return time()\n")
    assert imported(path) & IMPURE == {"time", "torch"}


def test_no_django_below_the_line() -> None:
    for path in modules(ROOT / "agents"):
        assert not imported(path) & {"django", "rest_framework", "channels", "celery", "apps", "helmctl"}, path


WEB = {"django", "rest_framework", "channels", "celery", "kombu", "redis", "uvicorn", "plotly", "apps", "helmctl"}


@pytest.mark.parametrize("daemon", ["node_daemon", "router.daemon", "load_main"])
def test_an_agent_loads_nothing_of_the_web(daemon: str) -> None:
    """Imported for real: what a package pulls in is not seen in the source."""
    program = f"import sys, agents.runtime.{daemon}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & WEB


def test_a_node_refuses_a_wrong_command_line_before_anything_heavy_is_loaded() -> None:
    program = "import sys, agents.runtime.node_main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (WEB | {"torch", "numba", "pyarrow"})


def test_the_agents_requirements_hold_neither_django_nor_celery() -> None:
    lines = (ROOT / "requirements-agent.txt").read_text("utf-8").lower().splitlines()
    names = {line.split("==")[0].split("[")[0].strip() for line in lines if line.strip() and not line.startswith(("#", "-"))}
    assert not {name for name in names if name.startswith(("django", "celery", "channels", "kombu", "redis"))}
    assert not any(line.startswith("-r") for line in lines)  # nor through another file


def test_the_bodies_do_not_know_each_other() -> None:
    for path in modules(ROOT / "agents/runtime"):
        assert "agents.sim" not in path.read_text("utf-8"), path
    for path in modules(ROOT / "agents/sim"):
        assert "agents.runtime" not in path.read_text("utf-8"), path


def test_numba_has_one_door() -> None:
    users = [str(path.relative_to(ROOT)) for path in modules(ROOT / "agents") if "numba" in imported(path)]
    assert users == ["agents/numerics/jit.py"]
