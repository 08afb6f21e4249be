"""What a node refuses before it makes anything large."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from agents.profiles import load_profile
from agents.runtime.config import NodeSettings, SettingsError
from agents.runtime.node_daemon import make_device
from agents.runtime.versions import find_sources, import_version, set_current_version
from tests.agents.runtime.node.parts import tiny_profile
from tests.agents.runtime.node.test_take_up import their_model


def settings(folder: Path, **changes: Any) -> NodeSettings:
    given = {"name": "node-0", "host": "127.0.0.1", "port": 0, "profile": tiny_profile(), "fleet_key": "key", "salt": b"salt"}
    return NodeSettings(**{**given, "state_folder": folder, **changes})


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"device cuda: torch .* finds no CUDA device here"):
        make_device(settings(tmp_path, device="cuda"))
    assert list(tmp_path.iterdir()) == []


def test_a_profile_for_the_simulator_alone_is_refused_before_its_table_is_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="profile a100-80g: kv_token_bytes is 12432, its model makes 24864"):
        make_device(settings(tmp_path, profile=load_profile("a100-80g")))
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_the_disk_has_no_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a table of 1,000,000,000,000 rows takes"):
        make_device(settings(tmp_path, profile=tiny_profile(rows=10**12)))


def test_a_current_version_that_was_made_for_another_profile_is_refused_by_its_name(tmp_path: Path) -> None:
    theirs = their_model(tmp_path / "theirs")
    models = settings(tmp_path).model_folder
    import_version(models, "v2", find_sources(theirs / "weights.safetensors", theirs), tiny_profile())
    set_current_version(models, "v2")
    longer = tiny_profile()
    longer = msgspec.structs.replace(longer, model=msgspec.structs.replace(longer.model, tokens_max=40))
    with pytest.raises(SettingsError, match=r"version v2 does not fit profile tiny: .*position_bias has shape"):
        make_device(settings(tmp_path, profile=longer))
