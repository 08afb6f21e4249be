"""The small parts around the supervisor: back-off, logs, lock, health, ports, fleet file, saturation, browser, view."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agents.wire.messages import FleetFile, NodeAddress, NodeTelemetry
from helmctl.supervisor.backoff import MAX_SECONDS, backoff_seconds, deaths_now
from helmctl.supervisor.browser import candidates, find_browser, starts
from helmctl.supervisor.fleet_file import read_fleet_file, write_fleet_file
from helmctl.supervisor.health import is_healthy
from helmctl.supervisor.launch import ready_block, refuse_unknown_names
from helmctl.supervisor.lock import InstanceLock, holder_pid
from helmctl.supervisor.logs import open_log, rotate, tail
from helmctl.supervisor.machine import port_problem, refuse_taken_ports
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.processes import Service
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.saturation import SaturationWatch
from helmctl.supervisor.state import ROOT, StateFolder, find_state_folder
from helmctl.supervisor.view import NODE_FIELDS, look, node_row, read_load, router_row
from helmctl.supervisor.warm import present_warmers

SECOND_NS = 1_000_000_000

# --- back-off


def test_waits_double_up_to_a_bound() -> None:
    assert [backoff_seconds(deaths, 0.5) for deaths in (1, 2, 3, 4, 5, 6, 1000)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_chance_spreads_a_wait_by_a_quarter_each_way() -> None:
    assert backoff_seconds(1, 0.0) == 0.375
    assert backoff_seconds(1, 1.0) == 0.625
    assert backoff_seconds(50, 1.0) == MAX_SECONDS * 1.25


def test_a_long_life_forgives_earlier_deaths() -> None:
    assert deaths_now(4, lived_seconds=1.0) == 5
    assert deaths_now(4, lived_seconds=30.0) == 1


# --- logs


def test_a_full_log_is_moved_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "node-0.log"
    with open_log(path) as log:
        log.write(b"x" * 10)
        assert not rotate(path, bytes_max=10)
        log.write(b"y")
        assert rotate(path, bytes_max=10)
        log.write(b"after")
    assert (tmp_path / "node-0.log.1").read_bytes() == b"x" * 10 + b"y"
    assert path.read_bytes() == b"after"


def test_the_tail_is_the_last_lines_that_say_something(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {index}\n\n" for index in range(9000)))
    assert tail(path, lines=2) == ["line 8998", "line 8999"]
    assert tail(tmp_path / "none.log") == []


# --- lock


def test_a_held_lock_names_its_holder_and_a_second_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.pid"
    code = "import sys, time; from pathlib import Path; from helmctl.supervisor.lock import InstanceLock\n"
    code += "with InstanceLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert holder_pid(path) == holder.pid
    with pytest.raises(Refusal, match=f"pid {holder.pid}"), InstanceLock(path):
        pass
    holder.kill()
    holder.wait()
    assert path.exists()
    assert holder_pid(path) is None
    with InstanceLock(path):
        assert path.exists()
    assert not path.exists()


def test_nobody_holds_a_lock_that_was_never_taken(tmp_path: Path) -> None:
    assert holder_pid(tmp_path / "none") is None


# --- health


async def answer_with(reply: bytes, ask: str) -> bool:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await is_healthy(ask.format(port=port))


@pytest.mark.parametrize(
    ("url", "reply", "healthy"),
    [
        ("http://127.0.0.1:{port}/v2/health/ready", b"HTTP/1.1 200 OK\r\n\r\n", True),
        ("http://127.0.0.1:{port}/", b"HTTP/1.1 204 No Content\r\n\r\n", True),
        ("http://127.0.0.1:{port}/", b"HTTP/1.1 503 Not yet\r\n\r\n", False),
        ("http://127.0.0.1:{port}/", b"", False),
        ("redis://127.0.0.1:{port}/0", b"+PONG\r\n", True),
        ("redis://127.0.0.1:{port}", b"-LOADING\r\n", False),
        ("redis://:word@127.0.0.1:{port}", b"+OK\r\n+PONG\r\n", True),
        ("redis://:wrong@127.0.0.1:{port}", b"-WRONGPASS\r\n-NOAUTH\r\n", False),
        ("gopher://127.0.0.1:{port}", b"+PONG\r\n", False),
    ],
)
async def test_health_is_a_good_answer(url: str, reply: bytes, healthy: bool) -> None:
    assert await answer_with(reply, url) is healthy


async def test_nobody_there_and_nobody_answering_are_both_unhealthy(tmp_path: Path) -> None:
    assert not await is_healthy(f"unix:{tmp_path}/none.sock")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not await is_healthy(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_seconds=0.1)


async def test_a_redis_behind_a_unix_socket_is_asked_there(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(14) == b"*1\r\n$4\r\nPING\r\n"
        writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "r.sock")
    async with server:
        assert await is_healthy(f"unix:{tmp_path / 'r.sock'}")


# --- ports


def test_a_taken_port_is_found_and_a_free_one_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert (port_problem("127.0.0.1", port) or "").startswith("is taken")
        with pytest.raises(Refusal, match=rf"^port {port} for router is taken.*; choose another with ROUTER_PORT=\.\.\.$"):
            refuse_taken_ports([Service(name="router", command=(), ports=(("127.0.0.1", port, "ROUTER_PORT"),))])
    assert port_problem("127.0.0.1", port) is None


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    assert (port_problem("192.0.2.1", 18080) or "").startswith("cannot be opened on 192.0.2.1 (")


# --- fleet file


def test_a_new_start_keeps_salt_and_key_and_renews_addresses(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    first = write_fleet_file(path, Plan(nodes=2))
    second = write_fleet_file(path, Plan(nodes=3, host="10.0.0.1", router_port=9000))
    assert (second.cluster_salt_hex, second.fleet_key) == (first.cluster_salt_hex, first.fleet_key)
    assert second.router == NodeAddress(name="router", host="10.0.0.1", port=9000)
    assert [(node.name, node.host, node.port) for node in second.nodes] == [(f"node-{i}", "127.0.0.1", 8790 + i) for i in range(3)]
    assert read_fleet_file(path) == second
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_fleets_share_no_secret(tmp_path: Path) -> None:
    one, two = write_fleet_file(tmp_path / "1", Plan()), write_fleet_file(tmp_path / "2", Plan())
    assert one.fleet_key != two.fleet_key
    assert one.cluster_salt_hex != two.cluster_salt_hex
    assert len(bytes.fromhex(one.cluster_salt_hex)) == 32


def test_a_damaged_fleet_file_is_none_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text('{"router": 1')
    assert read_fleet_file(path) is None
    assert write_fleet_file(path, Plan()) == read_fleet_file(path)


# --- names and the ready block


@pytest.mark.parametrize("workload", ["nonsense", "/nowhere/log.parquet"])
def test_an_unknown_workload_is_refused_by_name(workload: str) -> None:
    with pytest.raises(Refusal, match=f"^WORKLOAD={workload}: "):
        refuse_unknown_names(Plan(workload=workload))


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refusal, match=r"unknown 'gpu-of-dreams', choose one of .*cpu-demo"):
        refuse_unknown_names(Plan(profile="gpu-of-dreams"))


def test_the_ready_block_says_where_how_to_watch_and_how_to_stop() -> None:
    block = ready_block(Plan(nodes=4), StateFolder(Path("/s")), 12.34)
    assert "HELM is ready after 12.3 s" in block
    assert "http://127.0.0.1:8780/v2" in block
    assert "4, http://127.0.0.1:8790 to :8793" in block
    assert ".venv/bin/helmctl top" in block
    assert "Ctrl-C here, or .venv/bin/helmctl down" in block


# --- state folder


def test_the_state_folder_is_beside_the_code_unless_the_environment_says_otherwise() -> None:
    assert find_state_folder({}).root == ROOT / ".helm"
    assert find_state_folder({"HELM_STATE_DIR": "/elsewhere"}).root == Path("/elsewhere")


def test_preparing_makes_folders_for_the_owner_alone(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "a" / "state")
    state.prepare()
    state.prepare()
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert state.logs.is_dir()
    state.remove()
    assert not state.root.exists()


# --- saturation


def write_load(path: Path, at_unix_ns: int, *, saturated: bool) -> None:
    path.write_text(
        json.dumps({"at_unix_ns": at_unix_ns, "saturated": saturated, "message": "host saturated: CPU 97 %" if saturated else ""})
    )


def test_a_saturated_host_is_said_once_a_minute(tmp_path: Path) -> None:
    path, now_ns = tmp_path / "load.json", 1_000 * SECOND_NS
    times = iter([now_ns, now_ns + SECOND_NS, now_ns + 60 * SECOND_NS])
    watch = SaturationWatch(path, lambda: next(times))
    write_load(path, now_ns, saturated=True)
    assert watch() == "host saturated: CPU 97 %"
    assert watch() is None
    write_load(path, now_ns + 60 * SECOND_NS, saturated=True)
    assert watch() is not None


def test_a_calm_an_old_and_a_missing_report_say_nothing(tmp_path: Path) -> None:
    path, now_ns = tmp_path / "load.json", 1_000 * SECOND_NS
    watch = SaturationWatch(path, lambda: now_ns)
    assert watch() is None
    write_load(path, now_ns, saturated=False)
    assert watch() is None
    write_load(path, now_ns - 6 * SECOND_NS, saturated=True)
    assert watch() is None
    path.write_text("[]")
    assert read_load(path, now_ns) is None


# --- browser


def script(path: Path, code: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_browser_that_is_only_a_stub_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "bin/chromium", 10)
    real = script(tmp_path / "bin/google-chrome", 0)
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert find_browser(environ) == real
    assert not starts(str(tmp_path / "nothing"))


def test_playwrights_own_browser_is_found_after_the_path(tmp_path: Path) -> None:
    own = script(tmp_path / ".cache/ms-playwright/chromium-1200/chrome-linux/chrome", 0)
    assert list(candidates({"PATH": str(tmp_path), "HOME": str(tmp_path)})) == [own]
    assert find_browser({"PATH": str(tmp_path), "HOME": str(tmp_path)}) == own


def test_a_named_browser_is_the_only_candidate(tmp_path: Path) -> None:
    assert list(candidates({"HELM_BROWSER": "/mine", "PATH": str(tmp_path)})) == ["/mine"]
    assert find_browser({"PATH": str(tmp_path), "HOME": str(tmp_path)}) is None


# --- view


def test_an_offline_node_has_every_field_and_its_name() -> None:
    row = node_row("node-3", None)
    assert (row["name"], row["phase"]) == ("node-3", "offline")
    assert {name for name, value in row.items() if value is not None} == {"name", "phase"}
    assert set(row) == set(NODE_FIELDS)


def test_a_row_keeps_the_fields_of_telemetry_without_the_bulk() -> None:
    assert set(NodeTelemetry.__struct_fields__) - set(NODE_FIELDS) == {"sketch", "landscape"}
    row = node_row("node-0", {"name": "node-0", "phase": "draining", "emb_ratio": 0.4, "sketch": {}, "type": "telemetry"})
    assert (row["phase"], row["emb_ratio"]) == ("draining", 0.4)
    assert "sketch" not in row and "type" not in row


def test_the_routers_row_says_whether_it_answered() -> None:
    assert router_row(None) == {"phase": "offline"}
    assert router_row({"router": {"picks_total": 7}, "nodes": []}) == {"phase": "ready", "picks_total": 7}


async def test_a_look_at_the_fleet_asks_each_with_the_key(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        body = b'{"router": {"picks_total": 5}}' if head.startswith(b"GET /v1/fleet ") else b'{"phase": "ready", "emb_ratio": 0.25}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        fleet = write_fleet_file(tmp_path / "fleet.json", Plan(nodes=2))
        here = NodeAddress(name="node-0", host="127.0.0.1", port=port)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            gone = NodeAddress(name="node-1", host="127.0.0.1", port=closed.getsockname()[1])
            fleet = msgspec.structs.replace(fleet, router=here, nodes=[here, gone])
            view = await look(fleet)
    assert view["router"] == {"phase": "ready", "picks_total": 5}
    rows = [(node["name"], node["phase"], node["emb_ratio"]) for node in view["nodes"]]
    assert rows == [("node-0", "ready", 0.25), ("node-1", "offline", None)]
    assert all(f"authorization: bearer {fleet.fleet_key}".encode().lower() in head.lower() for head in seen)
    assert isinstance(fleet, FleetFile)


# --- kernels


def test_the_kernels_of_node_and_router_are_compiled_at_set_up() -> None:
    assert present_warmers() == ["agents.node.warm", "agents.router.warm", "agents.sim.warm"]
    assert present_warmers(("agents.nowhere",)) == []
