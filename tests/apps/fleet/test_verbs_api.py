"""Override, pin and release over REST: what is done, what is refused and by which name."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.audit.models import AuditEntry, Event
from apps.fleet.models import Node, NodeStatus
from apps.outbox.models import OutboxMessage

OVERRIDE = {"emb_ratio": 0.6, "ttl_seconds": 600, "reason": "warming for the sale"}


def post(client: APIClient, path: str, body: Any, version: str | None = '"1"', query: str = "") -> Any:
    headers = {} if version is None else {"If-Match": version}
    raw = body if isinstance(body, str) else json.dumps(body)
    return client.post(f"/api/v1/nodes/{path}/{query}", raw, content_type="application/json", headers=headers)


def fields(response: Any) -> list[tuple[str, str]]:
    assert response["Content-Type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["request_id"] == response["X-Request-ID"]
    return [(error["pointer"], error["code"]) for error in document["errors"]]


def test_an_override_changes_the_spec_and_tells_everybody(operator: APIClient, node: Node) -> None:
    before = timezone.now()

    response = post(operator, "node-0/override", OVERRIDE)

    assert response.status_code == 200
    assert response["ETag"] == '"2"'
    spec = response.json()["spec"]
    assert (spec["mode"], spec["emb_ratio"], spec["actor"], spec["reason"]) == ("override", 0.6, "olga", "warming for the sale")
    assert 599 < spec["ttl_remaining_seconds"] <= 600
    node.refresh_from_db()
    assert (node.generation, node.resource_version) == (2, 2)
    assert node.expires_at is not None
    assert before + timedelta(seconds=599) < node.expires_at
    entry = AuditEntry.objects.get(action="node.override")
    assert (entry.actor, entry.target, entry.reason) == ("olga", "node-0", "warming for the sale")
    assert (entry.before["mode"], entry.after["mode"], entry.after["emb_ratio"]) == ("auto", "override", 0.6)
    assert entry.request_id == response["X-Request-ID"]
    assert Event.objects.filter(kind="override_requested", target="node-0", actor="olga").count() == 1
    command = OutboxMessage.objects.get(topic="node.command")
    assert (command.key, command.payload["generation"], command.state) == (node.uid.hex, 2, "pending")


def test_a_second_override_supersedes_the_first_command(operator: APIClient, node: Node) -> None:
    post(operator, "node-0/override", OVERRIDE)
    post(operator, "node-0/override", {**OVERRIDE, "emb_ratio": 0.4}, '"2"')

    states = list(OutboxMessage.objects.filter(topic="node.command").order_by("id").values_list("payload__generation", "state"))
    assert states == [(2, "superseded"), (3, "pending")]


def test_a_pin_holds_the_present_ratio_when_none_is_given(operator: APIClient, node: Node) -> None:
    response = post(operator, "node-0/pin", {"reason": "hold during the migration"})

    assert response.status_code == 200
    assert (response.json()["spec"]["mode"], response.json()["spec"]["emb_ratio"]) == ("pin", 0.5)
    assert response.json()["spec"]["expires_at"] is None


def test_a_release_gives_the_node_back(operator: APIClient, node: Node) -> None:
    post(operator, "node-0/pin", {"emb_ratio": 0.3, "reason": "hold it"})

    response = post(operator, "node-0/release", {"reason": "done with it"}, '"2"')

    assert response.status_code == 200
    assert (response.json()["spec"]["mode"], response.json()["spec"]["emb_ratio"]) == ("auto", None)


def test_a_pinned_node_is_not_overridden(operator: APIClient, node: Node) -> None:
    post(operator, "node-0/pin", {"emb_ratio": 0.3, "reason": "hold it"})

    response = post(operator, "node-0/override", OVERRIDE, '"2"')

    assert (response.status_code, response.json()["code"]) == (409, "pinned")
    actions = {item["action"]: item for item in operator.get("/api/v1/nodes/node-0/").json()["allowed_actions"]}
    assert actions["override"] == {"action": "override", "allowed": False, "reason": "The node is pinned: release it first."}
    assert actions["release"]["allowed"] is True


def test_an_automatic_node_cannot_be_released(operator: APIClient, node: Node) -> None:
    response = post(operator, "node-0/release", {"reason": "by mistake"})
    assert (response.status_code, response.json()["code"]) == (409, "already_auto")


@pytest.mark.parametrize("ratio", [0.09, 0.91, 0, 1, -1, 7])
def test_a_ratio_outside_the_guard_rails_is_refused(operator: APIClient, node: Node, ratio: float) -> None:
    response = post(operator, "node-0/override", {**OVERRIDE, "emb_ratio": ratio})
    assert response.status_code == 422
    assert fields(response) == [("/emb_ratio", "outside_guard_rails")]


@pytest.mark.parametrize("ratio", [0.10, 0.90])
def test_a_ratio_on_a_guard_rail_is_accepted(operator: APIClient, node: Node, ratio: float) -> None:
    assert post(operator, "node-0/override", {**OVERRIDE, "emb_ratio": ratio}).status_code == 200


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("NaN", "not_finite"),
        ("Infinity", "not_finite"),
        ("1e999", "not_finite"),
        ('"nan"', "invalid"),
        ("1" + "0" * 400, "overflow"),
        ("true", "invalid"),
        ("null", "null"),
    ],
)
def test_a_ratio_that_is_no_number_is_refused_by_name(operator: APIClient, node: Node, word: str, code: str) -> None:
    response = post(operator, "node-0/override", f'{{"emb_ratio": {word}, "ttl_seconds": 60, "reason": "because"}}')
    assert response.status_code == 400
    assert fields(response) == [("/emb_ratio", code)]


@pytest.mark.parametrize(
    ("ttl", "code"),
    [
        (0, "out_of_range"),
        (4, "out_of_range"),
        (43201, "out_of_range"),
        (365 * 86400, "out_of_range"),
        (-5, "out_of_range"),
        (1.5, "invalid"),
    ],
)
def test_a_ttl_outside_the_clusters_limits_is_refused(operator: APIClient, node: Node, ttl: float, code: str) -> None:
    response = post(operator, "node-0/override", {**OVERRIDE, "ttl_seconds": ttl})
    assert response.status_code == 400
    assert fields(response) == [("/ttl_seconds", code)]


def test_a_ttl_that_is_not_a_number_is_refused(operator: APIClient, node: Node) -> None:
    response = post(operator, "node-0/override", '{"emb_ratio": 0.5, "ttl_seconds": NaN, "reason": "because"}')
    assert fields(response) == [("/ttl_seconds", "invalid")]


def test_the_ttl_limit_is_the_clusters(operator: APIClient, node: Node) -> None:
    node.cluster.override_ttl_seconds_max = 60
    node.cluster.save()
    assert fields(post(operator, "node-0/override", {**OVERRIDE, "ttl_seconds": 61})) == [("/ttl_seconds", "out_of_range")]


@pytest.mark.parametrize(
    ("reason", "code"), [("", "blank"), ("   ", "blank"), ("no", "min_length"), ("x" * 201, "max_length"), (None, "null")]
)
def test_an_empty_or_endless_reason_is_refused(operator: APIClient, node: Node, reason: str | None, code: str) -> None:
    response = post(operator, "node-0/override", {**OVERRIDE, "reason": reason})
    assert response.status_code == 400
    assert fields(response) == [("/reason", code)]


def test_missing_and_unknown_fields_are_named(operator: APIClient, node: Node) -> None:
    assert fields(post(operator, "node-0/override", {"emb_ratio": 0.5})) == [("/ttl_seconds", "required"), ("/reason", "required")]
    assert fields(post(operator, "node-0/override", {**OVERRIDE, "ttl": 5})) == [("/ttl", "unknown_field")]


def test_a_write_without_a_version_is_refused(operator: APIClient, node: Node) -> None:
    response = post(operator, "node-0/override", OVERRIDE, version=None)
    assert response.status_code == 428
    assert response.json()["current_etag"] == '"1"'


@pytest.mark.parametrize("version", ['"0"', '"2"', 'W/"1"', "1", '"x", "y"'])
def test_a_write_on_a_stale_version_is_refused(operator: APIClient, node: Node, version: str) -> None:
    response = post(operator, "node-0/override", OVERRIDE, version)
    assert response.status_code == 412
    assert response.json()["current_etag"] == response["ETag"] == '"1"'
    assert AuditEntry.objects.filter(action="node.override").count() == 0


@pytest.mark.parametrize("version", ["*", '"7", "1"'])
def test_any_of_several_versions_will_do(operator: APIClient, node: Node, version: str) -> None:
    assert post(operator, "node-0/override", OVERRIDE, version).status_code == 200


def test_an_unknown_node_is_not_found(operator: APIClient, db: None) -> None:
    response = post(operator, "node-9/override", OVERRIDE)
    assert response.status_code == 404
    assert fields(response) == [("/name", "unknown_node")]


@pytest.mark.parametrize("verb", ["override", "pin", "release"])
@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 403), ("nobody", 401)])
def test_others_may_not(people: Any, node: Node, who: str, status: int, verb: str) -> None:
    response = post(people.client(who), f"node-0/{verb}", OVERRIDE)

    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    node.refresh_from_db()
    assert (node.mode, node.generation) == ("auto", 1)
    assert not AuditEntry.objects.exists()


def test_a_viewer_sees_why_not(viewer: APIClient, node: Node) -> None:
    actions = viewer.get("/api/v1/nodes/node-0/").json()["allowed_actions"]
    assert [(item["action"], item["allowed"]) for item in actions] == [
        ("override", False),
        ("pin", False),
        ("release", False),
        ("resize", False),
    ]
    assert actions[0]["reason"] == "Needs the permission node.override."


def test_a_dry_run_shows_the_price_and_changes_nothing(operator: APIClient, node: Node) -> None:
    response = post(operator, "node-0/override", {**OVERRIDE, "emb_ratio": 0.65}, version=None, query="?dry_run=true")

    assert response.status_code == 200
    document = response.json()
    assert (document["before"]["emb_ratio"], document["after"]["emb_ratio"]) == (0.5, 0.65)
    assert document["before"]["predicted"]["latency_ms_mean"] == 20.0
    assert document["after"]["predicted"] == {
        "latency_ms_mean": 30.0,
        "latency_ms_p99": 95.0,
        "latency_ms_low": 22.5,
        "latency_ms_high": 37.5,
    }
    assert document["change"]["move_seconds"] == pytest.approx(7.5)
    assert document["warnings"] == ["slower_than_now"]
    node.refresh_from_db()
    assert node.generation == 1
    assert not AuditEntry.objects.exists()
    assert not OutboxMessage.objects.filter(topic="node.command").exists()


def test_a_dry_run_refuses_what_the_verb_would_refuse(operator: APIClient, node: Node) -> None:
    assert post(operator, "node-0/override", {**OVERRIDE, "emb_ratio": 0.95}, None, "?dry_run=true").status_code == 422
    assert post(operator, "node-0/override", OVERRIDE, '"9"', "?dry_run=true").status_code == 412


def test_a_dry_run_that_is_misspelt_does_nothing(operator: APIClient, node: Node) -> None:
    assert post(operator, "node-0/override", OVERRIDE, query="?dry_run=yes please").status_code == 400
    node.refresh_from_db()
    assert node.generation == 1


def test_an_unseen_node_has_no_present_ratio_to_hold(operator: APIClient, make_node: Any) -> None:
    make_node(online=False)
    assert fields(post(operator, "node-0/pin", {"reason": "hold it"})) == [("/emb_ratio", "required")]
    assert post(operator, "node-0/pin", {"emb_ratio": 0.4, "reason": "hold it"}).status_code == 200


def test_a_write_that_came_second_is_a_conflict(operator: APIClient, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.fleet import actions

    judge = actions._judge

    def overtaken(row: Node, wish: actions.Wish) -> actions.Wish:
        Node.objects.filter(pk=row.pk).update(resource_version=row.resource_version + 1)
        return judge(row, wish)

    monkeypatch.setattr(actions, "_judge", overtaken)
    response = post(operator, "node-0/override", OVERRIDE)

    assert (response.status_code, response.json()["code"]) == (409, "concurrent_write")
    assert not AuditEntry.objects.exists()


def test_a_body_that_is_not_an_object_is_refused(operator: APIClient, node: Node) -> None:
    for body in ("{", "[]", '"text"', "5", "[" * 100_000):
        response = post(operator, "node-0/override", body)
        assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json"), body[:10]


def test_other_media_types_and_methods_are_refused_as_problems(operator: APIClient, node: Node) -> None:
    form = operator.post("/api/v1/nodes/node-0/override/", "emb_ratio=0.5", content_type="application/x-www-form-urlencoded")
    assert (form.status_code, form["Content-Type"]) == (415, "application/problem+json")
    wrong = operator.put("/api/v1/nodes/node-0/override/", {}, format="json")
    assert (wrong.status_code, wrong["Content-Type"]) == (405, "application/problem+json")


def test_an_offline_node_may_be_overridden_and_says_that_it_waits(operator: APIClient, node: Node) -> None:
    NodeStatus.objects.update(link_id="")
    response = post(operator, "node-0/override", OVERRIDE)
    assert response.status_code == 200
    conditions = {item["type"]: item for item in response.json()["status"]["conditions"]}
    assert (conditions["SpecApplied"]["status"], conditions["SpecApplied"]["reason"]) == ("False", "Waiting")
    assert conditions["Reachable"]["status"] == "False"
    assert conditions["ReuseStale"]["status"] == "Unknown"
