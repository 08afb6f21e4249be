"""One-time tokens: spent once, in time, for the right node."""

from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.audit.models import AuditEntry, Event
from apps.fleet.models import EnrolmentToken, Node
from apps.lib.secrets import digest

BODY = {"name": "node-7", "profile": "cpu-demo", "infer_url": "http://10.0.0.7:8790"}


def token_for(admin: APIClient, **body: Any) -> str:
    answer = admin.post("/api/v1/enrolments/", body, format="json")
    assert answer.status_code == 201
    return str(answer.json()["token"])


def enrol(**body: Any) -> Any:
    return APIClient().post("/api/v1/enrol/", {**BODY, **body}, format="json")


def refusal(answer: Any) -> tuple[int, str, str]:
    assert answer["Content-Type"] == "application/problem+json"
    error = answer.json()["errors"][0]
    return answer.status_code, error["pointer"], error["code"]


def test_a_token_buys_a_credential_of_which_only_the_hash_is_kept(admin: APIClient) -> None:
    token = token_for(admin)
    answer = enrol(token=token)

    assert answer.status_code == 201
    node = Node.objects.get(name="node-7")
    assert node.credential_digest == digest(answer.json()["credential"])
    assert EnrolmentToken.objects.get().digest == digest(token)
    assert (node.mode, node.generation, node.infer_url) == ("auto", 1, "http://10.0.0.7:8790")
    assert AuditEntry.objects.filter(action="node.enrol", target="node-7").count() == 1
    assert Event.objects.filter(kind="node_enrolled", target="node-7").count() == 1


def test_a_used_token_is_refused(admin: APIClient) -> None:
    token = token_for(admin)
    assert enrol(token=token).status_code == 201
    assert refusal(enrol(token=token, name="node-8")) == (403, "/token", "token_used")
    assert Node.objects.count() == 1


def test_an_expired_token_is_refused(admin: APIClient) -> None:
    token = token_for(admin)
    row = EnrolmentToken.objects.get()
    EnrolmentToken.objects.update(expires_at=row.created_at - timedelta(seconds=1))
    assert refusal(enrol(token=token)) == (403, "/token", "token_expired")


def test_an_unknown_token_is_refused(db: None) -> None:
    assert refusal(enrol(token="helm_enrol_guess")) == (403, "/token", "token_unknown")


def test_a_token_bound_to_a_name_is_for_that_node_only_and_stays_good(admin: APIClient) -> None:
    token = token_for(admin, node_name="node-7")
    assert refusal(enrol(token=token, name="node-8")) == (403, "/name", "token_for_another_node")
    assert enrol(token=token).status_code == 201


def test_a_bound_token_renews_a_credential_and_keeps_the_node(admin: APIClient) -> None:
    first = enrol(token=token_for(admin, node_name="node-7")).json()
    second = enrol(token=token_for(admin, node_name="node-7"), infer_url="http://10.0.0.9:8790").json()
    assert first["uid"] == second["uid"]
    node = Node.objects.get()
    assert (node.credential_digest, node.infer_url) == (digest(second["credential"]), "http://10.0.0.9:8790")


@pytest.mark.parametrize(("profile", "pool_bytes", "generation"), [("cpu-demo", 1 << 26, 1), ("cpu-tiny", None, 2)])
def test_a_node_that_comes_back_as_another_machine_forgets_the_size_of_its_pool(
    admin: APIClient, profile: str, pool_bytes: int | None, generation: int
) -> None:
    enrol(token=token_for(admin, node_name="node-7"))
    Node.objects.update(pool_bytes=1 << 26)
    enrol(token=token_for(admin, node_name="node-7"), profile=profile)
    node = Node.objects.get()
    assert (node.profile, node.pool_bytes, node.generation, node.resource_version) == (profile, pool_bytes, generation, generation)


def test_a_free_token_cannot_take_over_a_node(admin: APIClient) -> None:
    enrol(token=token_for(admin))
    token = token_for(admin)
    assert refusal(enrol(token=token)) == (409, "/name", "name_taken")
    assert enrol(token=token, name="node-8").status_code == 201


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Node 7"}, "/name"),
        ({"name": "../etc"}, "/name"),
        ({"name": "x" * 64}, "/name"),
        ({"profile": "tpu"}, "/profile"),
        ({"infer_url": "file:///etc/passwd"}, "/infer_url"),
        ({"infer_url": ""}, "/infer_url"),
        ({"token": ""}, "/token"),
        ({"extra": 1}, "/extra"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_by_name_and_spends_nothing(admin: APIClient, change: dict[str, Any], field: str) -> None:
    token = token_for(admin)
    answer = enrol(**{"token": token, **change})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, field)
    assert EnrolmentToken.objects.get().used_at is None


@pytest.mark.parametrize(("body", "field"), [({"ttl_seconds": 0}, "/ttl_seconds"), ({"node_name": "A b"}, "/node_name")])
def test_a_token_is_asked_for_sensibly(admin: APIClient, body: dict[str, Any], field: str) -> None:
    answer = admin.post("/api/v1/enrolments/", body, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, field)
