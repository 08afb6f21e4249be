"""`helmctl node` and `helmctl status` against the real API, in one process."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from django.core.wsgi import get_wsgi_application

from apps.accounts import actions as accounts
from apps.fleet.models import Node
from apps.telemetry.models import Decision
from helmctl.cli import client as cli_client
from helmctl.cli import main
from helmctl.supervisor.view import NODE_FIELDS
from tests.apps.conftest import People, make_node, people  # noqa: F401 - fixtures
from tests.apps.frames import decision

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def helmctl(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:  # noqa: F811
    """Runs the command line as somebody, found through `cli.json`."""
    logging.disable(logging.CRITICAL)  # the server runs in this process and would write between the lines
    transport = httpx.WSGITransport(app=get_wsgi_application())
    original = cli_client.Client.__init__
    monkeypatch.setattr(cli_client.Client, "__init__", lambda self, address: original(self, address, transport))
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path))
    for name in ("HELM_URL", "HELM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    tokens = {
        name: accounts.create_token(people.actor(name), getattr(people, name), "cli").secret for name in ("viewer", "operator", "admin")
    }

    def run(*arguments: str, who: str = "operator") -> tuple[int, str, str]:
        (tmp_path / "cli.json").write_text(json.dumps({"url": "http://127.0.0.1", "token": tokens[who]}))
        code = main.run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    logging.disable(logging.NOTSET)


def test_status_is_the_fleet_and_the_fields_of_top(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    make_node("node-0", emb_ratio=0.4)
    make_node("node-1", online=False)

    code, out, _ = helmctl("status", "--json", who="viewer")

    document = json.loads(out)
    assert (code, document["fleet"]["nodes_ready"]) == (0, 1)
    first, second = document["nodes"]
    assert set(NODE_FIELDS) <= set(first)
    assert (first["name"], first["phase"], first["emb_ratio"], first["at_unix_ns"]) == ("node-0", "ready", 0.4, 1_800_000_000 * 10**9)
    assert (second["name"], second["phase"], second["emb_ratio"]) == ("node-1", "offline", None)


def test_the_tables_are_for_people(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    make_node("node-0")
    for command in (("status",), ("node", "list"), ("node", "show", "node-0")):
        code, out, _ = helmctl(*command, who="viewer")
        assert (code, "node-0" in out) == (0, True)


def test_the_last_decision_is_explained_in_words(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    node = make_node("node-0")
    assert helmctl("node", "explain", "node-0")[2] == "helmctl: node-0 has sent no decision yet\n"
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    for seq, granted in ((1, 0.5), (2, 0.52)):
        record = msgspec.to_builtins(decision(seq=seq, granted=granted))
        Decision.objects.create(node=node, at=at, seq=seq, moved=granted != 0.5, record=record)

    code, out, _ = helmctl("node", "explain", "node-0", who="viewer")

    assert (code, out.splitlines()[0]) == (0, "node-0, decision 2 of b5 (auto): EMB 0.500, target 0.520")
    assert out.splitlines()[-1] == "  at        2026-11-23T12:00:00Z"
    assert json.loads(helmctl("node", "explain", "node-0", "--json")[1])["seq"] == 2


def test_an_override_is_done_and_shown(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    node = make_node("node-0")

    code, out, _ = helmctl("node", "override", "node-0", "0.6", "--ttl", "30m", "--reason", "warming up", "--json")

    document = json.loads(out)
    assert (code, document["spec"]["mode"], document["spec"]["emb_ratio"], document["metadata"]["generation"]) == (0, "override", 0.6, 2)
    assert 1799 < document["spec"]["ttl_remaining_seconds"] <= 1800
    node.refresh_from_db()
    assert (node.actor, node.reason) == ("olga", "warming up")


def test_pin_and_release(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    node = make_node("node-0")
    assert helmctl("node", "pin", "node-0", "--reason", "hold it")[0] == 0
    node.refresh_from_db()
    assert (node.mode, node.emb_ratio) == ("pin", 0.5)
    assert helmctl("node", "pin", "node-0", "0.3", "--reason", "hold it")[0] == 0
    node.refresh_from_db()
    assert node.emb_ratio == 0.3
    assert json.loads(helmctl("node", "release", "node-0", "--reason", "done", "--json")[1])["spec"]["mode"] == "auto"


def test_a_pool_is_sized_shown_and_given_back(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    node = make_node("node-0")
    code, out, _ = helmctl("node", "pool", "node-0", "32MiB", "--reason", "a neighbour")
    assert code == 0
    assert "  pool    32.0 MiB: 64.0 MiB requested, 64.0 MiB granted, 50.0 MiB used" in out.splitlines()
    node.refresh_from_db()
    assert (node.pool_bytes, node.mode) == (32 << 20, "auto")
    document = json.loads(helmctl("node", "pool", "node-0", "default", "--reason", "it left", "--json")[1])
    assert document["spec"]["pool_bytes"] is None


def test_a_dry_run_of_a_size_prints_what_the_pool_loses(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    make_node("node-0")
    code, out, _ = helmctl("node", "pool", "node-0", "32MiB", "--reason", "a try", "--dry-run")
    assert (code, out) == (
        0,
        "pool 64.0 MiB -> 32.0 MiB, EMB 0.500 -> 0.500: -65536 rows, -21 users, 0.000 GiB to refill\n",
    )
    assert Node.objects.get().generation == 1


def test_a_dry_run_prints_the_price(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    make_node("node-0")
    code, out, _ = helmctl("node", "override", "node-0", "0.6", "--ttl", "30m", "--reason", "try it", "--dry-run")
    assert (code, "5 s to move" in out) == (0, True)
    assert Node.objects.get().generation == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("override", "node-0", "nan", "--ttl", "30m", "--reason", "because"), 2, "RATIO"),
        (("override", "node-0", "half", "--ttl", "30m", "--reason", "because"), 2, "RATIO"),
        (("override", "node-0", "0.99", "--ttl", "30m", "--reason", "because"), 2, "emb_ratio: 0.99 is outside the guard rails"),
        (("override", "node-0", "0.5", "--ttl", "0", "--reason", "because"), 2, "ttl_seconds"),
        (("override", "node-0", "0.5", "--ttl", "365d", "--reason", "because"), 2, "ttl_seconds"),
        (("override", "node-0", "0.5", "--ttl", "soon", "--reason", "because"), 2, "--ttl"),
        (("override", "node-0", "0.5", "--ttl", "30m", "--reason", ""), 2, "reason"),
        (("override", "node-0", "0.5", "--ttl", "30m"), 2, "--reason"),
        (("override", "node-9", "0.5", "--ttl", "30m", "--reason", "because"), 1, "There is no node named 'node-9'."),
        (("release", "node-0", "--reason", "because"), 1, "already has this node"),
        (("pool", "node-0", "half", "--reason", "because"), 2, "SIZE: 'half' is no size such as 512MiB"),
        (("pool", "node-0", "1.5B", "--reason", "because"), 2, "SIZE"),
        (("pool", "node-0", "65GiB", "--reason", "because"), 2, "pool_bytes: 69793218560 is outside 655360 to 67108864."),
        (("pool", "node-0", "0", "--reason", "because"), 2, "pool_bytes: 0 is outside"),
        (("pool", "node-0", "32MiB"), 2, "--reason"),
        (("pool", "node-9", "32MiB", "--reason", "because"), 1, "There is no node named 'node-9'."),
        (("show", "../tokens"), 2, "no node name"),
    ],
)
def test_what_is_refused_is_said_in_one_line(helmctl: Run, make_node: Any, arguments: tuple[str, ...], code: int, words: str) -> None:  # noqa: F811
    make_node("node-0")
    got, out, err = helmctl("node", *arguments)
    assert (got, out) == (code, "")
    said = [line for line in err.splitlines() if line.startswith("helmctl: ")]
    assert len(said) == 1
    assert words in said[0]
    assert Node.objects.get().generation == 1


def test_a_viewer_is_told_why_not(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    make_node("node-0")
    code, _, err = helmctl("node", "pin", "node-0", "--reason", "hold it", who="viewer")
    assert (code, "node.pin" in err) == (1, True)
    code, _, err = helmctl("node", "pool", "node-0", "32MiB", "--reason", "hold it", who="viewer")
    assert (code, "node.resize" in err) == (1, True)


def test_without_a_control_plane_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("HELM_URL", raising=False)
    assert main.run(["status"]) == 2
    assert "make up" in capsys.readouterr().err
    monkeypatch.setenv("HELM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HELM_TOKEN", "helm_x")
    assert main.run(["status"]) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172800), ("0", 0), ("-5m", -300)]
)
def test_durations(text: str, seconds: int) -> None:
    assert cli_client.parse_duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "1y", "nan", "inf", "0.5s", "1e400"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(cli_client.CommandRefused):
        cli_client.parse_duration_seconds(text)
