"""What the control plane needs before its processes start: a database in shape, the first admin, tokens for the nodes."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from helmctl.supervisor.processes import Service, preparation
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
    said = {service.name: _run(service) for service in preparation(node_names, env)}
    made = json.loads(said["seed"].splitlines()[-1])
    return Seeded(made["username"], made["password"], made["url"])


def _run(service: Service) -> str:
    done = subprocess.run(service.command, cwd=ROOT, env={**os.environ, **service.env}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()][-OUTPUT_LINES:]
        raise Refusal("\n".join([f"{' '.join(service.command[1:3])} failed:", *(f"  {line}" for line in lines)]))
    return done.stdout
