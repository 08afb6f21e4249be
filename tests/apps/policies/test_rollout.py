"""Who decides on which node: set, advised, taken back, told with the node's next command; nodes fetch with their credential."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.audit.models import AuditEntry, Event
from apps.fleet import queries as fleet
from apps.fleet.models import Node, NodeStatus
from apps.outbox.models import OutboxMessage
from apps.policies.models import PolicyVersion
from apps.telemetry.exposition import FleetCollector

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def digest_of(name: str) -> str:
    return PolicyVersion.objects.get(name=name, source="shipped").digest


def use(client: APIClient, name: str, **body: Any) -> Any:
    return client.post(f"/api/v1/policies/{digest_of(name)}/use/", {"reason": "a try", **body}, format="json")


def spec(name: str) -> tuple[str, str]:
    node = Node.objects.get(name=name)
    return node.policy_digest, node.controller


def test_the_same_version_set_again_is_a_new_word_to_the_node(operator: APIClient, make_node: Any) -> None:
    """Whoever was demoted there is trusted anew; an override is no such word."""
    make_node("node-0")
    for generation in (2, 3):
        use(operator, "helm", nodes=["node-0"])
        command = fleet.wire_spec(fleet.node_by_name("node-0"), NOON)
        assert (command.generation, command.policy_generation) == (generation, generation)
    hold = {"emb_ratio": 0.5, "ttl_seconds": 60, "reason": "a test"}
    version = {"If-Match": operator.get("/api/v1/nodes/node-0/")["ETag"]}
    assert operator.post("/api/v1/nodes/node-0/override/", hold, format="json", headers=version).status_code == 200
    command = fleet.wire_spec(fleet.node_by_name("node-0"), NOON)
    assert (command.generation, command.policy_generation) == (4, 3)


def test_a_version_is_set_on_one_node_advising_unless_said_otherwise(operator: APIClient, make_node: Any) -> None:
    make_node("node-0")
    make_node("node-1")
    answer = use(operator, "helm", nodes=["node-0"])
    assert (answer.status_code, [row["node"] for row in answer.json()]) == (200, ["node-0"])
    assert spec("node-0") == (digest_of("helm"), "advisory")
    assert spec("node-1") == ("", "active")
    command = fleet.wire_spec(fleet.node_by_name("node-0"), NOON)
    assert (command.policy_digest, command.controller, command.generation) == (digest_of("helm"), "advisory", 2)
    assert command.policy_generation == 2
    assert (
        OutboxMessage.objects.filter(topic="node.command", state="pending").count() + OutboxMessage.objects.filter(state="sent").count()
        == 1
    )
    entry = AuditEntry.objects.get(action="node.policy")
    assert (entry.target, entry.reason, entry.after["controller"]) == ("node-0", "a try", "advisory")
    assert Event.objects.get(kind="policy_requested").target == "node-0"


def test_all_nodes_are_set_together_or_none_is(operator: APIClient, make_node: Any) -> None:
    make_node("node-0")
    make_node("node-1", online=False)
    assert len(use(operator, "helm", all_nodes=True, controller="active").json()) == 2
    assert {spec(name) for name in ("node-0", "node-1")} == {(digest_of("helm"), "active")}
    answer = use(operator, "paper", nodes=["node-0", "node-9"])
    assert answer.json()["code"] == "unknown_node"
    assert spec("node-0") == (digest_of("helm"), "active")


@pytest.mark.parametrize("body", [{}, {"nodes": ["node-0"], "all_nodes": True}, {"nodes": []}, {"all_nodes": True, "controller": "boss"}])
def test_who_is_meant_must_be_said_and_said_once(operator: APIClient, node: Node, body: dict[str, Any]) -> None:
    assert use(operator, "helm", **body).status_code == 400
    assert spec("node-0") == ("", "active")


def test_a_reason_is_needed_and_an_empty_fleet_is_said(operator: APIClient) -> None:
    assert operator.post(f"/api/v1/policies/{digest_of('helm')}/use/", {"all_nodes": True}, format="json").status_code == 400
    assert use(operator, "helm", all_nodes=True).json()["code"] == "no_nodes"


def test_rolling_back_goes_one_assignment_back_each_time(operator: APIClient, node: Node) -> None:
    def back() -> Any:
        return operator.post("/api/v1/policies/rollback/", {"nodes": ["node-0"], "reason": "slower"}, format="json")

    use(operator, "helm", nodes=["node-0"], controller="active")
    use(operator, "paper", nodes=["node-0"])
    assert back().json()[0]["undone_at"] is not None
    assert spec("node-0") == (digest_of("helm"), "active")
    back()
    assert spec("node-0") == ("", "active")
    assert back().json()["code"] == "nothing_to_roll_back"
    assert AuditEntry.objects.filter(action="node.policy_back").count() == 2
    history = operator.get("/api/v1/policies/assignments/?node=node-0").json()["results"]
    assert [(row["digest"], row["undone_at"] is not None) for row in history] == [(digest_of("paper"), True), (digest_of("helm"), True)]


def test_a_node_goes_back_to_its_own_controller(operator: APIClient, node: Node) -> None:
    use(operator, "helm", nodes=["node-0"])
    operator.post("/api/v1/policies/own/", {"nodes": ["node-0"], "reason": "enough"}, format="json")
    assert spec("node-0") == ("", "active")


def test_a_rejected_version_may_advise_but_not_decide_and_a_deciding_one_is_not_rejected(operator: APIClient, node: Node) -> None:
    judge = f"/api/v1/policies/{digest_of('helm')}/judge/"
    use(operator, "helm", nodes=["node-0"], controller="active")
    refused = operator.post(judge, {"state": "rejected", "reason": "slow"}, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "policy_active")
    use(operator, "helm", nodes=["node-0"], controller="advisory")
    assert operator.post(judge, {"state": "rejected", "reason": "slow"}, format="json").status_code == 200
    assert use(operator, "helm", nodes=["node-0"], controller="active").json()["code"] == "policy_rejected"
    assert use(operator, "helm", nodes=["node-0"], controller="advisory").status_code == 200


def judged(client: APIClient, name: str, state: str) -> Any:
    return client.post(f"/api/v1/policies/{digest_of(name)}/judge/", {"state": state, "reason": "slow"}, format="json")


def test_a_version_that_a_node_started_with_decides_there_and_is_not_rejected(operator: APIClient, make_node: Any) -> None:
    make_node("node-0", policy_digest=digest_of("helm"))
    refused = judged(operator, "helm", "rejected")
    assert (refused.status_code, refused.json()["code"]) == (409, "policy_active")
    assert "node-0" in refused.json()["detail"]
    use(operator, "paper", nodes=["node-0"], controller="active")
    assert judged(operator, "helm", "rejected").json()["code"] == "policy_active"  # until the node has switched
    use(operator, "helm", nodes=["node-0"])
    assert judged(operator, "helm", "rejected").status_code == 200  # it advises there


def test_what_a_node_said_last_before_it_went_away_holds_until_it_is_told_something_else(operator: APIClient, make_node: Any) -> None:
    make_node("node-0", policy_digest=digest_of("helm"))
    NodeStatus.objects.update(link_id="")
    assert judged(operator, "helm", "rejected").json()["code"] == "policy_active"
    use(operator, "paper", nodes=["node-0"], controller="active")
    assert judged(operator, "helm", "rejected").status_code == 200


def test_rolling_back_does_not_bring_a_rejected_version_back_to_decide(operator: APIClient, make_node: Any) -> None:
    make_node("node-0")
    make_node("node-1")
    back = {"all_nodes": True, "reason": "slower"}
    use(operator, "helm", nodes=["node-0"], controller="active")
    use(operator, "paper", all_nodes=True, controller="active")
    judged(operator, "helm", "rejected")
    refused = operator.post("/api/v1/policies/rollback/", back, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "policy_rejected")
    assert "helm v1 was rejected (slow)" in refused.json()["detail"]
    assert {spec(name) for name in ("node-0", "node-1")} == {(digest_of("paper"), "active")}  # none is taken back
    judged(operator, "helm", "usable")
    assert operator.post("/api/v1/policies/rollback/", back, format="json").status_code == 200
    assert [spec(name) for name in ("node-0", "node-1")] == [(digest_of("helm"), "active"), ("", "active")]


def test_rolling_back_brings_a_rejected_version_back_to_advise(operator: APIClient, node: Node) -> None:
    use(operator, "helm", nodes=["node-0"])
    use(operator, "paper", nodes=["node-0"], controller="active")
    judged(operator, "helm", "rejected")
    operator.post("/api/v1/policies/rollback/", {"nodes": ["node-0"], "reason": "slower"}, format="json")
    assert spec("node-0") == (digest_of("helm"), "advisory")


def test_the_list_says_where_a_version_is_wanted_and_where_it_is_in_force(operator: APIClient, make_node: Any) -> None:
    make_node("node-0", policy_digest=digest_of("paper"))
    make_node("node-1")
    use(operator, "helm", nodes=["node-0"], controller="active")
    rows = {row["name"]: row for row in operator.get("/api/v1/policies/").json()["results"]}
    assert rows["helm"]["wanted_on"] == [{"node": "node-0", "controller": "active"}]
    assert (rows["helm"]["in_force_on"], rows["paper"]["in_force_on"]) == ([], ["node-0"])
    assert operator.get("/api/v1/nodes/node-0/").json()["status"]["telemetry"]["policy_digest"] == digest_of("paper")
    (info,) = [metric for metric in FleetCollector().collect() if metric.name == "helm_policy"]
    assert [(sample.labels["node"], sample.labels["version"]) for sample in info.samples] == [("node-0", digest_of("paper"))]


def test_a_node_fetches_an_artefact_with_its_credential_and_nothing_else_with_it(node: Node) -> None:
    client = APIClient(HTTP_AUTHORIZATION="Bearer credential of node-0")
    path = f"/api/v1/policies/{digest_of('helm')}/artefact/"
    assert client.get(path).status_code == 401  # not a node's kind of credential
    Node.objects.update(credential_digest=fleet_digest("helm_node_secret"))
    client = APIClient(HTTP_AUTHORIZATION="Bearer helm_node_secret")
    assert client.get(path).json()["digest"] == digest_of("helm")
    assert client.get("/api/v1/policies/").status_code == 401
    assert client.get("/api/v1/policies/ffffffff/artefact/").status_code == 404
    assert APIClient(HTTP_AUTHORIZATION="Bearer helm_node_wrong").get(path).status_code == 401


def fleet_digest(secret: str) -> str:
    from apps.lib.secrets import digest

    return digest(secret)
