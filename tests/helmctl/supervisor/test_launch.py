"""A whole run in a process of its own: lock, ports, signals, `helmctl down`, what is left afterwards."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from helmctl.supervisor.lock import holder_pid
from helmctl.supervisor.state import StateFolder
from helmctl.supervisor.stop import stop_running

RUNNER = """
import sys
from pathlib import Path
from helmctl.supervisor.launch import launch
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.processes import Service
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder

def table(plan, state, profile, bus):
    command = (sys.executable, "-m", "http.server", str(plan.router_port), "--bind", "127.0.0.1", "--directory", str(state.logs))
    ports = (("127.0.0.1", plan.router_port, "ROUTER_PORT"),)
    return [Service(name="router", command=command, health_url=f"http://127.0.0.1:{plan.router_port}/", ports=ports)]

def say(line):
    print(line, flush=True)

try:
    sys.exit(launch(Plan(router_port=int(sys.argv[2])), StateFolder(Path(sys.argv[1])), "fleet", say, table))
except Refusal as refusal:
    say(f"refused: {refusal}")
    sys.exit(2)
"""


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def begin(state: StateFolder, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUNNER, str(state.root), str(port)], stdout=subprocess.PIPE, text=True)


def begin_and_wait(state: StateFolder, port: int) -> subprocess.Popen[str]:
    run = begin(state, port)
    assert run.stdout is not None
    assert any("HELM is ready" in line for line in iter(run.stdout.readline, ""))
    return run


def assert_nothing_left(state: StateFolder, port: int) -> None:
    assert not state.lock_file.exists()
    assert not state.children_file.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_and_leaves_nothing(state: StateFolder, port: int, number: signal.Signals) -> None:
    run = begin_and_wait(state, port)
    run.send_signal(number)
    assert run.wait(timeout=30) == 0
    assert_nothing_left(state, port)


def test_down_stops_it_from_another_process(state: StateFolder, port: int) -> None:
    run = begin_and_wait(state, port)
    assert stop_running(state) == [f"Stopped the system (pid {run.pid})."]
    assert run.wait(timeout=30) == 0
    assert_nothing_left(state, port)
    assert stop_running(state) == []


def test_a_second_instance_is_refused_with_one_line(state: StateFolder, port: int) -> None:
    run = begin_and_wait(state, port)
    second = begin(state, port)
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 2
    assert said == f"refused: HELM already runs here (pid {run.pid}); stop it with: helmctl down\n"
    run.terminate()
    assert run.wait(timeout=30) == 0


def test_a_taken_port_is_refused_with_one_line_before_anything_starts(state: StateFolder, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        run = begin(state, port)
        said, _ = run.communicate(timeout=30)
    assert run.returncode == 2
    owner = f"pid {os.getpid()} ({psutil.Process().name()})"
    assert said == f"refused: port {port} for router is taken by {owner}; choose another with ROUTER_PORT=...\n"
    assert not state.lock_file.exists()
    assert not state.fleet_file.exists()


def test_what_a_killed_supervisor_left_is_ended_by_the_next_start(state: StateFolder, port: int) -> None:
    run = begin_and_wait(state, port)
    run.kill()
    run.wait(timeout=30)
    assert holder_pid(state.lock_file) is None
    again = begin(state, port)
    assert again.stdout is not None
    assert again.stdout.readline() == "Stopped router, left over from a run that was killed.\n"
    assert any("HELM is ready" in line for line in iter(again.stdout.readline, ""))
    again.terminate()
    assert again.wait(timeout=30) == 0
    assert_nothing_left(state, port)


def test_down_ends_what_a_killed_supervisor_left(state: StateFolder, port: int) -> None:
    run = begin_and_wait(state, port)
    run.kill()
    run.wait(timeout=30)
    assert stop_running(state) == ["Stopped router, left over from a run that was killed."]
    assert_nothing_left(state, port)


def test_the_fleet_file_is_for_its_owner_alone(state: StateFolder, port: int) -> None:
    run = begin_and_wait(state, port)
    assert state.fleet_file.stat().st_mode & 0o777 == 0o600
    assert state.root.stat().st_mode & 0o777 == 0o700
    run.terminate()
    assert run.wait(timeout=30) == 0
