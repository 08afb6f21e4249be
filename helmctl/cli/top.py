"""`helmctl top`: the fleet of this machine, live in the terminal or once as JSON."""

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helmctl.cli.figures import number
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder, find_state_folder

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from agents.wire.messages import FleetFile

SPLIT_CELLS = 20
HOST_BUSY_PERCENT = 90.0  # above it, latencies measure the machine's queue for its cores

Row = dict[str, Any]


def top(
    as_json: Annotated[bool, typer.Option("--json", help="Print once, for scripts.")] = False,
    period: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2, max=60.0)] = 1.0,
) -> None:
    """Watch the nodes: phase, split, hit ratios, latency."""
    from helmctl.supervisor.fleet_file import read_fleet_file
    from helmctl.supervisor.view import look

    state = find_state_folder()
    fleet = read_fleet_file(state.fleet_file)
    if fleet is None:
        raise Refusal("no fleet on this machine; start one with: make fleet")
    if as_json:
        sys.stdout.write(json.dumps(asyncio.run(look(fleet)), indent=1) + "\n")
        return
    watch(fleet, state, period)


def watch(fleet: "FleetFile", state: StateFolder, period_seconds: float) -> None:
    """Redraw until Ctrl-C."""
    import psutil
    from rich.live import Live

    from helmctl.supervisor.view import look, read_load

    psutil.cpu_percent()
    with Live(auto_refresh=False, screen=sys.stdout.isatty()) as live:
        try:
            while True:
                view = asyncio.run(look(fleet))
                live.update(screen(view, read_load(state.load_file, time.time_ns()), psutil.cpu_percent()), refresh=True)
                time.sleep(period_seconds)
        except KeyboardInterrupt:
            return


def screen(view: Row, load: Row | None, host_cpu_percent: float) -> "Group":
    """The whole picture from one look."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("NODE")
    table.add_column("PHASE")
    table.add_column("MODE")
    table.add_column("EMB | KV", no_wrap=True)
    for name in ("EMB", "TARGET", "EMB HIT", "KV HIT", "P50 ms", "P99 ms", "REQ/s", "QUEUE", "MOVES"):
        table.add_column(name, justify="right")
    for node in view["nodes"]:
        table.add_row(*node_cells(node))
    lines: list[Text] = [Text(summary(view, host_cpu_percent), style="bold")]
    if load is not None:
        lines.append(Text(load_line(load)))
    if host_cpu_percent >= HOST_BUSY_PERCENT or (load is not None and load.get("saturated")):
        lines.append(Text("Host saturated: latencies below are the machine's queue for its cores, not HELM's.", style="bold red"))
    return Group(*lines, Text(""), table)


def summary(view: Row, host_cpu_percent: float) -> str:
    """One line about the fleet."""
    nodes = view["nodes"]
    ready = sum(node["phase"] == "ready" for node in nodes)
    rate = sum(node["requests_per_second"] or 0.0 for node in nodes)
    router = view["router"]
    return (
        f"HELM  {ready}/{len(nodes)} nodes ready  {rate:.1f} req/s  router {router['phase']}"
        f"  P50 {number(router.get('latency_ms_p50'))} ms  P99 {number(router.get('latency_ms_p99'))} ms  host CPU {host_cpu_percent:.0f} %"
    )


def load_line(load: Row) -> str:
    """What the load generator does."""
    return (
        f"load {load.get('workload')}  {number(load.get('requests_per_second'))} req/s sent  "
        f"{load.get('requests_total')} requests  {load.get('failures_total')} failed  pace {number(load.get('pace'), 2)}"
    )


def node_cells(node: Row) -> list["Text"]:
    """One row of the table."""
    from rich.text import Text

    late = (node["latency_ms_p99"] or 0.0) > (node["slo_ms"] or float("inf"))
    phase_style = {"ready": "green", "draining": "yellow"}.get(node["phase"], "red")
    return [
        Text(node["name"]),
        Text(node["phase"], style=phase_style),
        Text(node["mode"] or "-", style="" if node["mode"] in ("auto", None) else "yellow"),
        split_bar(node["emb_ratio"]),
        Text(number(node["emb_ratio"], 3)),
        Text(number(node["target_emb_ratio"], 3)),
        Text(number(node["emb_hit_ratio"], 2)),
        Text(number(node["kv_hit_ratio"], 2)),
        Text(number(node["latency_ms_p50"])),
        Text(number(node["latency_ms_p99"]), style="red" if late else ""),
        Text(number(node["requests_per_second"])),
        Text(number(node["queue_depth"], 0)),
        Text(number(node["moves_total"], 0)),
    ]


def split_bar(emb_ratio: float | None) -> "Text":
    """The pool as a bar, EMB on the left."""
    from rich.text import Text

    if emb_ratio is None:
        return Text("-" * SPLIT_CELLS, style="dim")
    emb_cells = round(emb_ratio * SPLIT_CELLS)
    return Text("█" * emb_cells, style="cyan") + Text("█" * (SPLIT_CELLS - emb_cells), style="magenta")
