"""What a training run leaves on disk: the policy's two files and its learning curve."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agents.artifacts.policy_file import PolicyFile, read_policy
from agents.controller.frozen import FrozenPolicy, freeze
from agents.learning.compare import compare, generated_cells
from agents.learning.config import TrainingConfig
from agents.learning.export import export_policy
from agents.learning.train import CurvePoint, Trained

EVALUATION_SEEDS = [11, 12]


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
        file = exported(evaluate(freeze(read_policy(file.weights, file.card)), config, say))
    return write_files(out, config.name, file, trained.curve)


def evaluate(frozen: FrozenPolicy, config: TrainingConfig, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """What the card says of it: P99 beside the rules' on the configuration's kinds of traffic."""
    cells = {f"{cell.workload}/{cell.admission}": cell for cell in generated_cells(config)}
    found = compare(frozen, None, cells, EVALUATION_SEEDS, lambda share: say(f"comparing with B5 and B7: {share:.0%}"))
    assert found is not None  # nobody cancels
    say(", ".join(f"P99 {change['mean']:+.1%} against {name}" for name, change in found["against"].items() if change["mean"] is not None))
    return found


def write_files(out: Path, name: str, file: PolicyFile, curve: list[CurvePoint]) -> list[Path]:
    """Both files of the policy, and the curve if there is one."""
    paths = [out / f"{name}.safetensors", out / f"{name}.json", out / f"{name}-curve.parquet"]
    paths[0].write_bytes(file.weights)
    paths[1].write_bytes(file.card)
    if not curve:
        return paths[:2]
    pq.write_table(pa.Table.from_pylist([point._asdict() for point in curve]), paths[2])
    return paths
