"""Machines, workloads and logs that no shipped policy was taught on: does what was learned carry over?

hardware  the taught catalogue with most to gain, on A100s with half and H200s with almost twice the memory
workload  regimes that stand in no training config, and the demo's traffic on the demo's nodes
log       a real log that somebody brings, on the demo's nodes, at the pace that makes them busy

There is no kept load for these: each is searched first, as `loads` defines a normal one, at the best of three static splits.
S1 is the best static split of a row on the first seed. Everything is run with the admission that ships.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.sim.evaluation.jobs import Job, carry_out, carry_out_all
from agents.sim.evaluation.loads import HARDWARE, LOADS, NODES, SEARCHED_SEED, SECONDS, find_load
from agents.sim.evaluation.report import change, row_of
from agents.sim.evaluation.run import Progress
from agents.sim.evaluation.suites import STATIC_RATIOS, static_name
from agents.sim.processes import simulating_processes
from agents.sim.scenario import Scenario, profiles_of, workload_of

METHODS = ("b5", "b7", "b7+burst", "paper", "helm")
ADMISSION = "shipped"
LOAD = "normal"
RATIOS = (*STATIC_RATIOS, 0.7, 0.8)  # the demo's nodes and a log may want more than the catalogues do
_SEARCHED_RATIOS = (0.3, 0.45, 0.6)
_DEMO_HARDWARE = "cpu-demo"
_DEMO = {"nodes": 2, "duration_seconds": 120.0, "row_shift": 3}  # drawn request by request, at a millisecond each
_DEMO_RATE_PER_NODE, _CATALOGUE_RATE_PER_NODE = 80.0, 120.0


class Unseen(NamedTuple):
    """One row's question: a scenario that wants a method, a seed and a rate."""

    kind: str  # hardware, workload or log
    profile: str  # catalogue, or the log's name
    regime: str
    scenario: Scenario
    rate_start: float  # a node's, where the search for the load begins


def unseen(logs: Sequence[Path] = (), *, quick: bool = False) -> list[Unseen]:
    """All rows; the logs last. `ValueError` for two logs of one name, which nobody could tell apart, and for an unusable one."""
    names = [log.stem for log in logs]
    if len(set(names)) < len(names):
        raise ValueError("log: two of them have the same name")
    machines = [("taobao", regime, hardware) for hardware in ("a100-40g", "h200-141g") for regime in ("trend", "burst")]
    regimes = [("taobao", "scan-flood"), ("amazon-books", "smooth"), ("amazon-video-games", "diurnal-swap")]
    rows = [_catalogue_row("hardware", *machine) for machine in machines]
    rows += [_catalogue_row("workload", *regime, HARDWARE) for regime in regimes]
    rows += [
        Unseen("workload", "demo", regime, _scenario(_DEMO_HARDWARE, workload=regime, **_DEMO), _DEMO_RATE_PER_NODE)
        for regime in ("trend", "burst")
    ]
    brought = [Unseen("log", log.stem, "log", _scenario(_DEMO_HARDWARE, trace=str(log), **_DEMO), _DEMO_RATE_PER_NODE) for log in logs]
    for row in brought:
        workload_of(row.scenario, profiles_of(row.scenario)[0])  # read once now: what is wrong with it is told before minutes of work
    return (rows[-2:] if quick else rows) + brought


def _catalogue_row(kind: str, catalogue: str, regime: str, hardware: str) -> Unseen:
    return Unseen(kind, catalogue, regime, _scenario(hardware, workload=f"{catalogue}/{regime}"), _CATALOGUE_RATE_PER_NODE)


def _scenario(hardware: str, **what: Any) -> Scenario:
    return Scenario(**{"profile": hardware, "nodes": NODES, "admission": ADMISSION, "duration_seconds": SECONDS, **what})


def run_generalisation(
    *,
    quick: bool,
    seeds: Sequence[int],
    methods: Sequence[str],
    logs: Sequence[Path],
    folder: Path,
    processes: int,
    progress: Progress,
) -> dict[str, Any]:
    """The methods on what was never taught, against the best static split that hindsight finds, B5 and B7."""
    rows = unseen(logs, quick=quick)
    runs = len(rows) * (len(RATIOS) + (len(methods) + 1) * len(seeds))
    rates = _loads(rows, folder, processes, lambda done: progress(done, len(rows) + runs))
    asked = [_at(row, rate) for row, rate in zip(rows, rates, strict=True)]
    statics = [[_job(scenario, static_name(ratio), seeds[0]) for ratio in RATIOS] for scenario in asked]
    learned = [{method: [_job(scenario, method, seed) for seed in seeds] for method in methods} for scenario in asked]
    jobs = [job for found in statics for job in found] + [job for found in learned for each in found.values() for job in each]
    answers = carry_out_all(jobs, folder, processes, lambda done, _: progress(len(rows) + done, len(rows) + runs))
    bests = [RATIOS[int(np.argmin([_tail_ms(answers[job.key]) for job in found]))] for found in statics]
    hindsight = [[_job(scenario, static_name(best), seed) for seed in seeds] for scenario, best in zip(asked, bests, strict=True)]
    done = len(rows) + len(jobs)
    answers |= carry_out_all(
        [job for found in hindsight for job in found], folder, processes, lambda more, total: progress(done + more, done + total)
    )
    cells = [
        line
        for row, scenario, own, best in zip(rows, asked, learned, hindsight, strict=True)
        for line in _lines(row, scenario, {name: [answers[job.key] for job in found] for name, found in (own | {"s1": best}).items()})
    ]
    loads = {LOAD: list(LOADS[LOAD])}
    return {"suite": "generalisation", "quick": quick, "seeds": len(seeds), "loads": loads, "cells": cells, "optima": [], "curves": []}


def _loads(rows: Sequence[Unseen], folder: Path, processes: int, told: Callable[[int], None]) -> list[float]:
    """Requests per second and node of every row, searched side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    with simulating_processes(processes) as pool:
        rates = []
        for done, rate in enumerate(pool.map(_rate_per_node, rows, [folder] * len(rows))):
            rates.append(rate)
            told(done + 1)
    return rates


def _rate_per_node(row: Unseen, folder: Path) -> float:
    scenario = msgspec.structs.replace(row.scenario, seed=SEARCHED_SEED)

    def utilisation(tried: Scenario) -> float:
        return float(carry_out(Job(tried), folder)["cell"]["utilisation_peak"])

    return find_load(scenario, LOAD, row.rate_start, ratios=_SEARCHED_RATIOS, utilisation=utilisation).rate_per_node


def _at(row: Unseen, rate_per_node: float) -> Scenario:
    return msgspec.structs.replace(row.scenario, rate_per_second=rate_per_node * row.scenario.nodes)


def _job(scenario: Scenario, method: str, seed: int) -> Job:
    return Job(msgspec.structs.replace(scenario, method=method, seed=seed))


def _tail_ms(answer: dict[str, Any]) -> float:
    tail = answer["cell"]["latency_ms_p99"]
    return float("inf") if tail is None else float(tail)


def _lines(row: Unseen, scenario: Scenario, named: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row's methods, each against S1 and the rules on the same seeds."""
    lines = []
    for name, answers in named.items():
        line = {
            "unseen": row.kind,
            "profile": row.profile,
            "regime": row.regime,
            "load": LOAD,
            "nodes": scenario.nodes,
            "hardware": scenario.profile,
            "variant": scenario.profile,
            "admission": scenario.admission,
            "method": name,
            "router": scenario.router,
            "rate_per_node": scenario.rate_per_second / scenario.nodes if scenario.rate_per_second else None,
        } | row_of(answers)
        line |= {f"p99_vs_{other}": change(answers, named[other]) for other in ("s1", "b5", "b7") if other in named and other != name}
        lines.append(line)
    return lines
