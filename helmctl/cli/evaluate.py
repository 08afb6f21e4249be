"""`helmctl eval`: the suites behind every claim, cached by question and resumable."""

import hashlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from agents.controller.registry import pinned
from agents.sim.evaluation.generalisation import METHODS as GENERALISED
from agents.sim.evaluation.generalisation import run_generalisation
from agents.sim.evaluation.run import run_capacity, run_placement, run_routing, run_sensitivity, run_suite
from agents.sim.evaluation.suites import CATALOGUES, plan_of
from helmctl.bench.report import ROOT
from helmctl.supervisor.state import find_state_folder

SUITES = ("paper", "routing", "ablation", "generalisation", "sensitivity", "placement", "capacity")
PROCESSES_MAX = 64
SEEDS_MAX = 100
NODES_MAX = 256


def evaluate(
    suite: Annotated[str, typer.Option(help=", ".join(SUITES[:-1]) + " or " + SUITES[-1])] = "paper",
    quick: Annotated[bool, typer.Option("--quick", help="fewer cells, methods and seeds; marked so in the result")] = False,
    seeds: Annotated[int, typer.Option(min=1, max=SEEDS_MAX, help="seeds of every method")] = 5,
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX, help="nodes of the routing suite")] = 32,
    only: Annotated[list[str] | None, typer.Option(help="catalogues; all three if left out")] = None,
    method: Annotated[list[str] | None, typer.Option(help="methods instead of the suite's own; policy-FILE is a policy of yours")] = None,
    log: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="real logs (user, item, ts) for the generalisation suite")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=PROCESSES_MAX, help="simulations at a time")] = 2,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder of finished pieces; default: eval in the state folder")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="write the result here")] = None,
    parquet: Annotated[Path | None, typer.Option(dir_okay=False, help="write the rows here")] = None,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="write a page with tables and plots here")] = None,
) -> None:
    """Carry a suite out; stopped and started again it goes on where it was."""
    if suite not in SUITES:
        raise typer.BadParameter(f"suite: unknown {suite!r}, choose one of {', '.join(SUITES)}")
    catalogues = tuple(only or CATALOGUES)
    if unknown := sorted(set(catalogues) - set(CATALOGUES)):
        raise typer.BadParameter(f"only: unknown {unknown[0]!r}, choose from {', '.join(CATALOGUES)}")
    if log and suite != "generalisation":
        raise typer.BadParameter("log: only the generalisation suite replays logs")
    folder = find_state_folder().root / "eval" / sources_digest() if cache is None else cache
    progress = _progress()
    signal.signal(signal.SIGTERM, _leave)
    try:
        if suite == "routing":
            found = run_routing(
                quick=quick,
                nodes=8 if quick else nodes,
                seeds=tuple(range(1, (1 if quick else seeds) + 1)),
                catalogues=catalogues,
                folder=folder,
                processes=processes,
                progress=progress,
            )
        elif suite == "generalisation":
            found = run_generalisation(
                quick=quick,
                seeds=tuple(range(1, (1 if quick else seeds) + 1)),
                methods=tuple(pinned(name) for name in method or GENERALISED),
                logs=tuple(log or ()),
                folder=folder,
                processes=processes,
                progress=progress,
            )
        elif suite == "sensitivity":
            found = run_sensitivity(quick=quick, catalogue=catalogues[0], folder=folder, processes=processes, progress=progress)
        elif suite == "capacity":
            found = run_capacity(quick=quick, folder=folder, processes=processes, progress=progress)
        elif suite == "placement":
            found = run_placement(catalogue=catalogues[0], folder=folder, processes=processes, progress=progress)
        else:
            plan = plan_of(suite, quick=quick, seeds=seeds, catalogues=catalogues, methods=tuple(pinned(name) for name in method or ()))
            found = run_suite(suite, plan, folder, processes, progress)
    except ValueError as error:
        typer.echo(f"helmctl eval: {error}", err=True)
        raise typer.Exit(2) from error
    _write(found, json_file, parquet, html)
    typer.echo("\n".join(in_words(found)))


def _leave(number: int, _: object) -> None:
    """As Ctrl-C does: an exception where the suite is, which ends its processes; what was finished is kept."""
    raise SystemExit(128 + number)


def sources_digest(agents: Path = ROOT / "agents") -> str:
    """Of the code, profiles and policies that figures come from: another version's pieces are not mixed with this one's."""
    digest = hashlib.sha256()
    for path in sorted(path for path in agents.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(str(path.relative_to(agents)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _progress() -> Callable[[int, int], None]:
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        spent = time.monotonic() - began
        left = spent / max(done, 1) * (total - done)
        typer.echo(f"\r{done}/{total} pieces, {spent:.0f} s, about {left:.0f} s left   ", err=True, nl=done == total)

    return show


def _write(found: dict[str, Any], json_file: Path | None, parquet: Path | None, html: Path | None) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(found), "utf-8")
    if parquet is not None:
        rows = [{name: value for name, value in row.items() if not isinstance(value, dict | list)} for row in found["cells"]]
        pq.write_table(pa.Table.from_pylist(rows), parquet)
    if html is not None:
        from helmctl.cli.evaluate_page import page  # plotly is not needed for the terminal, and not installed with an agent

        html.write_text(page(found), "utf-8")


def in_words(found: dict[str, Any]) -> list[str]:
    """One table per cell, best P99 first."""
    lines = [f"suite {found['suite']}{' (quick: fewer cells, methods and seeds)' if found['quick'] else ''}, {found['seeds']} seeds"]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in found["cells"]:
        groups.setdefault((row["profile"], row["regime"], row["load"], row["admission"], row.get("variant", "")), []).append(row)
    for name, rows in groups.items():
        lines += ["", " ".join(part for part in name if part)]
        lines.append(f"  {'method':22} {'router':20} {'P99 ms':>8} {'mean ms':>8} {'SLO':>7} {'util':>6} {'vs S1':>7} {'distance':>9}")
        compared = found["suite"] in ("routing", "capacity")  # there a static split is one of the compared, not a point of a grid
        shown = [row for row in rows if compared or not row["method"].startswith("static-") or row["router"] != "joint"]
        for row in sorted(shown, key=lambda row: row["latency_ms_p99"] or float("inf")):
            lines.append(_line(row))
        lines += _shares(rows)
    return lines


_SHARES = {"allocation alone": "consistent-hash+helm", "routing alone": "joint", "both": "joint+helm"}


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    """What each alone takes off the tail of hashing at one split, and what both do; nothing where routers are not compared."""
    by_router = {row["router"]: row["p99_vs_hash"] for row in rows if "p99_vs_hash" in row}
    if not by_router:
        return []
    found = {share: by_router.get(router) for share, router in _SHARES.items()}
    told = (f"{share} {'overload' if one is None else format(one['mean'], '+.1%')}" for share, one in found.items())
    return [f"  P99 against consistent hashing at the same split: {', '.join(told)}"]


def _line(row: dict[str, Any]) -> str:
    compared = row.get("p99_vs_s1") or row.get("p99_vs_joint")
    against = "overload" if row["overloaded"] else "" if compared is None else f"{compared['mean']:+.1%}"
    away = "" if row.get("distance") is None else f"{row['distance']:.3f}"
    figures = (
        f"{row['latency_ms_p99'] or 0.0:8.2f} {row['latency_ms_mean'] or 0.0:8.2f} {row['slo_ratio'] or 0.0:7.2%} {row['utilisation']:6.2f}"
    )
    return f"  {row['method']:22} {row['router']:20} {figures} {against:>8} {away:>9}{_carried(row)}"


def _carried(row: dict[str, Any]) -> str:
    """How many times its load's arrivals a method carries within the SLO."""
    if "capacity_factor" not in row:
        return ""
    beyond = {"above": "at least ", "below": "less than "}.get(row["capacity_bound"] or "", "")
    return f"  carries {beyond}{row['capacity_factor']:.2f} of the arrivals"
