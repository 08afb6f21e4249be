from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agents.profiles import Profile
from agents.runtime.model import init_weights, save_weights
from agents.runtime.versions import (
    Serving,
    Sources,
    Tables,
    current_version,
    find_sources,
    import_version,
    load_version,
    serving,
    set_current_feature_schema,
    set_current_version,
    versions,
)
from tests.agents.runtime.device.parts import HALF_PROFILE, PROFILE, SHAPE


def a_model(folder: Path, seed: int = 7, rows: tuple[int, ...] = (120, 80)) -> Sources:
    """Weights and tables as somebody's training job would leave them."""
    tables = folder / "tables"
    tables.mkdir(parents=True)
    save_weights(folder / "weights.safetensors", init_weights(SHAPE, seed))
    generator = np.random.default_rng(seed)
    for number, count in enumerate(rows):
        np.save(tables / f"part-{number}.npy", generator.standard_normal((count, SHAPE.dim), dtype=np.float32))
    return find_sources(folder / "weights.safetensors", tables)


def brought(models: Path, version: str, sources: Sources, profile: Profile = PROFILE) -> int:
    return import_version(models, version, sources, profile)


def test_an_imported_version_holds_the_weights_and_all_tables_in_the_order_of_their_names(tmp_path: Path) -> None:
    sources = a_model(tmp_path / "theirs")
    seen: list[tuple[int, int]] = []
    assert import_version(tmp_path / "models", "v2", sources, PROFILE, lambda done, total: seen.append((done, total))) == 200
    loaded = load_version(tmp_path / "models", "v2", PROFILE)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded.weights, init_weights(SHAPE, 7), strict=True))
    first, second = (np.load(path) for path in sources.tables)
    assert np.array_equal(
        loaded.table.gather(np.array([0, 119, 120, 199])).numpy(), np.stack([first[0], first[119], second[0], second[79]])
    )
    assert loaded.tables == Tables(tuple(path.stem for path in sources.tables), (0, 120))
    assert seen == [(120, 200), (200, 200)]
    assert versions(tmp_path / "models") == ["1", "v2"]


def test_a_version_is_loaded_in_the_type_of_the_profile(tmp_path: Path) -> None:
    brought(tmp_path, "v2", a_model(tmp_path / "theirs"), HALF_PROFILE)
    assert load_version(tmp_path, "v2", HALF_PROFILE).table.gather(np.array([3])).dtype == torch.bfloat16


def test_what_a_node_serves_is_the_demo_until_something_else_is_chosen(tmp_path: Path) -> None:
    assert serving(tmp_path) == Serving("1", "1", Tables(("rows",), (0,)))
    brought(tmp_path, "v2", a_model(tmp_path / "theirs"))
    set_current_version(tmp_path, "v2")
    set_current_feature_schema(tmp_path, "2026-11")
    assert serving(tmp_path)[:2] == ("v2", "2026-11")
    assert serving(tmp_path).tables.first_rows == (0, 120)
    with pytest.raises(ValueError, match=r"feature schema '\.\./x': 1 to 64 letters"):
        set_current_feature_schema(tmp_path, "../x")


@pytest.mark.parametrize("version", ["1", "v2"])
def test_a_version_is_never_overwritten(tmp_path: Path, version: str) -> None:
    sources = a_model(tmp_path / "theirs")
    brought(tmp_path, "v2", sources)
    with pytest.raises(ValueError, match=f"version '{version}' is here already"):
        brought(tmp_path, version, sources)


@pytest.mark.parametrize("version", ["", "../v", ".v", "a/b", "x" * 65, "v 2", "v\n"])
def test_a_version_has_a_name_that_is_safe_as_a_folder(tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 letters, digits"):
        brought(tmp_path, version, a_model(tmp_path / "theirs"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    sources = a_model(tmp_path / "theirs")
    with pytest.raises(ValueError, match="no such file of weights"):
        find_sources(tmp_path / "nowhere", sources.tables[0].parent)
    with pytest.raises(ValueError, match="no such folder of tables"):
        find_sources(sources.weights, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.npy file"):
        find_sources(sources.weights, tmp_path / "empty")
    with pytest.raises(ValueError, match="version 'v9' is not here"):
        load_version(tmp_path, "v9", PROFILE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((80, 7), np.float32), "part-1.npy: rows of 7 elements, the profile cpu-demo has 8"),
        (np.zeros((79, 8), np.float32), "part-0.npy, part-1.npy: 199 rows, the profile cpu-demo needs 200"),
        (np.zeros((80, 8), np.float64), "part-1.npy: a table is float32 or float16"),
        (np.zeros((80, 8), np.int32), "part-1.npy: a table is float32 or float16"),
        (np.zeros(640, np.float32), "part-1.npy: a table is float32 or float16"),
        (
            np.where(np.arange(640).reshape(80, 8) == 99, np.nan, 1.0).astype(np.float32),
            "part-1.npy: row 12 holds values that are not finite",
        ),
        (np.full((80, 8), np.inf, np.float16), "part-1.npy: row 0 holds values that are not finite"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    sources = a_model(tmp_path / "theirs")
    np.save(sources.tables[1], rows)
    with pytest.raises(ValueError, match=message):
        brought(tmp_path / "models", "v2", sources)
    assert list((tmp_path / "models").iterdir()) == []


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    sources = a_model(tmp_path / "theirs")
    weights = dict(init_weights(SHAPE, 1)._asdict())
    save_file({**weights, "head": torch.zeros(9, 1)}, sources.weights)
    with pytest.raises(ValueError, match=r"head has shape \(9, 1\), expected \(8, 1\)"):
        brought(tmp_path / "models", "v2", sources)
    save_file({**weights, "uvqk": weights["uvqk"] * 1e30}, sources.weights)
    with pytest.raises(ValueError, match="the weights give a score that is not finite"):
        brought(tmp_path / "models", "v2", sources)
    assert not (tmp_path / "models").exists()


def test_a_version_made_for_a_smaller_profile_is_not_loaded_for_a_larger_one(tmp_path: Path) -> None:
    brought(tmp_path, "v2", a_model(tmp_path / "theirs"))
    larger = msgspec.structs.replace(PROFILE, rows=201)
    with pytest.raises(ValueError, match="version v2: 200 rows, the profile cpu-demo needs 201"):
        load_version(tmp_path, "v2", larger)


def test_the_current_version_is_remembered_and_is_the_demos_at_first(tmp_path: Path) -> None:
    assert current_version(tmp_path) == "1"
    set_current_version(tmp_path, "v2")
    assert current_version(tmp_path) == "v2"
