"""`helmctl route`: what a person reads about a pick, from a real router's own answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.wire.messages import FleetFile, NodeAddress
from helmctl.cli.main import run
from helmctl.cli.route import explained, listed

COMPONENTS = dict.fromkeys(("queue", "fixed", "kv", "emb", "candidates", "refill", "rent", "delay", "score"), 1.5)
TOLD: dict[str, Any] = {
    "request_id": "r-1",
    "picked": "node-1",
    "predicted_ms": 12.345,
    "history_tokens": 320,
    "cached_tokens": 256,
    "candidates": 512,
    "predicted": {"queue": 1.0, "total": 12.345},
    "observed": {"queue": 2.0, "total": 14.0},
    "nodes": [
        {"name": "node-0", "filtered": "load_cap", "components": COMPONENTS},
        {"name": "node-1", "filtered": "", "components": COMPONENTS},
    ],
}


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A page server with a router's two answers, and the fleet file that leads to it."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "Bearer k"
            known = {"/debug/picks": [TOLD], "/debug/picks/r-1": TOLD}
            status, content = (200, known[self.path]) if self.path in known else (404, {"error": "no sampled pick of this request is kept"})
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = NodeAddress(name="router", host="127.0.0.1", port=server.server_port)
    fleet = FleetFile(cluster_salt_hex="00" * 16, fleet_key="k", router=address, nodes=[address], profile="cpu-demo")
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.encode(fleet))
    path.chmod(0o600)
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pick_is_explained_node_by_node_with_the_reason_of_those_left_out() -> None:
    lines = explained(TOLD)
    assert lines[1] == "picked node-1, predicted 12.35 ms"
    assert lines[4].split() == ["node-0", *["1.50"] * 9, "load", "cap"]
    assert lines[5].split() == [">", "node-1", *["1.50"] * 9]
    assert lines[-1].split() == ["total", "12.35", "14.00"]


def test_a_pick_of_nobody_and_an_answer_not_yet_there_are_dashes() -> None:
    assert listed([{**TOLD, "picked": None, "observed": None}])[1].split() == ["r-1", "-", "12.35", "-"]


@pytest.mark.usefixtures("router")
def test_the_command_asks_the_router_with_the_fleets_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["route", "explain", "r-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == TOLD
    assert run(["route", "recent"]) == 0
    assert "r-1" in capsys.readouterr().out


@pytest.mark.usefixtures("router")
def test_a_request_that_is_not_kept_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["route", "explain", "r/../2"]) == 2
    assert capsys.readouterr().err == "helmctl: no sampled pick of this request is kept\n"


def test_without_a_fleet_and_without_its_router_it_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HELM_STATE_DIR", str(tmp_path))
    assert run(["route", "recent"]) == 2
    assert capsys.readouterr().err == "helmctl: no fleet on this machine; start one with: make fleet\n"
