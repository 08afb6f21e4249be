"""`helmctl bench NAME`: measure one part of the product and print one JSON object.

A bench is a list of parts in `helmctl/bench/`, imported only when asked for. Progress goes to standard error;
the exit code says whether it could measure, never whether the figures are good.
"""

import importlib
import importlib.util
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from helmctl.bench.priority import ahead_of_others
from helmctl.bench.report import MeasureError, Part, Result, report

# A part is `module:function` taking (runs, say); a module that is not installed here is left out.
BENCHES: dict[str, tuple[str, ...]] = {
    "node": (
        "helmctl.bench.node_caches:measure",
        "helmctl.bench.node_curves:measure",
        "helmctl.bench.node_serving:measure",
        "helmctl.bench.node_engine:measure",
        "helmctl.bench.node_footprint:measure",
    ),
    "sim": ("helmctl.bench.sim:measure", "helmctl.bench.sim_workloads:measure"),
    "decision": ("helmctl.bench.decision:measure",),
    "route": ("helmctl.bench.route_pick:measure", "helmctl.bench.route_hop:measure"),
    "live": ("helmctl.bench.live_loss:measure", "helmctl.bench.live:measure"),
    "policies": ("helmctl.bench.policies:measure",),
}


def bench(
    name: Annotated[str, typer.Argument(help="node, sim, decision, route, live or policies")],
    runs: Annotated[int, typer.Option(min=1, max=100, help="runs of each measurement; the median is printed")] = 5,
    seconds: Annotated[float | None, typer.Option(min=0.5, help="length of parts that run for a time; short is for a try")] = None,
    log: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Parquet log (user, item, ts) to measure curves or policies on")
    ] = None,
    part: Annotated[str | None, typer.Option(help="only the part whose module has this name")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Measure, and print what was measured."""
    parts = _parts(name, part)
    results: list[Result] = []
    with ahead_of_others() as ahead:
        for measure in parts:
            asked = {"seconds": seconds, "log": log}
            understood = inspect.signature(measure).parameters
            try:
                results += measure(runs, _say, **{name: value for name, value in asked.items() if value and name in understood})
            except MeasureError as error:
                typer.echo(f"helmctl bench: {error}", err=True)
                raise typer.Exit(1) from error
    found = report(name, runs, results, ahead)
    typer.echo(json.dumps(found) if as_json else _in_words(found))


def _parts(name: str, only: str | None) -> Sequence[Part]:
    if name not in BENCHES:
        raise typer.BadParameter(f"unknown bench {name!r}, choose one of {', '.join(BENCHES)}")
    modules = [(module, function) for module, function in (entry.split(":") for entry in BENCHES[name])]
    chosen = [pair for pair in modules if only is None or pair[0].rpartition(".")[2] == only]
    found = [pair for pair in chosen if importlib.util.find_spec(pair[0]) is not None]
    if not found:
        raise typer.BadParameter(f"bench {name!r} has no part {only!r}" if only else f"bench {name!r} is not installed here")
    return [getattr(importlib.import_module(module), function) for module, function in found]


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _in_words(found: dict[str, Any]) -> str:
    turn = (
        "ahead of other processes"
        if found["machine"]["ahead_of_others"]
        else "no priority over other processes: their turns are in the tails"
    )
    lines = [f"{found['bench']} on {found['machine']['cpu']}, {found['runs']} runs, {found['git']}; {turn}"]
    for one in found["results"]:
        middle = "-" if one["median"] is None else f"{one['median']:.6g}"
        extra = "".join(f"  {key} {one[key]:.6g}" for key in ("p99", "min", "max") if one[key] is not None)
        interval = f"  95 % {one['ci'][0]:.4g}..{one['ci'][1]:.4g}" if "ci" in one else ""
        lines.append(f"{one['name']:36} {middle:>12} {one['unit']}{extra}{interval}")
    return "\n".join(lines)
