"""`helmctl fleet`, `helmctl up` and `helmctl down`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from helmctl.supervisor.plan import LOOPBACK, Plan, fit_to_machine
from helmctl.supervisor.state import find_state_folder

Nodes = Annotated[int, typer.Option(help="Nodes to start; 0 chooses by the machine.", show_default=False)]
Workload = Annotated[str, typer.Option(help="A shipped workload, a log (.parquet, .csv, .npz), or none.")]
Seed = Annotated[int, typer.Option(help="Seed of the workload.")]
Host = Annotated[str, typer.Option(help="Address that people reach; nodes stay on the loopback.")]
RouterPort = Annotated[int, typer.Option(help="Port of the router.")]
NodePort = Annotated[int, typer.Option(help="Port of the first node.")]
ProfileName = Annotated[str, typer.Option(help="Kind of node: a shipped profile or the path of a profile file.")]
Journal = Annotated[Path | None, typer.Option(help="Folder to record decisions in.")]
Restart = Annotated[bool, typer.Option("--restart/--no-restart", help="Start again what dies.")]


def fleet(
    nodes: Nodes = 0,
    workload: Workload = "demo",
    seed: Seed = 1,
    host: Host = LOOPBACK,
    router_port: RouterPort = 8780,
    node_port: NodePort = 8790,
    profile: ProfileName = "cpu-demo",
    journal: Journal = None,
    restart: Restart = True,
) -> int:
    """Run router, nodes and load generator until Ctrl-C."""
    return start(
        "fleet",
        nodes,
        Plan(
            workload=workload,
            seed=seed,
            host=host,
            router_port=router_port,
            node_port=node_port,
            profile=profile,
            journal=journal,
            restart=restart,
        ),
    )


def up(
    nodes: Nodes = 0,
    workload: Workload = "demo",
    seed: Seed = 1,
    host: Host = LOOPBACK,
    web_port: Annotated[int, typer.Option(help="Port of the console and the API.")] = 8700,
    router_port: RouterPort = 8780,
    node_port: NodePort = 8790,
    profile: ProfileName = "cpu-demo",
    journal: Journal = None,
    restart: Restart = True,
) -> int:
    """Run the whole system until Ctrl-C: the fleet, its control plane and the console."""
    ports = {"web_port": web_port, "router_port": router_port, "node_port": node_port}
    return start("up", nodes, Plan(workload=workload, seed=seed, host=host, profile=profile, journal=journal, restart=restart, **ports))


def start(what: str, nodes: int, plan: Plan) -> int:
    """Fit the plan to the machine where no number of nodes was asked for, and run it."""
    from helmctl.supervisor.launch import launch
    from helmctl.supervisor.machine import cores, memory_bytes

    if nodes:
        return launch(replace(plan, nodes=nodes), find_state_folder(), what, say)
    plan, said = fit_to_machine(plan, cores=cores(), memory_bytes=memory_bytes())
    if said:
        say(said)
    return launch(plan, find_state_folder(), what, say)


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
