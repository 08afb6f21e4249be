"""`helmctl load`: the load generator, by hand."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import find_state_folder


def load(
    trace: Annotated[Path | None, typer.Option(help="Parquet log with user, item and ts to replay.")] = None,
    speed: Annotated[float, typer.Option(help="Seconds of the log per second.", min=0.001, max=1e6)] = 60.0,
    workload: Annotated[str, typer.Option(help="A shipped workload, when there is no log.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the workload.")] = 1,
    seconds: Annotated[float | None, typer.Option(help="Stop after this long.", min=0.1)] = None,
) -> None:
    """Send requests to this machine's router until Ctrl-C, or until the log ends."""
    from helmctl.supervisor.fleet_file import read_fleet_file
    from helmctl.supervisor.processes import runtime_env

    state = find_state_folder()
    if read_fleet_file(state.fleet_file) is None:
        raise Refusal("no fleet on this machine; start one with: make fleet")
    if trace is not None and not trace.is_file():
        raise Refusal(f"--trace {trace}: there is no such file.")
    source = ["--trace", str(trace.absolute()), "--speed", str(speed)] if trace else ["--workload", workload, "--seed", str(seed)]
    limit = ["--seconds", str(seconds)] if seconds else []
    command = [sys.executable, "-m", "agents.runtime.load_main", "--fleet", str(state.fleet_file), *source, *limit]
    os.environ.update(runtime_env(state))
    os.execv(sys.executable, command)  # noqa: S606  the load generator takes this process's place, signals and all
