"""Answers outside of the API's views: the console's shell, unknown addresses, the docs, errors."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client


@pytest.fixture
def dist(tmp_path: Path, settings: LazySettings) -> Path:
    (tmp_path / "index.html").write_text("<!doctype html><title>console</title>")
    settings.FRONTEND_DIST = tmp_path
    return tmp_path


@pytest.mark.parametrize("path", ["/", "/nodes/node-0", "/nodes/a.b", "/whatif?seed=1", "/anything/else"])
def test_every_other_address_is_the_consoles(client: Client, dist: Path, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert b"console" in response.content
    assert response["Cache-Control"] == "no-cache"
    assert "helm_csrf" in response.cookies


def test_a_console_that_is_not_built_says_so(client: Client, tmp_path: Path, settings: LazySettings) -> None:
    settings.FRONTEND_DIST = tmp_path / "none"
    response = client.get("/")
    assert (response.status_code, b"make up" in response.content) == (200, True)


def test_a_missing_file_is_not_the_console(client: Client, dist: Path) -> None:
    assert client.get("/assets/old-bundle.js").status_code == 404


@pytest.mark.parametrize("method", ["get", "post", "delete", "put"])
@pytest.mark.parametrize("path", ["/api/", "/api/v1/", "/api/v1/nope/", "/api/v2/nodes/", "/agents/v1/link", "/api/v1/nodes"])
def test_an_unknown_api_address_is_a_problem(client: Client, path: str, method: str) -> None:
    response = getattr(client, method)(path)
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")
    assert response.json()["request_id"] == response["X-Request-ID"]


def test_an_unknown_host_is_a_problem(client: Client) -> None:
    response = client.get("/api/v1/me/", headers={"Host": "evil.example"})
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")


def test_an_error_nobody_foresaw_is_a_problem_without_its_insides(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.telemetry import queries

    def explode(*_: Any) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(queries, "fleet_document", explode)
    client = people.client("viewer")
    client.raise_request_exception = False
    response = client.get("/api/v1/fleet/")
    assert (response.status_code, response["Content-Type"], response.json()["code"]) == (500, "application/problem+json", "internal")
    assert "secret" not in response.content.decode()


@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("bad id\n", False), ("x" * 65, False)])
def test_a_request_id_is_kept_when_it_is_well_formed(client: Client, given: str, kept: bool) -> None:
    response = client.get("/api/v1/nope/", headers={"X-Request-ID": given})
    assert (response["X-Request-ID"] == given) is kept
    assert len(response["X-Request-ID"]) >= 7


def test_a_request_id_does_not_outlive_its_request(client: Client) -> None:
    from apps.lib.request_id import current_request_id

    client.get("/api/v1/nope/")
    assert current_request_id() == ""


def test_the_docs_list_every_operation_and_load_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/api/v1/docs/").content.decode()
    for name in ("nodes_override", "whatifs_create", "session_create", "Problem"):
        assert f'id="{name}"' in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert "https://" not in page


@pytest.mark.django_db
def test_health_asks_the_database(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_web_process_never_loads_torch() -> None:
    import subprocess
    import sys

    code = "import helmctl.asgi, sys; print([name for name in ('torch', 'plotly', 'aiohttp') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
