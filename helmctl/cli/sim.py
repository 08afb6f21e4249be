"""`helmctl sim`: one simulated run, one scenario under several methods, parity and validation against live nodes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from agents.sim.replay import replay_file
from agents.sim.scenario import Scenario, SimResult, mix_of, run
from agents.sim.sweep import Row, rows, sweep, variants
from helmctl.cli.figures import figure
from helmctl.cli.sim_validate import validate_command

app = typer.Typer(no_args_is_help=True, help="Run the fleet under a virtual clock.")
app.command("validate")(validate_command)

NODES = 4

Workload = Annotated[
    str, typer.Option(help="demo, steady, trend, burst, sessions, smooth, cold-flood or zero; or CATALOGUE/REGIME, as taobao/burst")
]
Trace = Annotated[Path | None, typer.Option(help="replay a log with columns user, item, ts instead")]
ProfileName = Annotated[str, typer.Option(help="a name or the path of a file, or a mix of nodes: a100-80g*3,h100-80g*1")]
Nodes = Annotated[int | None, typer.Option(help=f"nodes in the fleet; {NODES}, or as many as a mix names")]
RouterName = Annotated[str, typer.Option(help="joint, round-robin, least-loaded, consistent-hash or kv-affinity")]
Admission = Annotated[str, typer.Option(help="shipped, none (LRU that admits everyone), second-request, tinylfu or value-density")]
Duration = Annotated[float, typer.Option(help="simulated seconds")]
Warmup = Annotated[float | None, typer.Option(help="simulated seconds left out of the figures; 30, or a quarter of a short run")]
Rate = Annotated[float | None, typer.Option(help="mean requests per second of the fleet")]
Speed = Annotated[float | None, typer.Option(help="log seconds per stream second, with --trace")]
RowShift = Annotated[int | None, typer.Option(help="follow one row in 2 ** SHIFT; 8 with a catalogue, else 0")]
Faults = Annotated[
    list[str] | None,
    typer.Option("--fault", help="KIND@SECONDS[+SECONDS][:NODE] of node-loss, cold-start, slow-link, version-flip; repeatable"),
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]


@app.command("run")
def run_command(
    workload: Workload = "demo",
    trace: Trace = None,
    profile: ProfileName = "cpu-demo",
    nodes: Nodes = None,
    method: Annotated[str, typer.Option(help="helm, b5, static-0.50, ... who decides the ratio")] = "helm",
    emb_ratio: Annotated[float | None, typer.Option(help="share of EMB to start with; the profile's, or a static method's own")] = None,
    router: RouterName = "joint",
    admission: Admission = "shipped",
    seed: Annotated[int, typer.Option(help="one seed, one request stream")] = 1,
    duration: Duration = 600.0,
    warmup: Warmup = None,
    rate: Rate = None,
    speed: Speed = None,
    row_shift: RowShift = None,
    fault: Faults = None,
    as_json: AsJson = False,
) -> None:
    """Simulate one scenario and print its figures."""
    try:
        scenario = Scenario(
            profile=profile,
            workload=workload,
            nodes=_nodes_of(profile, nodes),
            method=method,
            router=router,
            seed=seed,
            duration_seconds=duration,
            warmup_seconds=_warmup_of(warmup, duration),
            rate_per_second=rate,
            admission=admission,
            emb_ratio_start=emb_ratio,
            trace=None if trace is None else str(trace),
            speed=speed,
            row_shift=row_shift,
            faults=tuple(fault or ()),
        )
        result = run(scenario, progress=None if as_json else _show_progress)
    except (ValueError, OSError) as error:
        raise _refused("run", error) from error
    assert result is not None  # nobody cancels a run from here
    typer.echo(json.dumps(_plain(result)) if as_json else _in_words(result))


@app.command("sweep")
def sweep_command(
    workload: Workload = "demo",
    trace: Trace = None,
    profile: ProfileName = "cpu-demo",
    nodes: Nodes = None,
    method: Annotated[list[str] | None, typer.Option(help="a method; repeatable, the first is the baseline")] = None,
    ratio: Annotated[list[float] | None, typer.Option(help="a share of EMB that is held; repeatable, after the methods")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="a stream; repeatable")] = None,
    router: RouterName = "joint",
    admission: Admission = "shipped",
    duration: Duration = 600.0,
    warmup: Warmup = None,
    rate: Rate = None,
    speed: Speed = None,
    row_shift: RowShift = None,
    fault: Faults = None,
    processes: Annotated[int, typer.Option(help="runs at the same time")] = 2,
    as_json: AsJson = False,
) -> None:
    """Simulate one scenario under several methods and seeds, and compare them with the first method."""
    try:
        base = Scenario(
            profile=profile,
            workload=workload,
            nodes=_nodes_of(profile, nodes),
            router=router,
            duration_seconds=duration,
            warmup_seconds=_warmup_of(warmup, duration),
            rate_per_second=rate,
            admission=admission,
            trace=None if trace is None else str(trace),
            speed=speed,
            row_shift=row_shift,
            faults=tuple(fault or ()),
        )
        scenarios = variants(base, method or ([] if ratio else ["static-0.50", "b5", "helm"]), ratio or [], seed or [1])
        cells = sweep(scenarios, processes, lambda done: None if as_json else _show_progress(done / len(scenarios)))
    except (ValueError, OSError) as error:
        raise _refused("sweep", error) from error
    found = rows(cells)
    plain = {"rows": [msgspec.to_builtins(row) for row in found], "cells": cells}
    typer.echo(json.dumps(plain) if as_json else _table(found))


@app.command("parity")
def parity_command(
    journals: Annotated[list[Path], typer.Argument(help="journal files of live nodes", exists=True, dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Recompute the decisions of live journals; exit code 1 when one differs."""
    try:
        found = [replay_file(path) for path in journals]
    except ValueError as error:
        raise _refused("parity", error) from error
    if as_json:
        typer.echo(json.dumps([{**parity._asdict(), "holds": parity.holds} for parity in found]))
    else:
        for parity in found:
            verdict = "equal" if parity.holds else f"DIFFERS: {parity.mismatches[0]}"
            counts = f"{parity.batches} batches, {parity.decisions} decisions, {parity.moved_pages} pages, {parity.evictions} evictions"
            typer.echo(f"{parity.name}: {verdict} ({counts})")
    if not all(parity.holds for parity in found):
        raise typer.Exit(1)


def _nodes_of(profile: str, nodes: int | None) -> int:
    """As asked, else as many as the mix names."""
    if nodes is not None:
        return nodes
    return sum(count for _, count in mix_of(profile)) if "*" in profile else NODES


def _warmup_of(warmup: float | None, duration: float) -> float:
    return warmup if warmup is not None else max(0.0, min(30.0, duration / 4.0))


def _refused(command: str, error: Exception) -> typer.Exit:
    typer.echo(f"helmctl sim {command}: {' '.join(str(error).split())}", err=True)
    return typer.Exit(2)


def _show_progress(done: float) -> None:
    typer.echo(f"\r{min(done, 1.0):4.0%}", err=True, nl=False)


def _plain(result: SimResult) -> dict[str, object]:
    return {"cell": result.cell, "nodes": result.nodes, "series": result.series}


def _in_words(result: SimResult) -> str:
    lines = [f"{name:24} {value}" for name, value in result.cell.items()]
    return "\n".join(["", *lines])


_COLUMNS = ("method", "seeds", "utilisation", "mean ms", "P50 ms", "P99 ms", "EMB hits", "KV hits", "P99 change")


def _table(found: Sequence[Row]) -> str:
    """Medians over seeds; no percentage against or of a fleet that cannot keep up."""
    lines = [_COLUMNS, *(_columns(row) for row in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(["", *("  ".join(map(str.rjust, line, widths)) for line in lines)])


def _columns(row: Row) -> tuple[str, ...]:
    change = "overloaded" if row.overloaded else figure(row.p99_change_percent, "+.1f", " %")
    return (
        row.method,
        str(row.seeds),
        figure(row.utilisation, ".2f"),
        figure(row.latency_ms_mean, ".1f"),
        figure(row.latency_ms_p50, ".1f"),
        figure(row.latency_ms_p99, ".1f"),
        figure(row.emb_hit_ratio, ".3f"),
        figure(row.kv_hit_ratio, ".3f"),
        change,
    )
