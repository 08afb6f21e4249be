"""How many requests a second one core simulates, where the time goes, what memory it takes, and what sampling rows costs in truth.

Every size of fleet is measured in a fresh process, so that its memory is its own, over stretches of simulated time that hold
equally many requests. Seconds are the thread's CPU time: a machine with other work to do measures the same. Requests
are drawn beforehand and reported by themselves; compiling happens in a process before.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from agents.profiles import load_profile
from agents.sim import fleet as fleet_module
from agents.sim.fleet import ORIGIN_NS, FleetSetup, SimulatedFleet, kernel_for
from agents.sim.scenario import CATALOGUE_RATE_PER_NODE, Scenario, run
from agents.workloads.catalogues import ROW_SHIFT, fleet_workload
from agents.workloads.drawn_once import DrawnOnce
from helmctl.bench import route_pick
from helmctl.bench.report import Result, Say, result_of

PROFILE, WORKLOAD = "a100-80g", "taobao/steady"
NODES = 32
SIZES = (4, NODES, 128)
SECONDS = 3.0  # of simulated time, for NODES; more for fewer nodes
FINER_SHIFT = 6  # four times as many rows as the product's own
SAMPLED_SEEDS = (1, 2, 3)
SAMPLED_SECONDS = 30.0


class Speed(NamedTuple):
    """One fleet's figures; a list has one entry per stretch of simulated time."""

    requests_per_second: list[float]
    kernel_ratio: list[float]  # of the CPU time; the rest is ticks and other Python
    drawn_per_second: float
    peak_bytes: float


def measure(runs: int, say: Say, seconds: float = SECONDS) -> list[Result]:
    """Speed at every size; the pick alone; and the error of following one row in 256."""
    say("compiling")
    _in_fresh_process(_speed, 1, 1, 1.0)
    results: list[Result] = []
    for nodes in SIZES:
        found: Speed = _in_fresh_process(_speed, nodes, runs, seconds * NODES / nodes)
        results += _told(nodes, found)
        say(f"{nodes} nodes: {np.median(found.requests_per_second):,.0f} requests/s, {found.peak_bytes / 1e9:.2f} GB")
    pick = route_pick.in_kernel(NODES, runs)
    results.append(Result(f"sim_pick_ns_{NODES}_nodes", _ns(pick.median), "ns", None, _ns(pick.min), _ns(pick.max)))
    return [*results, *_sampling(say)]


def _ns(value_us: float | None) -> float | None:
    return None if value_us is None else value_us * 1e3


def _told(nodes: int, found: Speed) -> list[Result]:
    name = f"{nodes}_nodes"
    return [
        result_of(f"sim_requests_per_second_{name}", found.requests_per_second, "1/s"),
        result_of(f"sim_kernel_ratio_{name}", found.kernel_ratio, "ratio"),
        result_of(f"sim_drawn_requests_per_second_{name}", [found.drawn_per_second], "1/s"),
        result_of(f"sim_peak_bytes_{name}", [found.peak_bytes], "bytes"),
    ]


def _in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- speed --------------------------------------------------------------------------------


class _Watch:
    """Kernels as a fleet is given them, and the CPU time spent in them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def kernel_for(self, *kind: Any) -> Callable[..., Any]:
        """In the place of the fleet's own `kernel_for`."""
        kernel = kernel_for(*kind)

        def timed(*arguments: Any) -> Any:
            started = time.thread_time()
            try:
                return kernel(*arguments)
            finally:
                self.seconds += time.thread_time() - started

        return timed


def _speed(nodes: int, runs: int, seconds: float) -> Speed:
    """A settled fleet, let run for `runs` stretches after one that does not count."""
    profile = load_profile(PROFILE)
    stretches = runs + 1
    catalogue, _, regime = WORKLOAD.partition("/")
    _load_drawing_kernels(catalogue, regime, profile.block_tokens)
    started = time.thread_time()
    stream = DrawnOnce(
        fleet_workload(
            catalogue,
            regime,
            nodes=nodes,
            rate_per_second=CATALOGUE_RATE_PER_NODE * nodes,
            seed=1,
            duration_seconds=max(1.0, stretches * seconds),
        ),
        bytes_max=sys.maxsize,
    )
    drawn = sum(block.at_ns.shape[0] for block in stream.blocks(profile.block_tokens))
    drawn_seconds = time.thread_time() - started
    setup = FleetSetup((profile,) * nodes, duration_seconds=stretches * seconds, warmup_seconds=0.0)
    watch = _Watch()
    with patch.object(fleet_module, "kernel_for", watch.kernel_for):
        fleet = SimulatedFleet(setup, stream)
        gc.freeze()  # or a stretch pays for looking through all that importing and compiling left
        stretch = [_stretch(fleet, ORIGIN_NS + int((number + 1) * seconds * 1e9), watch) for number in range(stretches)][1:]
    return Speed(
        requests_per_second=[requests / total for requests, total, _ in stretch],
        kernel_ratio=[inside / total for _, total, inside in stretch],
        drawn_per_second=drawn / drawn_seconds,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
    )


def _load_drawing_kernels(catalogue: str, regime: str, block_tokens: int) -> None:
    """From the cache on disk, where a short stream in a new process would spend more time than on drawing."""
    stream = fleet_workload(catalogue, regime, nodes=1, rate_per_second=CATALOGUE_RATE_PER_NODE, seed=2, duration_seconds=1.0)
    for _ in stream.blocks(block_tokens):
        pass


def _stretch(fleet: SimulatedFleet, until_ns: int, watch: _Watch) -> tuple[int, float, float]:
    """Requests that arrived, CPU seconds, and those of them inside the kernel."""
    before, inside = int(fleet.world.head[0]["arrived"]), watch.seconds
    started = time.thread_time()
    fleet.advance(until_ns)
    return int(fleet.world.head[0]["arrived"]) - before, time.thread_time() - started, watch.seconds - inside


# --- sampling -----------------------------------------------------------------------------


def _sampling(say: Say) -> list[Result]:
    """The same node and stream with more rows followed: what the figures are off by."""
    coarse, finer = (_cells(shift, say) for shift in (ROW_SHIFT, FINER_SHIFT))
    name = f"at_shift_{ROW_SHIFT}_against_{FINER_SHIFT}"
    return [
        result_of(f"sampling_{figure}_{name}", [abs(a[figure] - b[figure]) for a, b in zip(coarse, finer, strict=True)], "difference")
        for figure in ("emb_hit_ratio", "kv_hit_ratio")
    ] + [
        result_of(f"sampling_{figure}_{name}", [abs(a[figure] / b[figure] - 1.0) for a, b in zip(coarse, finer, strict=True)], "ratio")
        for figure in ("service_ms_mean", "latency_ms_p99")
    ]


def _cells(row_shift: int, say: Say) -> Sequence[dict[str, Any]]:
    say(f"one node with one row in {2**row_shift}")
    cells = []
    for seed in SAMPLED_SEEDS:
        scenario = Scenario(
            profile=PROFILE,
            workload=WORKLOAD,
            nodes=1,
            method="static-0.50",
            seed=seed,
            duration_seconds=SAMPLED_SECONDS,
            warmup_seconds=1.0,
            row_shift=row_shift,
        )
        result = run(scenario)
        assert result is not None  # nobody cancels it
        cells.append(result.cell)
    return cells
