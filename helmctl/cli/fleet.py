"""`helmctl fleet` and `helmctl down`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from helmctl.supervisor.plan import LOOPBACK, NODES_DEFAULT, Plan, fit_to_machine
from helmctl.supervisor.state import find_state_folder


def fleet(
    nodes: Annotated[int, typer.Option(help="Nodes to start; 0 chooses by the machine.", show_default=False)] = 0,
    workload: Annotated[str, typer.Option(help="A shipped workload, a Parquet log, or none.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the workload.")] = 1,
    host: Annotated[str, typer.Option(help="Address the router listens on.")] = LOOPBACK,
    router_port: Annotated[int, typer.Option(help="Port of the router.")] = 8780,
    node_port: Annotated[int, typer.Option(help="Port of the first node.")] = 8790,
    profile: Annotated[str, typer.Option(help="Kind of node.")] = "cpu-demo",
    journal: Annotated[Path | None, typer.Option(help="Folder to record decisions in.")] = None,
    restart: Annotated[bool, typer.Option("--restart/--no-restart", help="Start again what dies.")] = True,
) -> int:
    """Run router, nodes and load generator until Ctrl-C."""
    from helmctl.supervisor.launch import launch
    from helmctl.supervisor.machine import cores, memory_bytes

    plan = Plan(
        nodes=nodes or NODES_DEFAULT,
        workload=workload,
        seed=seed,
        host=host,
        router_port=router_port,
        node_port=node_port,
        profile=profile,
        journal=journal,
        restart=restart,
    )
    if not nodes:
        plan, said = fit_to_machine(plan, cores=cores(), memory_bytes=memory_bytes())
        if said:
            say(said)
    return launch(replace(plan), find_state_folder(), "fleet", say)


def down() -> int:
    """Stop what runs on this machine and leave nothing behind."""
    from helmctl.supervisor.stop import stop_running

    for line in stop_running(find_state_folder()) or ["Nothing was running."]:
        say(line)
    return 0


def say(line: str) -> None:
    """Tell the person at the terminal; one who left (`| head`) is no reason to stop."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return
