"""What a training run leaves on disk: the policy's two files and its learning curve."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agents.artifacts.policy_file import PolicyFile, read_policy
from agents.controller.frozen import freeze
from agents.learning.config import TrainingConfig
from agents.learning.evaluate import evaluate
from agents.learning.export import export_policy
from agents.learning.train import CurvePoint, Trained
from agents.sim.scenario import Scenario

RULES = ["b5", "static-0.50"]
EVALUATION_SEEDS = [11]


def save(
    out: Path,
    config: TrainingConfig,
    seed: int,
    trained: Trained,
    *,
    git_revision: str,
    evaluated: bool,
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write `NAME.safetensors`, `NAME.json` and `NAME-curve.parquet` into `out`; returns their paths."""

    def exported(evaluation: dict[str, Any]) -> PolicyFile:
        known = {"seed": seed, "git_revision": git_revision, "training": trained.training, "evaluation": evaluation}
        return export_policy(trained.model, config, trained.mean, trained.scale, **known)  # type: ignore[arg-type]

    file = exported({})
    if evaluated:
        file = exported(evaluate(freeze(read_policy(file.weights, file.card)), evaluation_cells(config), RULES, EVALUATION_SEEDS, say))
    return write_files(out, config.name, file, trained.curve)


def write_files(out: Path, name: str, file: PolicyFile, curve: list[CurvePoint]) -> list[Path]:
    """Both files of the policy, and the curve if there is one."""
    paths = [out / f"{name}.safetensors", out / f"{name}.json", out / f"{name}-curve.parquet"]
    paths[0].write_bytes(file.weights)
    paths[1].write_bytes(file.card)
    if not curve:
        return paths[:2]
    pq.write_table(pa.Table.from_pylist([point._asdict() for point in curve]), paths[2])
    return paths


def evaluation_cells(config: TrainingConfig) -> list[Scenario]:
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
