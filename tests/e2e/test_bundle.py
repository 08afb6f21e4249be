"""What is shipped to the browser, and what it was made from."""

import gzip
import json
import os
import re
import subprocess
from pathlib import Path

from helmctl.supervisor.console import find_node
from tests.e2e.stage import REPOSITORY, Stage

FRONTEND = REPOSITORY / "frontend"
INITIAL_JS_GZIP_BYTES_MAX = 250 * 1024  # the first view on the internal network in 1.5 s


def gzip_bytes(file: Path) -> int:
    return len(gzip.compress(file.read_bytes(), compresslevel=9))


def test_the_first_view_loads_little_and_plotly_only_later(stage: Stage) -> None:
    dist = FRONTEND / "dist"
    initial = re.findall(r'(?:src|href)="/(assets/[^"]+\.js)"', (dist / "index.html").read_text("utf-8"))
    assert initial
    assert sum(gzip_bytes(dist / name) for name in initial) <= INITIAL_JS_GZIP_BYTES_MAX
    plotly = [file.relative_to(dist).as_posix() for file in dist.glob("assets/*.js") if "Plotly" in file.read_text("utf-8")]
    heavy = [name for name in plotly if gzip_bytes(dist / name) > INITIAL_JS_GZIP_BYTES_MAX]
    assert len(heavy) == 1
    assert not set(heavy) & set(initial)


def test_types_are_made_from_the_schema_that_the_server_speaks(stage: Stage) -> None:
    """When this fails: `.venv/bin/python manage.py spectacular --format openapi-json --file frontend/openapi.json`."""
    kept, spoken = json.loads((FRONTEND / "openapi.json").read_text("utf-8")), stage.schema()
    for schema in (kept, spoken):
        del schema["components"]["schemas"]["ProfileEnum"]  # profiles are data: a new one needs no new types
    assert kept == spoken


def test_the_lock_file_names_versions_and_no_address_to_load_them_from() -> None:
    lock = json.loads((FRONTEND / "package-lock.json").read_text("utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert not [name for name, package in packages.items() if "resolved" in package]
    wanted = lock["packages"][""]
    for version in {**wanted["dependencies"], **wanted["devDependencies"]}.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), version


def test_the_pure_parts_of_the_console_pass_their_own_tests(stage: Stage) -> None:
    path = os.pathsep.join([str(find_node(os.environ)), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["npx", "vitest", "run", "--reporter=dot"],
        cwd=FRONTEND,
        env={**os.environ, "PATH": path, "CI": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
