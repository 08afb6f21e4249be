"""The routing page's endpoints, fed by a real router's answers without a socket between."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from agents.profiles import load_profile
from agents.router.router import Router, RouterConfig
from agents.runtime.router import pages
from agents.runtime.router.daemon import Explained, RouterDaemon
from agents.runtime.router.facts import RequestFacts
from agents.wire import tickets
from agents.wire.messages import FleetFile, NodeAddress
from apps.audit.models import AuditEntry
from apps.telemetry import routing
from tests.agents.router.nodes import load
from tests.apps.test_schema import conforms

ADDRESSES = [NodeAddress(name=name, host="127.0.0.1", port=port) for name, port in (("router", 1), ("node-0", 2), ("node-1", 3))]
FILE = FleetFile(cluster_salt_hex="00" * 16, fleet_key="k", router=ADDRESSES[0], nodes=ADDRESSES[1:], profile="cpu-demo")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return dict(SchemaGenerator().get_schema(request=None, public=True))


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> RouterDaemon:
    """A router with one explained pick, answering where the fleet file says it does."""
    config = RouterConfig(users_max=64, copies_max=64, reservations_max=8, ring=4)
    daemon = RouterDaemon(FILE, load_profile("cpu-demo"), Router(["node-0", "node-1"], config))
    daemon.brain.node_load(0, 0, load())
    daemon.explained["r-1"] = Explained(daemon.brain.pick(0, 7, 256, 20), RequestFacts(7, 256, 20), 1_700_000_000_000_000_000)

    def answer(url: str, headers: dict[str, str], **_: Any) -> httpx.Response:
        assert headers["Authorization"] == "Bearer k"
        page = {"/v1/fleet": lambda: msgspec.json.encode(pages.fleet(daemon)), "/debug/picks": lambda: pages._recent(daemon).body}
        request, path = httpx.Request("GET", url), url.removeprefix("http://127.0.0.1:1")
        if path in page:
            return httpx.Response(200, content=page[path](), request=request)
        if path == "/debug/picks/r-1":
            return httpx.Response(200, content=pages._explained(daemon, b"r-1").body, request=request)
        return httpx.Response(404, content=b"{}", request=request)

    monkeypatch.setattr(routing.httpx, "get", answer)
    settings.FLEET_FILE = tmp_path / "fleet.json"
    settings.FLEET_FILE.write_bytes(msgspec.json.encode(FILE))
    return daemon


def test_the_routers_view_has_the_promised_shape(schema: dict[str, Any], viewer: APIClient, router: RouterDaemon) -> None:
    router.attribution.add(dict.fromkeys(router.attribution.error_ms, 2.0), dict.fromkeys(router.attribution.error_ms, 3.0))
    response = viewer.get("/api/v1/routing/")
    assert response.status_code == 200
    conforms(schema, "routing/", "get", response)
    told = response.json()
    assert [node["phase"] for node in told["nodes"]] == ["ready", "offline"]
    assert told["attribution"]["components"][0] == {"component": "queue", "predicted_ms": 2.0, "observed_ms": 3.0, "error_ms": 1.0}


def test_picks_are_listed_and_explained(schema: dict[str, Any], viewer: APIClient, router: RouterDaemon) -> None:
    listed = viewer.get("/api/v1/routing/picks/")
    conforms(schema, "routing/picks/", "get", listed)
    assert [pick["request_id"] for pick in listed.json()] == ["r-1"]
    explained = viewer.get("/api/v1/routing/picks/r-1/")
    conforms(schema, "routing/picks/{request_id}/", "get", explained)
    assert [node["filtered"] for node in explained.json()["nodes"]] == ["", "offline"]


def test_a_pick_that_is_not_kept_is_404(viewer: APIClient, router: RouterDaemon) -> None:
    assert viewer.get("/api/v1/routing/picks/r-9/").json()["code"] == "pick_not_kept"


def test_a_router_that_is_unknown_or_away_is_503_and_says_which(viewer: APIClient, settings: Any, tmp_path: Path) -> None:
    settings.FLEET_FILE = tmp_path / "none.json"
    unknown = viewer.get("/api/v1/routing/")
    assert (unknown.status_code, unknown.json()["code"]) == (503, "router_unknown")
    settings.FLEET_FILE.write_text(json.dumps(msgspec.to_builtins(FILE)))
    away = viewer.get("/api/v1/routing/picks/")
    assert (away.status_code, away.json()["code"]) == (503, "router_unreachable")


def test_strangers_learn_nothing_of_the_router(router: RouterDaemon, db: None) -> None:
    assert APIClient().get("/api/v1/routing/").status_code in (401, 403)


WISH = {"ttl_seconds": 600, "reason": "trying node-1 by hand"}


def test_an_operators_ticket_opens_the_router_until_it_expires_and_is_audited(
    schema: dict[str, Any], operator: APIClient, router: RouterDaemon
) -> None:
    made = operator.post("/api/v1/routing/tickets/", WISH, format="json")
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    conforms(schema, "routing/tickets/", "post", made)
    expires = datetime.fromisoformat(made.json()["expires_at"]).timestamp()
    ticket = tickets.read(made.json()["ticket"], FILE.fleet_key, expires - 1)
    assert ticket is not None and ticket.who == "olga"
    assert tickets.read(made.json()["ticket"], FILE.fleet_key, expires) is None
    entry = AuditEntry.objects.get(action="route.ticket")
    assert (entry.actor, entry.reason, entry.target) == ("olga", "trying node-1 by hand", "router")
    assert made.json()["ticket"] not in str(entry.after)


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 403), ("nobody", 401)])
def test_nobody_but_operators_gets_a_ticket(people: Any, router: RouterDaemon, who: str, status: int) -> None:
    answer = people.client(who).post("/api/v1/routing/tickets/", WISH, format="json")
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert not AuditEntry.objects.filter(action="route.ticket").exists()


@pytest.mark.parametrize("change", [{"ttl_seconds": 59}, {"ttl_seconds": 3601}, {"ttl_seconds": True}, {"reason": "x"}, {"node": "node-1"}])
def test_a_ticket_for_too_long_or_without_a_reason_is_refused(operator: APIClient, router: RouterDaemon, change: dict[str, Any]) -> None:
    answer = operator.post("/api/v1/routing/tickets/", WISH | change, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, f"/{next(iter(change))}")
