"""`helmctl sim`: one simulated run, and parity of a live journal with the simulator's body."""

import json
from pathlib import Path
from typing import Annotated

import typer

from agents.sim.replay import replay_file
from agents.sim.scenario import Scenario, SimResult, run

app = typer.Typer(no_args_is_help=True, help="Run the fleet under a virtual clock.")


@app.command("run")
def run_command(
    workload: Annotated[str, typer.Option(help="demo, steady, trend, burst, sessions, smooth, cold-flood or zero")] = "demo",
    trace: Annotated[Path | None, typer.Option(help="replay a log with columns user, item, ts instead")] = None,
    profile: Annotated[str, typer.Option(help="hardware and model profile, a name or the path of a file")] = "cpu-demo",
    nodes: Annotated[int, typer.Option(help="nodes in the fleet")] = 4,
    method: Annotated[str, typer.Option(help="b5, static-0.50, ... who decides the ratio")] = "b5",
    router: Annotated[str, typer.Option(help="joint, round-robin, least-loaded, consistent-hash or kv-affinity")] = "joint",
    admission: Annotated[str, typer.Option(help="shipped, none (LRU that admits everyone), tinylfu or value-density")] = "shipped",
    seed: Annotated[int, typer.Option(help="one seed, one request stream")] = 1,
    duration: Annotated[float, typer.Option(help="simulated seconds")] = 600.0,
    warmup: Annotated[float, typer.Option(help="simulated seconds left out of the figures")] = 30.0,
    rate: Annotated[float | None, typer.Option(help="mean requests per second of the fleet")] = None,
    speed: Annotated[float | None, typer.Option(help="log seconds per stream second, with --trace")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Simulate one scenario and print its figures."""
    try:
        scenario = Scenario(
            profile=profile,
            workload=workload,
            nodes=nodes,
            method=method,
            router=router,
            seed=seed,
            duration_seconds=duration,
            warmup_seconds=warmup,
            rate_per_second=rate,
            admission=admission,
            trace=None if trace is None else str(trace),
            speed=speed,
        )
        result = run(scenario, progress=None if as_json else _show_progress)
    except (ValueError, OSError) as error:
        typer.echo(f"helmctl sim run: {error}", err=True)
        raise typer.Exit(2) from error
    assert result is not None  # nobody cancels a run from here
    typer.echo(json.dumps(_plain(result)) if as_json else _in_words(result))


@app.command("parity")
def parity_command(
    journals: Annotated[list[Path], typer.Argument(help="journal files of live nodes", exists=True, dir_okay=False)],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Recompute the decisions of live journals; exit code 1 when one differs."""
    try:
        found = [replay_file(path) for path in journals]
    except ValueError as error:
        typer.echo(f"helmctl sim parity: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps([{**parity._asdict(), "holds": parity.holds} for parity in found]))
    else:
        for parity in found:
            verdict = "equal" if parity.holds else f"DIFFERS: {parity.mismatches[0]}"
            counts = f"{parity.batches} batches, {parity.decisions} decisions, {parity.moved_pages} pages, {parity.evictions} evictions"
            typer.echo(f"{parity.name}: {verdict} ({counts})")
    if not all(parity.holds for parity in found):
        raise typer.Exit(1)


def _show_progress(done: float) -> None:
    typer.echo(f"\r{min(done, 1.0):4.0%}", err=True, nl=False)


def _plain(result: SimResult) -> dict[str, object]:
    return {"cell": result.cell, "nodes": result.nodes, "series": result.series}


def _in_words(result: SimResult) -> str:
    cell = result.cell
    lines = [f"{name:24} {value}" for name, value in cell.items()]
    return "\n".join(["", *lines])
