"""Every service of docker-compose.yml as a process, with its exact command and environment, on real PostgreSQL and Redis."""

import http.client
import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from helmctl.supervisor.bus import find_server
from tests.deploy.composition import ROOT, Composition, interpolate, placed, search_path
from tests.patience import free_ports, until
from tests.postgres import running_postgres

pytestmark = [pytest.mark.live, pytest.mark.postgres]
SECONDS = 60.0
PASSWORD = "a-word-for-tests"


class System:
    """The running composition, and where its parts answer."""

    def __init__(self, composition: Composition, state: Path, ports: dict[str, int], database: str) -> None:
        self.composition = composition
        self.state = state
        self.ports = ports
        self.database = database

    def nodes(self) -> dict[str, Any]:
        """The control plane's nodes by name, asked with the token that `seed` left for the command line."""
        token = json.loads((self.state / "cli.json").read_text())["token"]
        url = f"http://127.0.0.1:{self.ports['8700']}/api/v1/nodes/"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=10) as answer:
            return {node["metadata"]["name"]: node for node in json.load(answer)["results"]}

    def router(self) -> dict[str, Any]:
        """The router's own figures."""
        key = json.loads((self.state / "fleet.json").read_text())["fleet_key"]
        url = f"http://127.0.0.1:{self.ports['8780']}/v1/fleet"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"}), timeout=10) as answer:
            figures: dict[str, Any] = json.load(answer)["router"]
            return figures


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("compose")
    state, redis_data = folder / "state", folder / "redis"
    for volume in (state, redis_data):
        volume.mkdir(mode=0o700)
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    services = {name: service for name, service in file["services"].items() if name != "postgres"}
    ports = dict(zip(("8700", "8780", "8790", "8791", "6379"), free_ports(5), strict=True))
    hosts = dict.fromkeys(("web:", "router:", "node-0:", "node-1:"), "127.0.0.1:")
    places = {**hosts, **{port: str(ours) for port, ours in ports.items()}, "0.0.0.0": "127.0.0.1"}
    places |= {"/var/lib/helm": str(state), "/data": str(redis_data)}
    with running_postgres(PASSWORD) as port:
        root = f"postgres://helm:{PASSWORD}@127.0.0.1:{port}"
        with psycopg.connect(f"{root}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE helm")  # the image of PostgreSQL does this by itself
        environ = {
            "POSTGRES_PASSWORD": PASSWORD,
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(port),
            "REDIS_PASSWORD": PASSWORD,
            "REDIS_HOST": "127.0.0.1",
            "HELM_SECRET_KEY": "signs-the-sessions-of-a-test-and-nothing-else",
            "HELM_PROFILE": "cpu-tiny",
            "WORKLOAD": "steady",
        }
        server = find_server({})
        assert server is not None
        ours = interpolate(placed(services, places), environ)
        for service in ours.values():
            service.get("depends_on", {}).pop("postgres", None)  # it answers already
        composition = Composition(ours, folder, search_path(folder, Path(server)))
        try:
            composition.up()
            yield System(composition, state, ports, f"{root}/helm")
        finally:
            composition.stop()


def test_every_service_starts_in_order_and_becomes_healthy(system: System) -> None:
    composition = system.composition
    assert set(composition.done) == {"migrate", "seed", "fleet-file"}
    assert composition.healthy == {"redis", "web", "worker", "beat", "router", "node-0", "node-1", "load"}


def test_the_database_is_postgresql_and_its_admin_got_a_password_once(system: System) -> None:
    with psycopg.connect(system.database) as connection:
        names = connection.execute("SELECT username, role FROM accounts_user").fetchall()
    assert names == [("admin", "admin")]
    said = json.loads(system.composition.log("seed").splitlines()[-1])
    assert said["username"] == "admin" and len(said["password"]) >= 12
    assert not (system.state / "helm.sqlite3").exists()


def test_nodes_enrol_with_their_one_time_tokens_and_report(system: System) -> None:
    until(
        "both nodes ready at the control plane",
        lambda: all(node["status"]["phase"] == "ready" for node in system.nodes().values()),
        SECONDS,
    )
    assert set(system.nodes()) == {"node-0", "node-1"}
    for name in ("node-0", "node-1"):
        assert (system.state / "credentials" / name).stat().st_mode & 0o777 == 0o600


def test_the_load_reaches_the_nodes_through_the_router(system: System) -> None:
    until("requests picked by the router", lambda: system.router()["picks_total"] > 5, SECONDS)


def test_web_answers_under_the_name_that_nodes_dial_and_under_no_other(system: System) -> None:
    def status(host: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", system.ports["8700"], timeout=10)
        connection.request("GET", "/api/v1/nodes/", headers={"Host": host})
        return connection.getresponse().status

    assert (status("web:8700"), status("elsewhere.example")) == (401, 400)


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_process_that_hangs_is_unhealthy_although_it_runs(system: System, name: str) -> None:
    import redis

    composition = system.composition
    url = composition.services[name]["healthcheck"]["test"][-1]
    client = redis.Redis.from_url(url.partition("#")[0])
    process = composition.running[name]
    process.send_signal(signal.SIGSTOP)
    try:
        (key,) = client.keys(f"helm:alive:{name}@*")
        assert 0 < client.ttl(key) <= 20
        client.delete(key)  # as time would: it lives for seconds unless its process renews it
        assert not composition.is_healthy(name)
    finally:
        process.send_signal(signal.SIGCONT)
    until(f"{name} healthy again", lambda: composition.is_healthy(name), SECONDS)


def test_beat_and_worker_do_the_periodic_work(system: System) -> None:
    def rolled_up() -> bool:
        with psycopg.connect(system.database) as connection:
            found = connection.execute("SELECT count(*) FROM telemetry_point WHERE resolution_seconds = 10").fetchone()
        return found is not None and found[0] > 0

    until("ten-second roll-ups, which the worker makes when beat asks", rolled_up, SECONDS)


def test_everything_ends_within_its_grace_and_leaves_no_sign_of_life(system: System) -> None:
    import redis

    composition = system.composition
    url = composition.services["worker"]["healthcheck"]["test"][-1].partition("#")[0]
    ended = {name: composition.end(name) for name in ("load", "router", "node-0", "node-1", "worker", "beat", "web")}
    assert None not in ended.values(), ended
    assert redis.Redis.from_url(url).keys("helm:alive:*") == []
    assert composition.end("redis") == 0
