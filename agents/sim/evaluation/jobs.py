"""The pieces of work of an evaluation, each cached under the hash of its question.

A piece is one simulated run. Its answer is a file; what is there is not done again, so a suite that was stopped goes on
where it was. Pieces run in parallel processes.
"""

import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.controller.baselines.s3 import Schedule
from agents.controller.baselines.static import Static
from agents.sim.evaluation.loads import peak_utilisation
from agents.sim.evaluation.schedules import WINDOW_SECONDS
from agents.sim.fleet import ORIGIN_NS, SimulatedFleet
from agents.sim.processes import forget_fleets, simulating_processes
from agents.sim.scenario import Scenario, asked, fleet_for, profiles_of, workload_of
from agents.sim.settle import Beginnings
from agents.workloads.blocks import BlockWorkload
from agents.workloads.drawn_once import DrawnOnce, DrawnSoFar
from agents.workloads.fleet_workload import FleetWorkload

QUANTILES = np.concatenate([np.linspace(0.0, 0.9, 91), np.linspace(0.905, 0.999, 189)])  # of the latencies kept for plots
_STREAM_BYTES_MAX = 512 << 20  # kept of a stream: more than five minutes of four nodes
ANSWER_VERSION = 3  # raise when an answer's fields change


class Job(NamedTuple):
    """One piece. Instead of the scenario's method: a static split per node, or one schedule for all of them."""

    scenario: Scenario
    splits: tuple[float, ...] = ()  # one ratio per node
    schedule: tuple[float, ...] = ()  # one ratio per window of `schedules.WINDOW_SECONDS`

    @property
    def key(self) -> str:
        """Name of the answer's file."""
        splits = "".join(f"-{ratio:g}" for ratio in self.splits)
        schedule = "-s3-" + hashlib.sha256(repr(self.schedule).encode()).hexdigest()[:12] if self.schedule else ""
        return f"run-{ANSWER_VERSION}-{self.scenario.digest}{splits}{schedule}{_log_of(self.scenario)}"


def _log_of(scenario: Scenario) -> str:
    """Digest of a replayed log's bytes: another log under the same path is another question. `ValueError` if it cannot be read."""
    if scenario.trace is None:
        return ""
    try:
        found = Path(scenario.trace).stat()
        return "-log-" + _digest_of(scenario.trace, found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise ValueError(f"log: cannot read {scenario.trace}: {error.strerror}") from error


@lru_cache(maxsize=64)
def _digest_of(path: str, _modified_ns: int, _bytes: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def carry_out(job: Job, folder: Path) -> dict[str, Any]:
    """The answer, from its file or by working."""
    path = folder / f"{job.key}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    forget_fleets()
    gc.freeze()  # no fleet is left, kernels and the like are: later collections need not look through them
    answer = _run(job)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(answer), "utf-8")
    part.replace(path)
    return answer


def _run(job: Job) -> dict[str, Any]:
    fleet = _fleet(job)
    fleet.run()
    statistics = fleet.statistics
    latency = statistics.answers["latency_ms"]
    cell = asked(job.scenario) | statistics.cell()
    cell["method"] = "s3" if job.schedule else job.scenario.method
    cell["utilisation_peak"] = peak_utilisation(statistics.service_ms, job.scenario.warmup_seconds)
    return {
        "cell": cell,
        "ratios": statistics.ratios.round(4).tolist(),
        "latency_ms": np.quantile(latency, QUANTILES).round(4).tolist() if latency.size else [],
        "service_ms": statistics.service_ms.sum(axis=0).round(2).tolist(),  # [seconds, 2] of the fleet, by half of the requests
    }


def _fleet(job: Job) -> SimulatedFleet:
    alike = partial(fleet_for, job.scenario, stream=_shared.stream_of(job.scenario), beginnings=_shared.beginnings)
    if job.schedule:
        starts_ns = ORIGIN_NS + WINDOW_SECONDS * 1_000_000_000 * np.arange(len(job.schedule), dtype=np.int64)
        ratios = np.array(job.schedule)
        return alike(controllers=lambda _: Schedule(starts_ns, ratios), emb_ratio_start=float(ratios[0]))
    if job.splits:
        return alike(controllers=lambda node: Static(job.splits[node]), emb_ratio_start=float(np.mean(job.splits)))
    return alike()


class _Shared:
    """What the pieces of one process have in common: they come in an order in which many in a row see one stream and begin alike."""

    def __init__(self) -> None:
        self.beginnings = Beginnings()
        self._stream: DrawnOnce | DrawnSoFar | None = None
        self._digest = ""

    def stream_of(self, scenario: Scenario) -> BlockWorkload:
        """The scenario's stream, the piece's before if that was the same."""
        stream = workload_of(scenario, profiles_of(scenario)[0])
        digest = stream.digest if isinstance(stream, FleetWorkload) else _unserved(scenario).digest
        if self._stream is None or self._digest != digest:
            # a log or the demo goes on for ever
            self._stream = (
                DrawnOnce(stream, _STREAM_BYTES_MAX) if isinstance(stream, FleetWorkload) else DrawnSoFar(stream, _STREAM_BYTES_MAX)
            )
            self._digest = digest
        return self._stream


def _unserved(scenario: Scenario) -> Scenario:
    """What of a scenario decides its stream: nothing of how it is served."""
    return msgspec.structs.replace(scenario, method="", admission="", router="joint", rent=True)


_shared = _Shared()


def carry_out_all(jobs: Iterable[Job], folder: Path, processes: int, progress: Callable[[int, int], None]) -> dict[str, dict[str, Any]]:
    """Answers by key. A piece that fails ends the suite, the others stay done."""
    folder.mkdir(parents=True, exist_ok=True)
    unique = {job.key: job for job in jobs}
    answers: dict[str, dict[str, Any]] = {}
    with simulating_processes(processes) as pool:
        waiting: dict[Future[dict[str, Any]], str] = {pool.submit(carry_out, job, folder): key for key, job in unique.items()}
        for done in as_completed(waiting):
            answers[waiting[done]] = done.result()
            progress(len(answers), len(unique))
    return answers
