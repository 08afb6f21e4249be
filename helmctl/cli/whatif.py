"""`helmctl whatif`: ask the simulator, wait for the worker."""

import json
import sys
import time
from typing import Annotated, Any

import typer

from helmctl.cli.client import CommandRefused, open_client, parse_ratio, refusals_said
from helmctl.cli.figures import number
from helmctl.cli.status import AsJson

app = typer.Typer(no_args_is_help=True, help="Compare static ratios with the controller on a workload.")
POLL_SECONDS = 1.0
TERMINAL = {"succeeded", "failed", "cancelled"}


@app.command("run")
@refusals_said
def run(
    workload: Annotated[str, typer.Argument(help="steady, trend, burst, demo, ...")],
    static: Annotated[list[str], typer.Option("--static", help="A static ratio; give it twice.")],
    method: Annotated[str, typer.Option(help="Who decides beside them: helm, paper, b7 or b5.")] = "helm",
    nodes: Annotated[int, typer.Option(min=1)] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Streams, from the seed upwards; figures are medians over them.")] = 1,
    duration_seconds: Annotated[int, typer.Option("--seconds", help="Simulated seconds.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Run one what-if and wait for its result."""
    ratios = [parse_ratio(text) for text in static]
    asked = {"workload": workload, "nodes": nodes, "static_ratios": ratios, "method": method, "seed": seed, "seeds": seeds}
    body = {**asked, "duration_seconds": duration_seconds}
    with open_client() as client:
        job = client.post("whatifs/", body)
        while job["status"] not in TERMINAL:
            sys.stderr.write(f"\r{job['stage']}: {job['progress']:.0%} ")
            time.sleep(POLL_SECONDS)
            job = client.get(f"whatifs/{job['id']}/")
    sys.stderr.write("\n")
    if as_json:
        sys.stdout.write(json.dumps(job, indent=1) + "\n")
    elif job["status"] == "succeeded":
        _show(job["result"])
    if job["status"] != "succeeded":
        raise CommandRefused(f"the run {job['status']}: {job['error'] or 'no result'}")


def _belief(validation: dict[str, Any] | None) -> str:
    """How near the simulator was to a live run, and why this question lies outside of it."""
    measured = (validation or {}).get("measured")
    if validation is None or measured is None:
        return "never held against a live run on this machine; helmctl sim validate does that"
    p50, p99 = measured["latency_p50_error"], measured["latency_p99_error"]
    held = f"held against {measured['workload']} live at {measured['at']}: P50 {p50:+.0%}, P99 {p99:+.0%}"
    return held if not validation["outside"] else f"{held}; outside of it: {'; '.join(validation['outside'])}"


def _show(result: dict[str, Any]) -> None:
    for one in result["runs"]:
        cell = one["cell"]
        sys.stdout.write(
            f"{one['label']:<14} P50 {number(cell.get('latency_ms_p50'))} ms  P99 {number(cell.get('latency_ms_p99'))} ms"
            f"  SLO {number(cell.get('slo_ratio'), 3)}  EMB hit {number(cell.get('emb_hit_ratio'), 2)}"
            f"  KV hit {number(cell.get('kv_hit_ratio'), 2)}\n"
        )
    sys.stdout.write(f"simulator: {_belief(result.get('validation'))}\n")
