"""`helmctl status`: the fleet as the control plane sees it."""

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from helmctl.cli.client import open_client, refusals_said
from helmctl.cli.figures import number

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@refusals_said
def status(as_json: AsJson = False) -> None:
    """State of the fleet, from the control plane."""
    with open_client() as client:
        fleet, nodes = client.get("fleet/"), [row(document) for document in client.get_all("nodes/")]
    if as_json:
        sys.stdout.write(json.dumps({"fleet": fleet, "nodes": nodes}, indent=1) + "\n")
        return
    sys.stdout.write(headline(fleet) + "\n")
    show_nodes(nodes)


def row(document: dict[str, Any]) -> dict[str, Any]:
    """A node in the fields of `helmctl top`; null where nothing is known."""
    from helmctl.supervisor.view import node_row

    node_status = document["status"]
    telemetry = node_status["telemetry"]
    known = None if telemetry is None else {**telemetry, "at_unix_ns": unix_ns(telemetry["at"]), "phase": node_status["phase"]}
    return {**node_row(document["metadata"]["name"], known), "conditions": node_status["conditions"]}


def unix_ns(at: str) -> int:
    """An ISO date as unix nanoseconds, exact to the microsecond it carries."""
    moment = datetime.fromisoformat(at)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000


def headline(fleet: dict[str, Any]) -> str:
    """One line about the fleet."""
    return (
        f"{fleet['name']}  {fleet['nodes_ready']}/{fleet['nodes_total']} nodes ready  {number(fleet['requests_per_second'])} req/s"
        f"  P50 {number(fleet['latency_ms_p50'])} ms  P99 {number(fleet['latency_ms_p99'])} ms (SLO {number(fleet['slo_ms'], 0)} ms)"
        f"  EMB hit {number(fleet['emb_hit_ratio'], 2)}  KV hit {number(fleet['kv_hit_ratio'], 2)}"
    )


def show_nodes(rows: list[dict[str, Any]]) -> None:
    """Nodes as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("NODE", "PHASE", "MODE"):
        table.add_column(name)
    for name in ("EMB", "TARGET", "EMB HIT", "KV HIT", "P50 ms", "P99 ms", "REQ/s"):
        table.add_column(name, justify="right")
    for node in rows:
        ratios = (number(node[name], 2) for name in ("emb_ratio", "target_emb_ratio", "emb_hit_ratio", "kv_hit_ratio"))
        rates = (number(node[name]) for name in ("latency_ms_p50", "latency_ms_p99", "requests_per_second"))
        table.add_row(node["name"], node["phase"], node["mode"] or "-", *ratios, *rates)
    Console().print(table)
