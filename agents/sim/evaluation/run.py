"""Carry a suite out and put its answers together."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.sim.evaluation.jobs import QUANTILES, carry_out_all
from agents.sim.evaluation.loads import LOADS, SECONDS
from agents.sim.evaluation.optimum import Optimum, find_optimum
from agents.sim.evaluation.report import alarms, capacity, change, distances, gap_closed, meets_slo, on_seeds_of, ratio_distance, row_of
from agents.sim.evaluation.schedules import LEADS_WINDOWS, LEANS
from agents.sim.evaluation.suites import (
    Carrier,
    Cell,
    Plan,
    best_statics,
    capacity_factors,
    carriers,
    first_jobs,
    named_jobs,
    placement_jobs,
    routing_jobs,
    schedule_jobs,
    second_jobs,
    sensitivity_jobs,
    swept_service_ms,
)
from agents.workloads.catalogues import burst_onsets_seconds

WARMUP_SECONDS = 30
Progress = Callable[[int, int], None]


def run_suite(suite: str, plan: Plan, folder: Path, processes: int, progress: Progress) -> dict[str, Any]:
    """The paper suite or its ablation: rows per cell and method, optima, comparisons, curves for plots."""
    first, second_size = first_jobs(plan), _second_size(plan)
    answers = carry_out_all(first, folder, processes, lambda done, total: progress(done, total + second_size))
    bests = best_statics(plan, answers)
    second = second_jobs(plan, bests, answers)
    answers |= carry_out_all(second, folder, processes, lambda done, total: progress(len(first) + done, len(first) + total))
    cells: list[dict[str, Any]] = []
    optima: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for cell in plan.cells:
        named = {name: [answers[job.key] for job in jobs] for name, jobs in named_jobs(plan, cell, bests).items()}
        found = {}
        if cell in plan.swept_cells:
            found = {seed: _optimum(plan, cell, seed, answers) for seed in plan.swept_seeds}
            named["s3"] = [best_schedule(plan, cell, seed, bests, answers) for seed in plan.swept_seeds]
        rows = _rows(cell, named, found)
        cells += rows
        optima += [_optimum_row(cell, found)] if found else []
        curves += _curves(cell, named, found)
    return {
        "suite": suite,
        "quick": plan.quick,
        "seeds": len(plan.seeds),
        "static_seeds": len(plan.static_seeds),
        "loads": {name: list(bounds) for name, bounds in LOADS.items()},
        "cells": cells,
        "optima": optima,
        "curves": curves,
    }


def _second_size(plan: Plan) -> int:
    return len(plan.cells) * 2 * len(plan.seeds) + len(plan.swept_cells) * len(plan.swept_seeds) * len(LEANS) * len(LEADS_WINDOWS)


def _asked(cell: Cell, method: str, router: str = "joint") -> dict[str, Any]:
    return {
        "profile": cell.catalogue,
        "regime": cell.regime,
        "load": cell.load,
        "nodes": cell.nodes,
        "hardware": cell.hardware,
        "admission": cell.admission,
        "method": method,
        "router": router,
    }


def _optimum(plan: Plan, cell: Cell, seed: int, answers: dict[str, dict[str, Any]]) -> Optimum:
    return find_optimum(swept_service_ms(plan, cell, seed, answers), plan.grid, WARMUP_SECONDS, int(SECONDS))


def best_schedule(plan: Plan, cell: Cell, seed: int, bests: dict[str, float], answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """S3: the least tail that a clairvoyant found."""
    tried = [answers[job.key] for job in schedule_jobs(plan, cell, seed, bests, answers)]
    return min(tried, key=lambda answer: _tail_of(answer["cell"]))


def _rows(cell: Cell, named: dict[str, list[dict[str, Any]]], optima: dict[int, Optimum]) -> list[dict[str, Any]]:
    means = {name: row_of(answers) for name, answers in named.items()}
    rows = []
    for name, answers in named.items():
        row = _asked(cell, name) | means[name]
        row |= alarms(answers, burst_onsets_seconds(SECONDS) if cell.regime == "burst" else (), (WARMUP_SECONDS, SECONDS))
        row |= distances(answers, optima) or {}
        if "s3" in named:
            row["distance_to_s3"] = ratio_distance(answers, named["s3"])
            row["gap_closed"] = gap_closed(*(row_of(on_seeds_of(named["s3"], named[other])) for other in (name, "s1", "s3")))
        for other in ("steady-tuned", "s0", "s1", "b5", "b7", "b5+burst", "b7+burst"):
            if other in named and other != name:
                row[f"p99_vs_{other}"] = change(answers, named[other])
        row["mean_vs_s0"] = change(answers, named["s0"], "latency_ms_mean")
        rows.append(row)
    return rows


def _optimum_row(cell: Cell, optima: dict[int, Optimum]) -> dict[str, Any]:
    ratios = np.concatenate([optimum.emb_ratio for optimum in optima.values()])
    low = np.concatenate([optimum.low for optimum in optima.values()])
    high = np.concatenate([optimum.high for optimum in optima.values()])
    return _asked(cell, "optimum") | {
        "emb_ratio": float(ratios.mean()),
        "plateau": [float(low.mean()), float(high.mean())],
        "emb_ratio_min": float(ratios.min()),
        "emb_ratio_max": float(ratios.max()),
        "moves_by": float(ratios.max() - ratios.min()),
        "noise": float(np.mean([optimum.noise for optimum in optima.values()])),
    }


def _curves(cell: Cell, named: dict[str, list[dict[str, Any]]], optima: dict[int, Optimum]) -> list[dict[str, Any]]:
    """Latency quantiles and the first seed's mean ratio over time, for plots; statics of the grid are left out."""
    shown = {name: answers for name, answers in named.items() if not name.startswith("static-")}
    curves = [
        _asked(cell, name)
        | {
            "quantiles": QUANTILES.round(4).tolist(),
            "latency_ms": answers[0]["latency_ms"],
            "emb_ratio": np.mean(answers[0]["ratios"], axis=1).round(4).tolist(),
        }
        for name, answers in shown.items()
    ]
    for optimum in list(optima.values())[:1]:
        trace = _asked(cell, "optimum") | {
            "first_second": optimum.first_second,
            "emb_ratio": optimum.emb_ratio.round(4).tolist(),
        }
        curves.append(trace | {"low": optimum.low.round(4).tolist(), "high": optimum.high.round(4).tolist()})
    return curves


def run_routing(
    *, quick: bool, nodes: int, seeds: Sequence[int], catalogues: Sequence[str], folder: Path, processes: int, progress: Progress
) -> dict[str, Any]:
    """Routers against each other at one static split, and what allocation adds to the best of them and to hashing."""
    plan = routing_jobs(quick=quick, nodes=nodes, seeds=seeds, catalogues=catalogues)
    answers = carry_out_all([job for routers in plan.values() for jobs in routers.values() for job in jobs], folder, processes, progress)
    rows = []
    for name, routers in plan.items():
        catalogue, regime, load = name.split("/")
        cell = Cell(catalogue, regime, load, "shipped", nodes)
        found = {router: [answers[job.key] for job in jobs] for router, jobs in routers.items()}
        for router, runs in found.items():
            row = _asked(cell, runs[0]["cell"]["method"], router) | row_of(runs)
            row |= {f"joint_p99_vs_{router}": change(found["joint"], runs)} if router != "joint" else {}
            rows.append(row | {"p99_vs_joint": change(runs, found["joint"]), "p99_vs_hash": change(runs, found["consistent-hash"])})
    return {"suite": "routing", "quick": quick, "seeds": len(seeds), "cells": rows, "optima": [], "curves": []}


def run_sensitivity(*, quick: bool, catalogue: str, folder: Path, processes: int, progress: Progress) -> dict[str, Any]:
    """The methods under every cost constant halved and doubled, and whether another one wins than with the constants as they are."""
    plan = sensitivity_jobs(catalogue, quick=quick)
    answers = carry_out_all([job for _, _, _, job in plan], folder, processes, progress)
    rows = [_asked(cell, method) | {"variant": variant} | row_of([answers[job.key]]) for cell, variant, method, job in plan]
    winners: dict[str, str] = {}
    for row in rows:
        name = f"{row['regime']}/{row['variant']}"
        best = min((other for other in rows if f"{other['regime']}/{other['variant']}" == name), key=_tail_of)
        winners[name] = best["method"]
    moved = {name: winner for name, winner in winners.items() if winner != winners[f"{name.split('/')[0]}/as-is"]}
    return {
        "suite": "sensitivity",
        "quick": quick,
        "seeds": 1,
        "cells": rows,
        "winners": winners,
        "moved": moved,
        "optima": [],
        "curves": [],
    }


def _tail_of(row: dict[str, Any]) -> float:
    return float("inf") if row["latency_ms_p99"] is None else float(row["latency_ms_p99"])


def run_capacity(*, quick: bool, folder: Path, processes: int, progress: Progress) -> dict[str, Any]:
    """How many times a normal load's arrivals each method and router carries within the SLO, on fleets of 32 nodes.

    Who does not carry a factor is not asked for more.
    """
    plan, factors = carriers(quick=quick), capacity_factors(quick=quick)
    tried: dict[Carrier, list[dict[str, Any]]] = {carrier: [] for carrier in plan}
    done = 0
    for left, factor in zip(range(len(factors), 0, -1), factors, strict=True):
        going = [carrier for carrier in plan if all(map(meets_slo, tried[carrier]))]
        show = partial(_show_further, progress, done, done + left * len(going))
        answers = carry_out_all([carrier.job(factor) for carrier in going], folder, processes, show)
        for carrier in going:
            tried[carrier].append(answers[carrier.job(factor).key]["cell"])
        done += len(going)
    show = partial(_show_further, progress, done, done + len(plan))
    as_is = carry_out_all([carrier.job(1.0) for carrier in plan], folder, processes, show)
    rows = []
    for carrier, cells in tried.items():
        figures = row_of([as_is[carrier.job(1.0).key]])  # latencies are those of the load as it is
        carried = capacity(factors[: len(cells)], cells)
        asked = _asked(carrier.cell, carrier.method, carrier.router)
        rows.append(asked | figures | {"capacity_factor": carried["factor"], "capacity_bound": carried["bound"]})
    return {"suite": "capacity", "quick": quick, "seeds": 1, "cells": rows, "optima": [], "curves": []}


def _show_further(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def run_placement(*, catalogue: str, folder: Path, processes: int, progress: Progress) -> dict[str, Any]:
    """Whether a fleet of unlike nodes beats one of equal nodes with the best equal split."""
    plan = placement_jobs(catalogue)
    answers = carry_out_all([job for _, _, job in plan], folder, processes, progress)
    rows = [_asked(cell, "/".join(f"{ratio:g}" for ratio in splits)) | row_of([answers[job.key]]) for cell, splits, job in plan]
    return {"suite": "placement", "quick": False, "seeds": 1, "cells": rows, "optima": [], "curves": []}
