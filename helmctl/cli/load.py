"""`helmctl load`: the load generator against this machine's fleet. Its options are its own; this adds where the fleet is."""

import os
import sys

import typer

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import find_state_folder


def load(context: typer.Context) -> None:
    """Send requests to the router until Ctrl-C, or for as long as the options say."""
    from helmctl.supervisor.processes import runtime_env

    state = find_state_folder()
    if not state.fleet_file.exists() and not {"-h", "--help", "--fleet"} & set(context.args):
        raise Refusal("no fleet on this machine; start one with: make fleet WORKLOAD=none")
    os.environ.update(runtime_env(state))
    command = [sys.executable, "-m", "agents.runtime.load_main", "--fleet", str(state.fleet_file), *context.args]
    os.execv(sys.executable, command)  # noqa: S606  the load generator takes this process's place, signals and all
