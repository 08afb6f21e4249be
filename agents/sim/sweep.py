"""One scenario under several methods and seeds, spread over processes, and what each method gains over the first.

A seed is one stream, the same for every method, so gains are taken seed by seed. A baseline that cannot keep up
has whatever latency its queue was long; against it no percentage is given.
"""

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from typing import Any

import msgspec

from agents.sim.processes import simulating_processes
from agents.sim.scenario import Scenario, SimResult, checked, run

PROCESSES_MAX = 64
RUNS_MAX = 10_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One method over its seeds: medians of the runs' figures. Gains are percent of the baseline's, negative is quicker."""

    method: str
    seeds: int
    overloaded: int  # runs of them
    utilisation: float | None
    latency_ms_mean: float | None
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    emb_hit_ratio: float | None
    kv_hit_ratio: float | None
    p99_change_percent: float | None  # None for the baseline, and where it or this method is overloaded


def variants(base: Scenario, methods: Sequence[str], ratios: Sequence[float], seeds: Sequence[int]) -> list[Scenario]:
    """Every method, then every ratio held, with every seed; `ValueError` names the field that no run could be made of."""
    held = [f"static-{ratio:.3f}" for ratio in ratios if _inside(ratio)]
    names = list(dict.fromkeys([*methods, *held]))
    if not names:
        raise ValueError("method: give at least one method or ratio")
    if not 0 < len(names) * len(set(seeds)) <= RUNS_MAX:
        raise ValueError(f"seed: must make 1 to {RUNS_MAX} runs")
    found = [msgspec.structs.replace(base, method=name, seed=seed) for name in names for seed in dict.fromkeys(seeds)]
    for scenario in found[:: len(set(seeds))]:
        checked(scenario)
    return found


def _inside(ratio: float) -> bool:
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio: must lie inside (0, 1), not {ratio}")
    return True


def sweep(scenarios: Sequence[Scenario], processes: int, done: Callable[[int], None]) -> list[dict[str, Any]]:
    """The runs' cells in the order of `scenarios`; `done` is told how many have ended."""
    if not 1 <= processes <= PROCESSES_MAX:
        raise ValueError(f"processes: must be 1 to {PROCESSES_MAX}")
    with simulating_processes(min(processes, len(scenarios))) as pool:
        futures = [pool.submit(_cell, scenario) for scenario in scenarios]
        for count, future in enumerate(as_completed(futures), start=1):
            future.result()  # the first failure ends the sweep
            done(count)
    return [future.result() for future in futures]


def _cell(scenario: Scenario) -> dict[str, Any]:
    result = run(scenario)
    assert isinstance(result, SimResult)  # nobody cancels a run from here
    return result.cell


def rows(cells: Sequence[dict[str, Any]]) -> list[Row]:
    """One row per method in order of appearance; the first is the baseline."""
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for cell in cells:
        by_method.setdefault(cell["method"], {})[cell["seed"]] = cell
    baseline = next(iter(by_method.values()))
    return [_row(method, runs, baseline) for method, runs in by_method.items()]


def _row(method: str, runs: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]) -> Row:
    return Row(
        method=method,
        seeds=len(runs),
        overloaded=sum(cell["overloaded"] for cell in runs.values()),
        utilisation=_median([cell["utilisation"] for cell in runs.values()]),
        latency_ms_mean=_median([cell["latency_ms_mean"] for cell in runs.values()]),
        latency_ms_p50=_median([cell["latency_ms_p50"] for cell in runs.values()]),
        latency_ms_p99=_median([cell["latency_ms_p99"] for cell in runs.values()]),
        emb_hit_ratio=_median([cell["emb_hit_ratio"] for cell in runs.values()]),
        kv_hit_ratio=_median([cell["kv_hit_ratio"] for cell in runs.values()]),
        p99_change_percent=None if runs is baseline else _change_percent(runs, baseline),
    )


def _change_percent(runs: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]) -> float | None:
    """Median over seeds, each against the same stream; None if a queue of either only grew."""
    if any(cell["overloaded"] for cell in (*runs.values(), *baseline.values())):
        return None
    pairs = [(runs[seed]["latency_ms_p99"], baseline[seed]["latency_ms_p99"]) for seed in runs if seed in baseline]
    return _median([100.0 * (new / old - 1.0) for new, old in pairs if new and old])


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
