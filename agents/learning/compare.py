"""A policy beside the two strongest rules, and its parent if it has one: paired runs on streams that nobody trained on.

Policies decide with all three layers, as a node would let them; rules have the burst wrapper, for the layers have one too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.controller.frozen import FrozenPolicy
from agents.controller.interface import Controller
from agents.controller.registry import learned, make_controller
from agents.learning.config import TrainingConfig
from agents.sim.evaluation.report import interval
from agents.sim.scenario import Scenario, fleet_for
from agents.wire.messages import GuardRails

CANDIDATE, PARENT = "candidate", "parent"
RULES = {"b5": "b5+burst", "b7": "b7+burst"}
OPPONENTS = (PARENT, *RULES)
FIGURES = ("latency_ms_p99", "latency_ms_mean", "slo_ratio", "moves")
WORSE_RATIO = 0.01  # of P99; below it a difference is no reason to keep the older one

Cells = dict[str, dict[str, dict[str, float | None]]]


class Judged(NamedTuple):
    """Whether a version may take its parent's place, and why."""

    usable: bool
    reason: str


class Pair(NamedTuple):
    """One stream under the candidate and under an opponent; P99 is `None` where a fleet was overloaded."""

    candidate_ms: float | None
    opponent_ms: float | None


def compare(
    candidate: FrozenPolicy,
    parent: FrozenPolicy | None,
    cells: dict[str, Scenario],
    seeds: list[int],
    progress: Callable[[float], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Means per cell and method, P99 against each opponent, and a verdict; `None` when cancelled."""
    controllers: dict[str, Callable[[int], Controller]] = {CANDIDATE: lambda _: learned(candidate, GuardRails())}
    if parent is not None:
        controllers[PARENT] = lambda _: learned(parent, GuardRails())
    controllers |= {name: _maker(rule) for name, rule in RULES.items()}
    opponents = [name for name in controllers if name != CANDIDATE]
    runs = [(name, seed, method) for name in cells for seed in seeds for method in controllers]
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for number, (name, seed, method) in enumerate(runs):
        fleet = fleet_for(msgspec.structs.replace(cells[name], seed=seed), controllers=controllers[method])
        if not fleet.run(cancelled=cancelled):
            return None
        found[name, seed, method] = fleet.statistics.cell()
        progress((number + 1) / len(runs))
    pairs = {method: [_pair(found, name, seed, method) for name in cells for seed in seeds] for method in opponents}
    verdict = judged(pairs[PARENT]) if parent is not None else Judged(True, "trained from nothing: it has no parent")
    return {
        "verdict": "usable" if verdict.usable else "rejected",
        "reason": verdict.reason,
        "against": {method: change(pairs[method]) for method in opponents},
        "cells": {name: {method: _means(found, name, seeds, method) for method in controllers} for name in cells},
        "seeds": seeds,
        "seconds": max(cell.duration_seconds for cell in cells.values()),
    }


def generated_cells(config: TrainingConfig) -> list[Scenario]:
    """The configuration's kinds of traffic that tell methods apart, at their own arrivals."""
    episodes = config.episodes
    hardware = episodes.hardware[0]
    told = [workload for workload in episodes.workloads if workload.split("/")[-1] in ("steady", "trend", "burst")][:3]
    return [
        Scenario(
            profile=hardware.profile,
            workload=workload,
            admission=admission,
            nodes=episodes.nodes,
            rate_per_second=episodes.nodes * episodes.workloads[workload],
            duration_seconds=episodes.seconds,
            warmup_seconds=min(30.0, episodes.seconds / 4),
        )
        for workload in told or list(episodes.workloads)[:1]
        for admission in episodes.admissions
    ]


def change(pairs: list[Pair]) -> dict[str, Any]:
    """Relative change of P99 with its 95 % interval, over the pairs in which neither was overloaded."""
    changes = [one / other - 1.0 for one, other in pairs if one is not None and other is not None]
    low, high = interval(changes) or (None, None)
    return {"mean": float(np.mean(changes)) if changes else None, "low": low, "high": high, "pairs": len(changes)}


def judged(pairs: list[Pair]) -> Judged:
    """Against the parent: overload it did not know, a P99 more than a percent higher, or surely higher, is worse."""
    lost = sum(pair.candidate_ms is None and pair.opponent_ms is not None for pair in pairs)
    if lost:
        return Judged(False, f"overloaded in {lost} of {len(pairs)} runs that its parent served")
    found = change(pairs)
    if found["mean"] is None:
        return Judged(False, "no run could be compared")
    said = f"P99 {found['mean']:+.1%} against its parent over {found['pairs']} runs"
    if found["mean"] > WORSE_RATIO or (found["low"] is not None and found["low"] > 0.0):
        return Judged(False, said)
    return Judged(True, said)


def _maker(rule: str) -> Callable[[int], Controller]:
    return lambda _: make_controller(rule, GuardRails())


def _pair(found: dict[tuple[str, int, str], dict[str, Any]], name: str, seed: int, method: str) -> Pair:
    return Pair(_p99(found[name, seed, CANDIDATE]), _p99(found[name, seed, method]))


def _p99(cell: dict[str, Any]) -> float | None:
    known = cell["latency_ms_p99"]
    return None if cell["overloaded"] or known is None or known <= 0.0 else float(known)


def _means(found: dict[tuple[str, int, str], dict[str, Any]], name: str, seeds: list[int], method: str) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for figure in FIGURES:
        values = [found[name, seed, method][figure] for seed in seeds]
        known = [float(value) for value in values if value is not None]
        means[figure] = round(float(np.mean(known)), 4) if known else None
    return means
