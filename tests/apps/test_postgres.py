"""The same control plane on PostgreSQL: every test of it, and what only real concurrency shows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import running_postgres

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A throw-away server; its address without the database's name."""
    with running_postgres() as port:
        yield f"postgres://helm@127.0.0.1:{port}"


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
    assert result["training"] == {"done": 1, "training_open": 7}
    assert result["claim"] == {"done": 1, "lost": 7}
    assert (result["hand_over"], result["handled"]) == ({"done": 1, "lost": 7}, 1)


def test_the_whole_suite_of_the_apps_passes_on_it(postgres: str) -> None:
    environment = {**os.environ, "HELM_TEST_DATABASE_URL": f"{postgres}/helm"}
    command = [sys.executable, "-m", "pytest", "tests/apps", "-q", "-x", "-p", "no:cacheprovider", "-m", "not live and not postgres"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
