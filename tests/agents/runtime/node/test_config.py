"""What a node can be started with, and the one sentence for what it cannot."""

from pathlib import Path

import msgspec
import pytest

from agents.runtime.config import SettingsError, parse_node_settings
from agents.wire.messages import FleetFile, NodeAddress

FLEET = FleetFile(
    cluster_salt_hex="00ff",
    fleet_key="key",
    router=NodeAddress(name="router", host="127.0.0.1", port=8780),
    nodes=[NodeAddress(name="node-0", host="127.0.0.1", port=8790), NodeAddress(name="node-1", host="::1", port=8791)],
    profile="cpu-demo",
)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.encode(FLEET))
    return path


def refusal(*arguments: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_node_settings(arguments, {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_node_finds_itself_in_the_fleet(fleet: Path) -> None:
    settings = parse_node_settings(["--fleet", str(fleet), "--name", "node-1"], {})
    assert (settings.name, settings.host, settings.port, settings.profile.name) == ("node-1", "::1", 8791, "cpu-demo")
    assert (settings.fleet_key, settings.salt) == ("key", b"\x00\xff")
    assert (settings.controller, settings.admission, settings.journal_folder, settings.control_url) == ("helm", "shipped", None, None)
    assert settings.infer_url == "http://[::1]:8791"
    assert settings.hold_file == fleet.parent / "nodes" / "node-1" / "spec.json"


def test_the_state_folder_can_be_named_by_the_environment(fleet: Path, tmp_path: Path) -> None:
    settings = parse_node_settings(["--fleet", str(fleet), "--name", "node-0"], {"HELM_STATE_DIR": str(tmp_path / "elsewhere")})
    assert settings.table_folder == tmp_path / "elsewhere" / "tables"


def test_the_link_is_taken_from_the_command_line(fleet: Path) -> None:
    link = ["--control-url", "ws://h:1/agents/v1/link", "--credential-file", "c", "--enrol-token-file", "t"]
    settings = parse_node_settings(["--fleet", str(fleet), "--name", "node-0", *link], {})
    assert settings.control_url == "ws://h:1/agents/v1/link"
    assert (settings.credential_file, settings.enrol_token_file) == (Path("c"), Path("t"))


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        (["--name", "node-9"], "node-9"),
        (["--name", "node-0", "--admission", "sometimes"], "--admission"),
        (["--name", "node-0", "--emb-ratio-start", "1.5"], "--emb-ratio-start"),
        (["--name", "node-0", "--emb-ratio-start", "nan"], "--emb-ratio-start"),
        (["--name", "node-0", "--control-url", "http://h/"], "--control-url"),
        (["--name", "node-0", "--control-url", "ws://h/"], "--credential-file"),
        (["--name", "node-0", "--surprise"], "--surprise"),
        ([], "--name"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(fleet: Path, extra: list[str], word: str) -> None:
    assert word in refusal("--fleet", str(fleet), *extra)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_fleet_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fleet.json"
    path.write_bytes(content)
    assert str(path) in refusal("--fleet", str(path), "--name", "node-0")


def test_a_missing_fleet_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in refusal("--fleet", str(tmp_path / "fleet.json"), "--name", "node-0")


@pytest.mark.parametrize(
    ("changes", "word"), [({"profile": "gpu-9"}, "gpu-9"), ({"cluster_salt_hex": "xy"}, "salt"), ({"cluster_salt_hex": ""}, "salt")]
)
def test_a_fleet_that_cannot_be_run_is_refused(tmp_path: Path, changes: dict[str, str], word: str) -> None:
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(FLEET, **changes)))
    assert word in refusal("--fleet", str(path), "--name", "node-0")
