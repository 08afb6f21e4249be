"""What the control plane needs before its processes start: a database in shape, the first admin, tokens for the nodes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import ROOT

OUTPUT_LINES = 8


class Seeded(NamedTuple):
    """Who may sign in, and the password where it was made just now (it is shown once)."""

    username: str
    password: str | None
    url: str


def prepare_database(env: Mapping[str, str], node_names: Sequence[str]) -> Seeded:
    """Migrate and seed with the processes' own environment; `Refusal` with the last lines when it fails."""
    _manage(["migrate", "--noinput", "--verbosity", "0"], env)
    made = json.loads(_manage(["seed_local", "--nodes", ",".join(node_names)], env).splitlines()[-1])
    return Seeded(made["username"], made["password"], made["url"])


def _manage(arguments: Sequence[str], env: Mapping[str, str]) -> str:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()][-OUTPUT_LINES:]
        raise Refusal("\n".join([f"manage.py {arguments[0]} failed:", *(f"  {line}" for line in lines)]))
    return done.stdout
