"""One shape for every bench, so that people and scripts can read any of them.

A part measures one thing several times and returns `Result`s; a bench is a list of parts. Ratios are
taken pair by pair inside one run, because absolute times of a shared machine mean little.
"""

import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
Say = Callable[[str], None]


class MeasureError(RuntimeError):
    """It could not be measured; one sentence why."""


class Result(NamedTuple):
    """One figure. `ci` is a 95 % interval where pairs were measured."""

    name: str
    median: float | None
    unit: str
    p99: float | None = None
    min: float | None = None
    max: float | None = None
    ci: tuple[float, float] | None = None


Part = Callable[..., Sequence[Result]]  # (runs, say), and `seconds` where a part runs for a time


def result_of(name: str, values: Sequence[float], unit: str, p99: float | None = None) -> Result:
    """Median and range of a figure measured several times."""
    array = np.asarray(values, dtype=np.float64)
    return Result(name, float(np.median(array)), unit, p99, float(array.min()), float(array.max()))


def ratio_of(name: str, pairs: Sequence[tuple[float, float]], seed: int = 0) -> Result:
    """Median of measured / compared over pairs, with a bootstrap interval of that median."""
    ratios = np.array([measured / compared for measured, compared in pairs])
    chance = np.random.default_rng(seed)
    medians = np.median(chance.choice(ratios, (2_000, ratios.shape[0])), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return Result(name, float(np.median(ratios)), "ratio", None, float(ratios.min()), float(ratios.max()), (float(low), float(high)))


def report(bench: str, runs: int, results: Sequence[Result], ahead: bool, device: str = "cpu") -> dict[str, Any]:
    """The JSON object of one bench; `ahead` says whether it went before the machine's other processes."""
    return {
        "bench": bench,
        "version": version("helm"),
        "git": _revision(),
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {"cpu": processor_name(), "cores": psutil.cpu_count() or 1, "device": device, "ahead_of_others": ahead},
        "runs": runs,
        "results": [{key: value for key, value in result._asdict().items() if key != "ci" or value is not None} for result in results],
    }


def _revision() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def processor_name() -> str:
    """What the machine computes with, as it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
