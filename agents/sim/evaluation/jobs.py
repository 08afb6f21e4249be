"""The pieces of work of an evaluation, each cached under the hash of its question.

A piece is one simulated run, or the replays behind one cell's optimum. Its answer is a file; what is there is not
done again, so a suite that was stopped goes on where it was. Pieces run in parallel processes.
"""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.baselines.s3 import Refill, Schedule, clairvoyant_plan
from agents.controller.baselines.static import Static
from agents.profiles import Profile
from agents.sim.evaluation.loads import peak_utilisation
from agents.sim.evaluation.optimum import GRID, replayed_service_ms
from agents.sim.fleet import ORIGIN_NS, SimulatedFleet
from agents.sim.processes import forget_fleets, simulating_processes
from agents.sim.scenario import Scenario, asked, fleet_for, profiles_of

PLAN_WINDOW_SECONDS = 5.0
QUANTILES = np.concatenate([np.linspace(0.0, 0.9, 91), np.linspace(0.905, 0.999, 189)])  # of the latencies kept for plots
ANSWER_VERSION = 2  # raise when an answer's fields change


class Job(NamedTuple):
    """One piece. Instead of the scenario's method: the S3 schedules made from the replays of `plans`, or a static split each."""

    kind: str  # run or replay
    scenario: Scenario
    plans: Scenario | None = None
    splits: tuple[float, ...] = ()  # one ratio per node
    coarse: bool = False  # a replay on every other ratio of the grid

    @property
    def key(self) -> str:
        """Name of the answer's file."""
        plans = "" if self.plans is None else f"-s3-{self.plans.digest[:12]}"
        splits = "".join(f"-{ratio:g}" for ratio in self.splits)
        return f"{self.kind}{'-coarse' if self.coarse else ''}-{ANSWER_VERSION}-{self.scenario.digest}{plans}{splits}"

    @property
    def grid(self) -> NDArray[np.float64]:
        """Ratios of a replay."""
        return GRID[::2] if self.coarse else GRID


def carry_out(job: Job, folder: Path) -> dict[str, Any]:
    """The answer, from its file or by working."""
    path = folder / f"{job.key}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    forget_fleets()
    answer = _replay(job, folder) if job.kind == "replay" else _run(job, folder)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(answer), "utf-8")
    part.replace(path)
    return answer


def service_of(job: Job, folder: Path) -> NDArray[np.float64]:
    """Replayed device time [G, N, seconds, 2] of a replay that was carried out."""
    with np.load(folder / f"{job.key}.npz") as file:
        return np.asarray(file["service_ms"], np.float64)


def _replay(job: Job, folder: Path) -> dict[str, Any]:
    service_ms = replayed_service_ms(job.scenario, job.grid)
    part = folder / f"{job.key}.{os.getpid()}.part.npz"
    np.savez_compressed(part, service_ms=service_ms.astype(np.float32))
    part.replace(folder / f"{job.key}.npz")
    return {"grid": job.grid.tolist()}


def _run(job: Job, folder: Path) -> dict[str, Any]:
    fleet = _fleet(job, folder)
    fleet.run()
    statistics = fleet.statistics
    latency = statistics.answers["latency_ms"]
    cell = asked(job.scenario) | statistics.cell()
    cell["method"] = job.scenario.method if job.plans is None else "s3"
    cell["utilisation_peak"] = peak_utilisation(statistics.service_ms, job.scenario.warmup_seconds)
    quantiles = np.quantile(latency, QUANTILES).round(4).tolist() if latency.size else []
    return {"cell": cell, "ratios": statistics.ratios.round(4).tolist(), "latency_ms": quantiles}


def _fleet(job: Job, folder: Path) -> SimulatedFleet:
    if job.plans is not None:
        return _planned_fleet(job, folder)
    if job.splits:
        return fleet_for(job.scenario, controllers=lambda node: Static(job.splits[node]), emb_ratio_start=float(np.mean(job.splits)))
    return fleet_for(job.scenario)


def _planned_fleet(job: Job, folder: Path) -> SimulatedFleet:
    assert job.plans is not None
    replay = Job("replay", job.plans, coarse=job.coarse)
    service_ms = service_of(replay, folder).sum(axis=3)
    profiles = profiles_of(job.scenario)
    plans = [_plan(service_ms[:, node], replay.grid, profile, job.scenario) for node, profile in enumerate(profiles)]
    starts_ns = ORIGIN_NS + (PLAN_WINDOW_SECONDS * 1e9 * np.arange(plans[0].shape[0])).astype(np.int64)
    start = float(np.mean([plan[0] for plan in plans]))
    return fleet_for(job.scenario, controllers=lambda node: Schedule(starts_ns, plans[node]), emb_ratio_start=start)


def _plan(service_ms: NDArray[np.float64], grid: NDArray[np.float64], profile: Profile, scenario: Scenario) -> NDArray[np.float64]:
    """One node's schedule, a ratio per window; `service_ms` is [G, seconds]."""
    width = int(PLAN_WINDOW_SECONDS)
    windows = int(scenario.duration_seconds) // width
    cost = service_ms[:, : windows * width].reshape(grid.shape[0], windows, width).sum(axis=2).T
    refill = Refill(
        pool_bytes=profile.pool_bytes,
        move_ratio_per_second=profile.move_ratio_per_second,
        refill_bytes_per_second=profile.refill_bytes_per_second,
        interference_ms_per_byte=1e3 / profile.link_bytes_per_second,
    )
    return clairvoyant_plan(cost, grid, PLAN_WINDOW_SECONDS, refill).emb_ratios


def carry_out_all(jobs: Iterable[Job], folder: Path, processes: int, progress: Callable[[int, int], None]) -> dict[str, dict[str, Any]]:
    """Answers by key. Replays come first: schedules are made from them. A piece that fails ends the suite, the others stay done."""
    folder.mkdir(parents=True, exist_ok=True)
    unique = {job.key: job for job in jobs}
    answers: dict[str, dict[str, Any]] = {}
    stages = [
        [job for job in unique.values() if job.kind == "replay"],
        [job for job in unique.values() if job.kind == "run"],
    ]
    with simulating_processes(processes) as pool:
        for stage in stages:
            waiting: dict[Future[dict[str, Any]], str] = {pool.submit(carry_out, job, folder): job.key for job in stage}
            for done in as_completed(waiting):
                answers[waiting[done]] = done.result()
                progress(len(answers), len(unique))
    return answers
