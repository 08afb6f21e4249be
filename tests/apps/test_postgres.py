"""The same control plane on PostgreSQL: every test of it, and what only real concurrency shows."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]
USER = "nobody"  # the server refuses to run as root


def program(name: str) -> str:
    """A server program: on the PATH, or where `pg_config` says."""
    found = shutil.which(name)
    if found is None and shutil.which("pg_config"):
        folder = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        found = shutil.which(name, path=folder)
    if found is None:
        pytest.fail(f"{name} is needed for these tests: install PostgreSQL's server (apt-get install postgresql)")
    return str(Path(found).resolve())


def as_server_user(*command: str) -> None:
    prefix = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/tmp", timeout=60)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A throw-away server; its address without the database's name."""
    folder = Path(tempfile.mkdtemp(prefix="helm-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    as_server_user(program("initdb"), "-D", str(data), "--no-sync", "-A", "trust", "-U", "helm", "-E", "UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = program("pg_ctl")
    as_server_user(control, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgres://helm@127.0.0.1:{port}"
    as_server_user(control, "-D", str(data), "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def test_what_eight_want_at_once_one_gets(postgres: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DATABASE_URL": f"{postgres}/postgres",
        "HELM_STATE_DIR": str(tmp_path),
        "REDIS_URL": "unix:///nonexistent",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.race"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])

    assert result["vendor"] == "postgresql"
    assert result["enrol"] == {"done": 1, "token_used": 7}
    assert result["override"].pop("done") == 1
    assert sum(result["override"].values()) == 7
    assert set(result["override"]) <= {"concurrent_write", "stale_version"}
    assert (result["generation"], result["entries"]) == (2, 1)
    assert result["claim"] == {"done": 1, "lost": 7}
    assert (result["hand_over"], result["handled"]) == ({"done": 1, "lost": 7}, 1)


def test_the_whole_suite_of_the_apps_passes_on_it(postgres: str) -> None:
    environment = {**os.environ, "HELM_TEST_DATABASE_URL": f"{postgres}/helm"}
    command = [sys.executable, "-m", "pytest", "tests/apps", "-q", "-x", "-p", "no:cacheprovider", "-m", "not live and not postgres"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
