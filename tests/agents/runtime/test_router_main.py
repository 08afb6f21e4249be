"""The router as a process: refuses clearly, starts, stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from agents.runtime.router_main import main


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """`main` sends logs to the captured stderr, which does not outlive the test."""
    yield
    structlog.reset_defaults()


def fleet_file(folder: Path, port: int, **changes: object) -> Path:
    nodes = [{"name": "node-0", "host": "127.0.0.1", "port": 1}]
    values: dict[str, object] = {
        "cluster_salt_hex": "00" * 16,
        "fleet_key": "k",
        "router": {"name": "router", "host": "127.0.0.1", "port": port},
        "nodes": nodes,
        "profile": "cpu-demo",
    }
    path = folder / "fleet.json"
    path.write_text(json.dumps(values | changes))
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_missing_fleet_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refusal(capsys, "--fleet", str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"profile": "h900"}, "profile: unknown 'h900'"),
        ({"cluster_salt_hex": "zz"}, "not hexadecimal"),
        ({"nodes": []}, "no nodes"),
        ({"nodes": 3}, "Expected `array`"),
    ],
)
def test_a_fleet_file_that_cannot_work_is_refused_by_name(
    changes: dict[str, object], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refusal(capsys, "--fleet", str(fleet_file(tmp_path, 0, **changes)))


def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, "--fleet", str(fleet_file(tmp_path, port)))
    assert line == f"router: cannot listen on 127.0.0.1:{port}: the port is taken"


@pytest.mark.live
def test_a_router_without_nodes_lives_says_so_and_ends_on_sigterm(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "agents.runtime.router_main",
        "--fleet",
        str(fleet_file(tmp_path, port)),
        "--journal",
        str(tmp_path / "j"),
    ]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        while b"listening" not in process.stderr.readline():
            assert process.poll() is None
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/live") as answer:
            assert json.load(answer) == {"live": True}
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        process.kill()
        process.communicate()
    assert len(list((tmp_path / "j").iterdir())) == 1


@contextmanager
def standing_by(fleet: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A router that has loaded everything and waits."""
    command = [sys.executable, "-m", "agents.runtime.router_main", "--fleet", str(fleet), "--standby"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            while b"standing_by" not in process.stderr.readline():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.live
def test_a_standby_leaves_the_port_alone_and_serves_when_called_with_the_fleet_as_it_is_then(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with standing_by(fleet_file(tmp_path, 1)) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        fleet_file(tmp_path, port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        process.stdin.write(b"serve\n")
        process.stdin.close()
        while b"listening" not in process.stderr.readline():
            assert process.poll() is None
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/live") as answer:
            assert json.load(answer) == {"live": True}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.mark.live
def test_a_standby_ends_with_whoever_would_call_it(tmp_path: Path) -> None:
    with standing_by(fleet_file(tmp_path, 1)) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=20) == 0
