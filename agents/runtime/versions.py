"""Versions of the model on this machine: imported into a folder, checked, one of them current.

A version is a folder of two files, `weights.safetensors` and `table.npy`. It appears whole or not at
all and is never changed, so nodes may map it while they serve. `current` names the version that a
starting node serves.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from agents.profiles import Profile
from agents.runtime.device.base import element_type
from agents.runtime.device.table import HostTable, append_rows, ensure_table, table_header
from agents.runtime.files import write_private
from agents.runtime.model import HstuRanker, Weights, init_weights, load_weights

DEMO_VERSION = "1"  # seeded weights and a seeded table, made on the spot
DEMO_SEED = 1  # of both: every node of a fleet must rank alike
WEIGHTS_FILE = "weights.safetensors"
TABLE_FILE = "table.npy"
TABLES_FILE = "tables.json"  # rows of each table, in the order in which they follow one another
CURRENT_FILE = "current"
FEATURE_SCHEMA_FILE = "feature_schema"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Progress = Callable[[int, int], None]  # rows done, rows in all


class Sources(NamedTuple):
    """What a person wants to import: weights and tables, whose rows follow one another in this order."""

    weights: Path
    tables: tuple[Path, ...]


class Tables(NamedTuple):
    """The embedding tables of a version: their rows follow one another."""

    names: tuple[str, ...] = ("rows",)
    first_rows: tuple[int, ...] = (0,)


class Serving(NamedTuple):
    """What kept prefixes are a function of beside histories, and the tables that look-ups are counted by."""

    model_version: str
    feature_schema: str = "1"
    tables: Tables = Tables()


class Loaded(NamedTuple):
    """A version that fits the profile it was loaded for."""

    weights: Weights
    table: HostTable
    tables: Tables = Tables()


def find_sources(weights: Path, tables: Path) -> Sources:
    """The weights file, and the `.npy` files of the folder `tables` in the order of their names; `ValueError` if there are none."""
    if not weights.is_file():
        raise ValueError(f"{weights}: there is no such file of weights")
    if not tables.is_dir():
        raise ValueError(f"{tables}: there is no such folder of tables")
    found = tuple(sorted(path for path in tables.iterdir() if path.suffix == ".npy"))
    if not found:
        raise ValueError(f"{tables}: holds no .npy file")
    return Sources(weights, found)


def import_version(models: Path, version: str, sources: Sources, profile: Profile, progress: Progress | None = None) -> int:
    """Check and copy a version into `models`; returns its rows. `ValueError` names what is wrong, and then nothing is left behind."""
    folder = _folder(models, version)
    if folder.exists() or version == DEMO_VERSION:
        raise ValueError(f"version {version!r} is here already: versions are never changed, choose another name")
    weights = load_weights(sources.weights, profile.model)
    try_out(HstuRanker(profile.model, weights))
    partial = models / f".{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        rows = _write_table(partial / TABLE_FILE, sources.tables, profile, progress)
        (partial / TABLES_FILE).write_text(json.dumps({path.stem: HostTable(path).rows for path in sources.tables}), "utf-8")
        shutil.copyfile(sources.weights, partial / WEIGHTS_FILE)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return rows


def load_version(models: Path, version: str, profile: Profile) -> Loaded:
    """An imported version; `ValueError` when it is not here or was made for another profile."""
    folder = _folder(models, version)
    if not folder.is_dir():
        raise ValueError(f"version {version!r} is not here; import it with: helmctl model import")
    try:
        weights = load_weights(folder / WEIGHTS_FILE, profile.model)
        table = HostTable(folder / TABLE_FILE, element_type(profile))
    except ValueError as error:
        raise ValueError(f"version {version} does not fit profile {profile.name}: {error}") from error
    _check_rows(f"version {version}", table.rows, table.row_floats, profile)
    return Loaded(weights, table, tables_of(models, version))


def tables_of(models: Path, version: str) -> Tables:
    """Names of a version's tables and where each begins; one table for a version that does not say, as the demo's."""
    try:
        rows = json.loads((models / version / TABLES_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return Tables()
    return Tables(tuple(rows), tuple(accumulate(rows.values(), initial=0))[: len(rows)])


def demo_version(tables: Path, profile: Profile) -> Loaded:
    """The demo's model for a profile; its table is made on first use."""
    path = ensure_table(tables, profile.rows, profile.model.dim, DEMO_SEED)
    return Loaded(init_weights(profile.model, DEMO_SEED), HostTable(path, element_type(profile)))


def try_out(model: HstuRanker) -> None:
    """Rank one made-up request; `ValueError` when its scores are not finite: no node should find that out from a client."""
    # Not constant: a norm would make nothing of it.
    rows = torch.linspace(-1.0, 1.0, model.shape.dim, dtype=model.dtype, device=model.device).expand(2, -1)
    nothing = torch.empty(0, model.token_floats, dtype=model.dtype, device=model.device)
    zero = torch.zeros(1, dtype=torch.int64, device=model.device)
    scores, _ = model.forward(rows[:1], zero, zero, nothing, rows[1:])
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the weights give a score that is not finite")


def versions(models: Path) -> list[str]:
    """Versions that a node here can serve, the demo's included."""
    imported = [path.name for path in models.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)] if models.is_dir() else []
    return sorted({DEMO_VERSION, *imported})


def current_version(models: Path) -> str:
    """The version that a starting node serves."""
    try:
        return (models / CURRENT_FILE).read_text("utf-8").strip() or DEMO_VERSION
    except FileNotFoundError:
        return DEMO_VERSION


def set_current_version(models: Path, version: str) -> None:
    """Let nodes that start from now on serve `version`."""
    write_private(models / CURRENT_FILE, version.encode())


def serving(models: Path) -> Serving:
    """What a starting node serves."""
    version = current_version(models)
    return Serving(version, current_feature_schema(models), tables_of(models, version))


def current_feature_schema(models: Path) -> str:
    """The feature schema by which clients of a starting node build their histories."""
    try:
        return (models / FEATURE_SCHEMA_FILE).read_text("utf-8").strip() or Serving("").feature_schema
    except FileNotFoundError:
        return Serving("").feature_schema


def set_current_feature_schema(models: Path, schema: str) -> None:
    """Remember the schema for nodes that start from now on; `ValueError` for a name that is none."""
    check_name("feature schema", schema)
    models.mkdir(parents=True, exist_ok=True)
    write_private(models / FEATURE_SCHEMA_FILE, schema.encode())


def check_name(what: str, name: str) -> None:
    """`ValueError` for a name that is no safe file name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit")


def _folder(models: Path, version: str) -> Path:
    check_name("version", version)
    return models / version


def _check_rows(what: str, rows: int, row_floats: int, profile: Profile) -> None:
    if row_floats != profile.model.dim:
        raise ValueError(f"{what}: rows of {row_floats} elements, the profile {profile.name} has {profile.model.dim}")
    if rows < profile.rows:
        raise ValueError(f"{what}: {rows} rows, the profile {profile.name} needs {profile.rows}")


def _write_table(path: Path, sources: Sequence[Path], profile: Profile, progress: Progress | None) -> int:
    """All tables behind each other as one float32 file; every value is looked at on the way."""
    tables = [HostTable(source) for source in sources]
    for source, table in zip(sources, tables, strict=True):
        _check_rows(source.name, max(table.rows, profile.rows), table.row_floats, profile)
    total = sum(table.rows for table in tables)
    _check_rows(", ".join(source.name for source in sources), total, profile.model.dim, profile)
    done = 0
    with path.open("wb") as file:
        table_header(file, total, profile.model.dim)
        for source, table in zip(sources, tables, strict=True):
            for start, piece in table.pieces():
                rows = piece.numpy()
                if not np.isfinite(rows).all():
                    row = start + int((~np.isfinite(rows)).any(axis=1).argmax())
                    raise ValueError(f"{source.name}: row {row} holds values that are not finite")
                append_rows(file, rows)
                done += rows.shape[0]
                if progress is not None:
                    progress(done, total)
    return total
