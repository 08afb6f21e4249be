"""Signing in, tokens, and who sees what."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from apps.accounts.models import ApiToken
from apps.audit.models import AuditEntry
from tests.apps.conftest import PASSWORD

SESSION = "/api/v1/session/"
READS = [
    "clusters/",
    "fleet/",
    "fleet/series/",
    "nodes/",
    "nodes/node-0/",
    "nodes/node-0/series/",
    "nodes/node-0/decisions/",
    "events/",
    "audit/",
    "whatifs/",
    "tokens/",
]


def signed_in(username: str, password: str = PASSWORD, **options: Any) -> tuple[Client, Any]:
    client = Client(**options)
    return client, client.post(SESSION, {"username": username, "password": password}, content_type="application/json")


@pytest.mark.parametrize("path", READS)
def test_reading_needs_a_role(people: Any, node: Any, path: str) -> None:
    answers = {who: people.client(who).get(f"/api/v1/{path}") for who in ("viewer", "operator", "admin", "outsider", "nobody")}
    assert {who: answer.status_code for who, answer in answers.items()} == {
        "viewer": 200,
        "operator": 200,
        "admin": 200,
        "outsider": 403,
        "nobody": 401,
    }
    assert answers["nobody"]["Content-Type"] == answers["outsider"]["Content-Type"] == "application/problem+json"
    assert answers["nobody"]["WWW-Authenticate"] == 'Bearer realm="helm"'


def test_signing_in_gives_a_session_that_writes_only_with_its_csrf_token(people: Any, node: Any) -> None:
    client, answer = signed_in("olga", enforce_csrf_checks=True)
    assert answer.status_code == 200
    assert (answer.json()["username"], answer.json()["role"]) == ("olga", "operator")
    assert "node.override" in answer.json()["permissions"]
    assert client.get("/api/v1/me/").json()["username"] == "olga"

    body = {"emb_ratio": 0.5, "reason": "hold it"}
    path, headers = "/api/v1/nodes/node-0/pin/", {"If-Match": '"1"'}
    without = client.post(path, body, content_type="application/json", headers=headers)
    assert (without.status_code, without["Content-Type"]) == (403, "application/problem+json")
    with_token = client.post(path, body, content_type="application/json", headers={**headers, "X-CSRFToken": answer.json()["csrf_token"]})
    assert with_token.status_code == 200


def test_the_csrf_cookie_may_be_read_and_the_session_cookie_may_not(people: Any) -> None:
    _, answer = signed_in("vera")
    assert answer.cookies["helm_csrf"]["httponly"] == ""
    assert answer.cookies["helm_session"]["httponly"] is True
    assert answer.cookies["helm_session"]["samesite"] == "Lax"
    assert answer.cookies["helm_session"]["secure"] == ""


def test_signing_out_ends_the_session(people: Any) -> None:
    client, _ = signed_in("vera")
    assert client.delete(SESSION).status_code == 204
    assert client.get("/api/v1/me/").status_code == 401


def test_wrong_passwords_are_refused_without_saying_what_was_wrong_and_not_for_ever(people: Any) -> None:
    answers = [signed_in(name, "wrong")[1] for name in ("vera", "nobody-of-that-name")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    for _ in range(9):
        signed_in("vera", "wrong")
    blocked = signed_in("vera")[1]
    assert (blocked.status_code, blocked["Retry-After"]) == (429, "300")
    assert signed_in("olga")[1].status_code == 200


def test_another_sites_page_cannot_sign_its_visitor_in(people: Any) -> None:
    client = Client()
    body = {"username": "vera", "password": PASSWORD}
    foreign = client.post(SESSION, body, content_type="application/json", headers={"Origin": "http://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_origin")
    own = client.post(SESSION, body, content_type="application/json", headers={"Origin": "http://testserver"})
    assert own.status_code == 200


def test_a_token_is_shown_once_and_only_its_hash_is_kept(people: Any) -> None:
    made = people.client("viewer").post("/api/v1/tokens/", {"name": "ci"}, format="json")
    secret = made.json()["token"]

    assert made.status_code == 201
    assert secret.startswith("helm_")
    assert len(secret) >= 48
    row = ApiToken.objects.get()
    assert secret not in str(vars(row))
    listed = people.client("viewer").get("/api/v1/tokens/").json()["results"]
    assert "token" not in listed[0]
    assert AuditEntry.objects.filter(action="token.create", actor="vera").count() == 1
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    assert client.get("/api/v1/me/").json() == {
        "username": "vera",
        "role": "viewer",
        "permissions": ["audit.read", "fleet.read", "token.own"],
    }


@pytest.mark.parametrize("how", ["revoked", "expired", "owner gone", "scrambled", "two words"])
def test_a_dead_token_opens_nothing(people: Any, how: str) -> None:
    secret = people.client("viewer").post("/api/v1/tokens/", {"name": "ci"}, format="json").json()["token"]
    token = ApiToken.objects.get()
    if how == "revoked":
        assert people.client("viewer").delete(f"/api/v1/tokens/{token.pk}/").status_code == 204
    elif how == "expired":
        ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif how == "owner gone":
        people.viewer.is_active = False
        people.viewer.save()
    else:
        secret = secret[:-1] + ("x" if how == "scrambled" and secret[-1] != "x" else " y")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    answer = client.get("/api/v1/me/")
    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")


def test_people_see_and_end_their_own_tokens_and_an_admin_everybodys(people: Any) -> None:
    people.client("viewer").post("/api/v1/tokens/", {"name": "ci"}, format="json")
    pk = ApiToken.objects.get().pk
    assert people.client("operator").get("/api/v1/tokens/").json()["results"] == []
    assert people.client("operator").delete(f"/api/v1/tokens/{pk}/").status_code == 404
    assert [item["owner"] for item in people.client("admin").get("/api/v1/tokens/").json()["results"]] == ["vera"]
    assert people.client("admin").delete(f"/api/v1/tokens/{pk}/").status_code == 204
    assert people.client("admin").delete(f"/api/v1/tokens/{pk}/").status_code == 204
    assert AuditEntry.objects.filter(action="token.revoke").count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "/name"), ({"name": "x", "ttl_seconds": 0}, "/ttl_seconds"), ({"name": "x", "ttl_seconds": 10**12}, "/ttl_seconds")],
)
def test_a_token_needs_a_name_and_a_sensible_life(people: Any, body: dict[str, Any], field: str) -> None:
    answer = people.client("viewer").post("/api/v1/tokens/", body, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, field)


def test_only_an_admin_makes_enrolment_tokens(people: Any) -> None:
    statuses = [
        people.client(who).post("/api/v1/enrolments/", {}, format="json").status_code for who in ("admin", "operator", "viewer", "nobody")
    ]
    assert statuses == [201, 403, 403, 401]
