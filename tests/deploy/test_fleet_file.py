"""The fleet file of machines without a common supervisor: addresses from the command line, key and salt kept."""

from pathlib import Path

import pytest

from agents.wire.messages import NodeAddress
from helmctl.supervisor.fleet_file import address, main, read_fleet_file

TWO = ["--router", "router=10.0.0.1:8780", "--node", "node-0=10.0.0.2:8790", "--node", "node-1=10.0.0.3:8790", "--profile", "cpu-tiny"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def test_addresses_are_written_and_the_file_is_its_owners_only(folder: Path) -> None:
    assert main(TWO) == 0
    fleet = read_fleet_file(folder / "fleet.json")
    assert fleet is not None
    assert fleet.router == NodeAddress(name="router", host="10.0.0.1", port=8780)
    assert [(node.name, node.host, node.port) for node in fleet.nodes] == [("node-0", "10.0.0.2", 8790), ("node-1", "10.0.0.3", 8790)]
    assert fleet.profile == "cpu-tiny"
    assert (folder / "fleet.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_node_more_leaves_key_and_salt_as_they_were(folder: Path) -> None:
    main(TWO)
    before = read_fleet_file(folder / "fleet.json")
    main([*TWO, "--node", "node-2=node-2.example:8790"])
    after = read_fleet_file(folder / "fleet.json")
    assert before is not None and after is not None
    assert (before.fleet_key, before.cluster_salt_hex) == (after.fleet_key, after.cluster_salt_hex)
    assert [node.name for node in after.nodes] == ["node-0", "node-1", "node-2"]


@pytest.mark.parametrize(
    "text", ["", "node-0", "node-0=10.0.0.2", "=10.0.0.2:8790", "node-0=:8790", "node-0=h:0", "node-0=h:65536", "node-0=h:x"]
)
def test_what_is_no_address_is_refused_and_nothing_is_written(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--router", "router=10.0.0.1:8780", "--node", text])
    assert refused.value.code == 2
    assert "--node" in capsys.readouterr().err
    assert not folder.exists()


def test_an_unknown_profile_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*TWO[:-1], "no-such-profile"])
    assert "--profile" in capsys.readouterr().err


def test_an_ipv6_address_loses_its_brackets() -> None:
    assert address("node-0=[fd00::2]:8790") == NodeAddress(name="node-0", host="fd00::2", port=8790)
