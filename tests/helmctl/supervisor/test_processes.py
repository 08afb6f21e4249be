"""The table of processes: every command can be run, threads are bounded, and who asks stops before who answers."""

import importlib.util
from pathlib import Path

import pytest

from agents.runtime.config import DRAIN_SECONDS_MAX
from agents.runtime.router.limits import Limits
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.processes import ONE_THREAD, Service, services
from helmctl.supervisor.state import StateFolder, kernel_digest

STATE = StateFolder(Path("/state folder"))


@pytest.fixture
def table() -> list[Service]:
    return services(Plan(nodes=2), STATE, "fleet", python="python")


def by_name(table: list[Service], name: str) -> Service:
    return next(service for service in table if service.name == name)


def test_the_fleet_is_a_router_its_nodes_and_a_load_generator(table: list[Service]) -> None:
    assert [service.name for service in table] == ["router", "node-0", "node-1", "load"]


def test_commands_name_the_fleet_file_and_the_node(table: list[Service]) -> None:
    assert by_name(table, "node-1").command == (
        *("python", "-m", "agents.runtime.node_main", "--fleet", "/state folder/fleet.json", "--name", "node-1"),
    )
    assert by_name(table, "router").command == ("python", "-m", "agents.runtime.router_main", "--fleet", "/state folder/fleet.json")


def test_a_second_router_stands_by_and_nothing_else_does(table: list[Service]) -> None:
    assert {service.name: service.standby for service in table if service.standby} == {"router": ("--standby",)}


def test_every_command_runs_a_module_that_exists(table: list[Service]) -> None:
    for service in table:
        assert service.command[1] == "-m"
        assert importlib.util.find_spec(service.command[2]) is not None, service.name


def test_a_workload_becomes_options_of_the_load_generator(table: list[Service]) -> None:
    assert by_name(table, "load").command[-4:] == ("--workload", "demo", "--seed", "1")
    replay = by_name(services(Plan(workload="/logs/a.parquet"), STATE, "fleet", python="python"), "load")
    assert replay.command[-2:] == ("--trace", "/logs/a.parquet")
    assert [service.name for service in services(Plan(nodes=1, workload="none"), STATE, "fleet")] == ["router", "node-0"]


def test_a_journal_is_kept_by_the_nodes() -> None:
    table = services(Plan(nodes=1, journal=Path("/journal")), STATE, "fleet", python="python")
    assert by_name(table, "node-0").command[-2:] == ("--journal", "/journal")
    assert "--journal" not in by_name(table, "router").command


def test_every_process_has_one_thread_and_its_caches_in_the_state_folder(table: list[Service]) -> None:
    for service in table:
        assert {name: service.env[name] for name in ONE_THREAD} == ONE_THREAD
        assert service.env["PYTHONDONTWRITEBYTECODE"] == ""
        assert service.env["NUMBA_CACHE_DIR"] == f"/state folder/numba/{kernel_digest()}"
        assert service.env["HELM_STATE_DIR"] == "/state folder"


def test_load_stops_first_then_the_router_then_the_nodes(table: list[Service]) -> None:
    order = sorted(table, key=lambda service: service.stop_order)
    assert [service.name for service in order] == ["load", "router", "node-0", "node-1"]


def test_whoever_drains_is_not_killed_before_that_is_done(table: list[Service]) -> None:
    assert by_name(table, "router").stop_seconds > Limits().drain_seconds
    assert by_name(table, "node-0").stop_seconds > DRAIN_SECONDS_MAX


def test_what_serves_has_a_health_check_and_a_port_that_can_be_moved(table: list[Service]) -> None:
    assert by_name(table, "node-1").health_url == "http://127.0.0.1:8791/v2/health/ready"
    assert by_name(table, "node-1").ports == (("127.0.0.1", 8791, "NODE_PORT"),)
    assert by_name(table, "load").needs == ("router", "node-0", "node-1")


def test_only_the_router_listens_where_people_asked_for() -> None:
    table = services(Plan(nodes=1, host="0.0.0.0"), STATE, "fleet")
    assert by_name(table, "router").ports == (("0.0.0.0", 8780, "ROUTER_PORT"),)
    assert by_name(table, "router").health_url == "http://127.0.0.1:8780/v2/health/ready"
    assert by_name(table, "node-0").ports == (("127.0.0.1", 8790, "NODE_PORT"),)


def test_what_is_needed_is_in_the_table(table: list[Service]) -> None:
    names = {service.name for service in table}
    assert all(set(service.needs) <= names for service in table)
