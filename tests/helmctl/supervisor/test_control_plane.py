"""Database and seed before the first start, with the real management commands in a state folder of their own."""

from pathlib import Path

import pytest

from helmctl.supervisor.bus import Bus
from helmctl.supervisor.control_plane import prepare_database
from helmctl.supervisor.launch import ready_block
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.processes import Service, control_plane_env, services
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder

OURS = Bus(url="unix://:word@/t/r.sock", server="/bin/redis-server", config_file=Path("/s/redis.conf"), socket=Path("/t/r.sock"))
THEIRS = Bus(url="redis://db.example/0")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    return folder


def names(table: list[Service]) -> list[str]:
    return [service.name for service in table]


def test_a_first_start_makes_an_admin_and_tokens_and_a_second_leaves_them(state: StateFolder) -> None:
    env = control_plane_env(Plan(web_port=18701), state, OURS)
    first = prepare_database(env, ["node-0", "node-1"])
    assert (first.username, first.url) == ("admin", "http://127.0.0.1:18701")
    assert first.password is not None and len(first.password) >= 12
    assert state.enrolment("node-1").stat().st_mode & 0o777 == 0o600
    assert (state.root / "helm.sqlite3").exists()
    assert prepare_database(env, ["node-0"]) == (first.username, None, first.url)


def test_a_database_that_cannot_be_had_is_told_by_its_last_lines(state: StateFolder) -> None:
    env = {**control_plane_env(Plan(), state, OURS), "DATABASE_URL": "oracle://nowhere"}
    with pytest.raises(Refusal, match=r"manage\.py migrate failed") as refused:
        prepare_database(env, [])
    assert "DATABASE_URL: unknown scheme 'oracle'" in str(refused.value)


def test_up_is_the_fleet_and_its_control_plane(state: StateFolder) -> None:
    control = ["redis", "web", "worker", "beat"]
    fleet = ["router", "node-0", "load"]
    assert names(services(Plan(nodes=1), state, "up", OURS)) == control + fleet
    assert names(services(Plan(nodes=1), state, "up", THEIRS)) == control[1:] + fleet
    assert names(services(Plan(nodes=1), state, "fleet")) == fleet


def test_what_needs_redis_waits_for_ours_and_not_for_theirs(state: StateFolder) -> None:
    ours = {service.name: service.needs for service in services(Plan(nodes=1), state, "up", OURS)}
    assert ours["web"] == ("redis",) and ours["worker"] == ("redis", "web")
    theirs = {service.name: service.needs for service in services(Plan(nodes=1), state, "up", THEIRS)}
    assert theirs["web"] == () and theirs["beat"] == ("web",)


def test_redis_stops_last_and_web_before_it(state: StateFolder) -> None:
    order = names(sorted(services(Plan(nodes=1), state, "up", OURS), key=lambda service: service.stop_order))
    assert order == ["load", "router", "node-0", "worker", "beat", "web", "redis"]


def test_nodes_dial_the_control_plane_and_wait_for_nothing(state: StateFolder) -> None:
    table = services(Plan(nodes=1, host="0.0.0.0", web_port=9000), state, "up", OURS)
    node = next(service for service in table if service.name == "node-0")
    assert node.command[node.command.index("--control-url") + 1] == "ws://127.0.0.1:9000/agents/v1/link"
    assert node.command[-1] == str(state.root / "enrol/node-0")
    assert node.needs == ()
    alone = services(Plan(nodes=1), state, "fleet")
    assert "--control-url" not in next(service for service in alone if service.name == "node-0").command


def test_web_listens_where_people_asked_for(state: StateFolder) -> None:
    web = next(service for service in services(Plan(host="0.0.0.0"), state, "up", OURS) if service.name == "web")
    assert web.command[web.command.index("--host") + 1] == "0.0.0.0"
    assert web.env["HELM_HOST"] == "0.0.0.0"
    assert web.health_url == "http://127.0.0.1:8700/healthz"
    assert web.ports == (("0.0.0.0", 8700, "WEB_PORT"),)


def test_the_password_is_shown_once(state: StateFolder) -> None:
    from helmctl.supervisor.control_plane import Seeded

    first = ready_block(Plan(), state, 1.0, Seeded("admin", "only-once", "http://127.0.0.1:8700"))
    assert "console  http://127.0.0.1:8700" in first and "password only-once" in first
    later = ready_block(Plan(), state, 1.0, Seeded("admin", None, "http://127.0.0.1:8700"))
    assert "as shown at the first start" in later
    assert "console" not in ready_block(Plan(), state, 1.0)
