from importlib import resources
from pathlib import Path

import msgspec
import pytest

from agents.profiles import Calibration, FittedTerm, available_profiles, load_profile, profile_reference
from agents.profiles.text import profile_text

TINY = resources.files("agents.profiles").joinpath("cpu-tiny.toml").read_text("utf-8")


def written(folder: Path, *changes: tuple[str, str]) -> str:
    text = TINY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", available_profiles())
def test_every_shipped_profile_loads_and_bears_its_file_name(name: str) -> None:
    assert load_profile(name).name == name == load_profile(name).kind


def test_a_profile_is_read_from_any_path(tmp_path: Path) -> None:
    assert load_profile(written(tmp_path)) == load_profile("cpu-tiny")
    mine = load_profile(written(tmp_path, ('name = "cpu-tiny"', 'name = "mine"\ndevice = "cuda"')))
    assert (mine.name, mine.kind, mine.device) == ("mine", "mine", "cuda")


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"profile: unknown 'a100', choose one of .*cpu-demo.*, or the path of a profile file"):
        load_profile("a100")


def test_a_name_is_never_looked_up_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="profile: unknown 'mine'"):
        load_profile("mine")


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml: No such file or directory"):
        load_profile(str(tmp_path / "nowhere.toml"))
    with pytest.raises(ValueError, match="Is a directory"):
        load_profile(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows = 100_000", "rows = = 1", "Invalid value"),
        ("rows = 100_000", "rowz = 100_000", "unknown field `rowz`|required field `rows`"),
        ("rows = 100_000", "rows = -1", "rows must be a finite number > 0, not -1"),
        ("slo_ms = 120.0", "slo_ms = nan", "slo_ms must be a finite number > 0, not nan"),
        ("ms_per_token = 0.0028", "ms_per_token = -0.1", "ms_per_token must be a finite number >= 0, not -0.1"),
        ("layers = 2", "layers = 0", "layers must be a finite number > 0, not 0"),
        ("emb_ratio_start = 0.5", "emb_ratio_start = 1.0", "emb_ratio_start must be below 1"),
        ("row_bytes = 256", "row_bytes = 255", "page_bytes must be a multiple of row_bytes"),
        ('name = "cpu-tiny"', 'name = "cpu-tiny"\ndevice = "tpu"', "device"),
    ],
)
def test_a_damaged_profile_is_refused_by_path_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, (old, new))
    with pytest.raises(ValueError, match=message) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"profile {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", available_profiles())
def test_a_written_profile_reads_back_unchanged(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    path = tmp_path / "again.toml"
    path.write_text(profile_text(profile, "Two lines\n\nand a gap."))
    assert load_profile(str(path)) == profile
    assert path.read_text().startswith("# Two lines\n#\n# and a gap.\nname = ")


def test_a_calibration_reads_back_with_its_terms(tmp_path: Path) -> None:
    terms = [
        FittedTerm(term=name, formula="a + b n", samples=9, r_squared=0.99, residual_ms_median=1e-7, residual_ms_max=2.0) for name in "ab"
    ]
    measured = Calibration(
        base="cpu-tiny",
        device="cpu",
        emulated=True,
        host='a "b"',
        processor="c",
        at="2026-01-01T00:00:00Z",
        versions={"torch": "2"},
        terms=terms,
    )
    mine = msgspec.structs.replace(load_profile("cpu-tiny"), name="mine", calibration=measured)
    path = tmp_path / "mine.toml"
    path.write_text(profile_text(mine))
    assert load_profile(str(path)) == mine
    assert (mine.name, mine.kind) == ("mine", "cpu-tiny")


def test_another_process_finds_the_same_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert profile_reference("cpu-demo") == "cpu-demo"
    assert profile_reference("mine.toml") == str(tmp_path / "mine.toml")
