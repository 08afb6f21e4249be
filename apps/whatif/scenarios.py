"""A scenario: what may be asked of the simulator, the runs it means, and what their figures say together (pure)."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from agents.router.state import POLICIES as ROUTERS
from agents.workloads.demo import REGIMES as WORKLOADS

METHODS = ("helm", "paper", "b7", "b5")  # the first is what nodes decide by unless told otherwise
NODES_MAX = 64  # a worker's memory: each simulated node holds its own pool state
DURATION_SECONDS_MIN, DURATION_SECONDS_MAX = 10, 3600
RATE_PER_SECOND_MAX = 2_000.0
SEED_MAX = 2**31 - 1
SEEDS_MAX = 10


class Run(NamedTuple):
    """One simulation of a scenario: the method's name as the simulator knows it, and its label."""

    method: str
    label: str


def runs(scenario: dict[str, Any]) -> list[Run]:
    """The static ratios first, then the controller, all on the same stream of requests."""
    static = [Run(f"static-{ratio:.2f}", f"static {ratio:.2f}") for ratio in scenario["static_ratios"]]
    return [*static, Run(scenario["method"], "controller")]


class Question(NamedTuple):
    """One simulation: which run, on the stream of which seed."""

    run: Run
    seed: int


def questions(scenario: dict[str, Any]) -> list[Question]:
    """Every run on the first seed's stream, then every run on the next one's."""
    first, count = scenario["seed"], scenario.get("seeds", 1)
    return [Question(run, seed) for seed in range(first, first + count) for run in runs(scenario)]


def together(scenario: dict[str, Any], outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result, from outcomes in the order of `questions`: medians over seeds, curves of the first, and how far to believe it."""
    count = len(runs(scenario))
    by_run = [list(outcomes[index::count]) for index in range(count)]
    found = [
        {
            "label": run.label,
            "method": run.method,
            "cell": _median_cell([one["cell"] for one in own]),
            "cells": [one["cell"] for one in own],
            "series": own[0]["series"],
        }
        for run, own in zip(runs(scenario), by_run, strict=True)
    ]
    return {"runs": found, "validation": _believed([one["validation"] for one in outcomes])}


def _median_cell(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: _median([cell.get(name) for cell in cells]) for name in cells[0]}


def _median(values: list[Any]) -> Any:
    """Of numbers that are known; anything else as the first has it, and overloaded if any was."""
    if all(isinstance(value, bool) for value in values):
        return any(values)
    known = [value for value in values if isinstance(value, int | float)]
    return statistics.median(known) if known and len(values) > 1 else values[0]


def _believed(validations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the simulator was held against, and every reason why some run lies outside of it."""
    reasons = [reason for one in validations for reason in one["outside"]]
    return {"measured": validations[0]["measured"], "outside": list(dict.fromkeys(reasons))}


__all__ = ["METHODS", "ROUTERS", "WORKLOADS", "Question", "Run", "questions", "runs", "together"]
