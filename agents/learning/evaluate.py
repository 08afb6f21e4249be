"""A policy beside rules, on request streams that no training run has seen: the product's own simulated fleets."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from agents.controller.frozen import FrozenPolicy
from agents.controller.three_layers import CHECK_NS, PAPER_PERIOD_NS, ThreeLayers
from agents.sim.fleet import FleetSetup, SimulatedFleet
from agents.sim.scenario import Scenario, fleet_for, profiles_of, workload_of
from agents.wire.messages import GuardRails

POLICY = "policy"
FIGURES = ("latency_ms_p99", "latency_ms_mean", "service_ms_mean", "slo_ratio", "moves")


def evaluate(
    frozen: FrozenPolicy, cells: list[Scenario], rules: list[str], seeds: list[int], say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Per cell and method the mean of `FIGURES` over the seeds; the policy decides alone, adapter and recovery off."""
    found: dict[str, Any] = {}
    for cell in cells:
        name = f"{cell.workload}/{cell.admission}/{cell.rate_per_second:g}"
        found[name] = {}
        for method in [POLICY, *rules]:
            runs = [_figures(msgspec.structs.replace(cell, seed=seed), method, frozen) for seed in seeds]
            found[name][method] = {figure: round(float(np.mean([run[figure] for run in runs])), 4) for figure in FIGURES}
        say(f"{name}: " + ", ".join(f"{method} {figures['latency_ms_p99']:.2f} ms" for method, figures in found[name].items()))
    return {"seeds": seeds, "profile": cells[0].profile, "nodes": cells[0].nodes, "seconds": cells[0].duration_seconds, "cells": found}


def _figures(cell: Scenario, method: str, frozen: FrozenPolicy) -> dict[str, Any]:
    fleet = policy_fleet(cell, frozen) if method == POLICY else fleet_for(msgspec.structs.replace(cell, method=method))
    fleet.run()
    return fleet.statistics.cell()


def policy_fleet(cell: Scenario, frozen: FrozenPolicy) -> SimulatedFleet:
    """The cell's fleet with this policy as every node's base, and no other layer."""
    check_ns = PAPER_PERIOD_NS if frozen.head[0]["paper_features"] else CHECK_NS

    def controller(_: int) -> ThreeLayers:
        return ThreeLayers(GuardRails(), name=POLICY, policy=frozen, adapter_on=False, recovery_on=False, check_ns=check_ns)

    profiles = profiles_of(cell)
    setup = FleetSetup(
        profiles=profiles,
        admission=cell.admission,
        router=cell.router,
        seed=cell.seed,
        duration_seconds=cell.duration_seconds,
        warmup_seconds=cell.warmup_seconds,
        emb_ratio_start=cell.emb_ratio_start,
        controllers=controller,
    )
    return SimulatedFleet(setup, workload_of(cell, profiles[0]))
