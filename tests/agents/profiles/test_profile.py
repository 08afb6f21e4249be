from importlib import resources
from pathlib import Path

import pytest

from agents.profiles import available_profiles, load_profile, profile_reference

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


def test_another_process_finds_the_same_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert profile_reference("cpu-demo") == "cpu-demo"
    assert profile_reference("mine.toml") == str(tmp_path / "mine.toml")
