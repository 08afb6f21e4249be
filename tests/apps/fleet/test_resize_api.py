"""A pool's size over REST: what is done, what is refused and by which name, and that it stays."""

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from agents.node.desired import from_spec, initial, pool_pages
from agents.profiles.profile import load_profile
from agents.wire.messages import GuardRails
from apps.audit.models import AuditEntry, Event
from apps.fleet import queries
from apps.fleet.models import Node
from apps.outbox.models import OutboxMessage
from tests.apps.fleet.test_verbs_api import OVERRIDE, fields, post

MIB = 1 << 20
PROFILE = load_profile("cpu-demo")
HALF = {"pool_bytes": 32 * MIB, "reason": "another tenant comes"}


def pages_wanted(node: Node) -> int:
    """What the node makes of the next command."""
    node.refresh_from_db()
    spec = queries.wire_spec(node, timezone.now())
    return pool_pages(from_spec(initial(GuardRails()), 0, spec), PROFILE)


def test_a_size_changes_the_spec_and_tells_everybody(operator: APIClient, node: Node) -> None:
    response = post(operator, "node-0/resize", HALF)

    assert (response.status_code, response["ETag"]) == (200, '"2"')
    spec = response.json()["spec"]
    assert (spec["pool_bytes"], spec["pool_bytes_min"], spec["pool_bytes_max"]) == (32 * MIB, 10 * PROFILE.page_bytes, 64 * MIB)
    assert (spec["mode"], spec["emb_ratio"], spec["reason"]) == ("auto", None, "")
    entry = AuditEntry.objects.get(action="node.resize")
    assert (entry.actor, entry.target, entry.reason) == ("olga", "node-0", "another tenant comes")
    assert (entry.before["pool_bytes"], entry.after["pool_bytes"]) == (None, 32 * MIB)
    assert Event.objects.get(kind="pool_requested").text == "olga gave node-0 a pool of 32.0 MiB"
    command = OutboxMessage.objects.get(topic="node.command")
    assert (command.payload["generation"], command.state) == (2, "pending")
    assert pages_wanted(node) == 512


def test_a_size_outlives_every_other_command_until_it_is_taken_back(operator: APIClient, node: Node) -> None:
    post(operator, "node-0/resize", HALF)
    post(operator, "node-0/override", OVERRIDE, '"2"')
    assert pages_wanted(node) == 512
    post(operator, "node-0/release", {"reason": "done with it"}, '"3"')
    assert pages_wanted(node) == 512

    response = post(operator, "node-0/resize", {"pool_bytes": None, "reason": "the tenant left"}, '"4"')

    assert response.json()["spec"]["pool_bytes"] is None
    assert Event.objects.filter(kind="pool_requested").latest("id").text == "olga gave node-0 its whole pool again"
    assert pages_wanted(node) == PROFILE.pages


def test_a_resize_leaves_an_override_alone_whatever_the_mode(operator: APIClient, node: Node) -> None:
    post(operator, "node-0/override", OVERRIDE)
    spec = post(operator, "node-0/resize", HALF, '"2"').json()["spec"]
    assert (spec["mode"], spec["emb_ratio"], spec["reason"]) == ("override", 0.6, "warming for the sale")
    assert 0 < spec["ttl_remaining_seconds"] <= 600


@pytest.mark.parametrize(
    ("size", "code"),
    [
        (10 * PROFILE.page_bytes - 1, "out_of_range"),
        (64 * MIB + 1, "out_of_range"),
        (0, "out_of_range"),
        (-1, "out_of_range"),
        (10**400, "out_of_range"),
        ("32MiB", "invalid"),
        (1.5, "invalid"),
        (True, "invalid"),
    ],
)
def test_a_size_that_the_node_could_not_have_is_refused_by_name(operator: APIClient, node: Node, size: Any, code: str) -> None:
    response = post(operator, "node-0/resize", {**HALF, "pool_bytes": size})
    assert response.status_code == 400
    assert fields(response) == [("/pool_bytes", code)]
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("size", [10 * PROFILE.page_bytes, 64 * MIB])
def test_the_smallest_and_the_largest_pool_are_accepted(operator: APIClient, node: Node, size: int) -> None:
    assert post(operator, "node-0/resize", {**HALF, "pool_bytes": size}).status_code == 200


def test_a_size_must_be_said_and_so_must_the_reason(operator: APIClient, node: Node) -> None:
    assert fields(post(operator, "node-0/resize", {})) == [("/pool_bytes", "required"), ("/reason", "required")]


@pytest.mark.parametrize(("version", "status"), [(None, 428), ('"0"', 412)])
def test_a_resize_of_what_was_not_seen_is_refused(operator: APIClient, node: Node, version: str | None, status: int) -> None:
    assert post(operator, "node-0/resize", HALF, version).status_code == status
    node.refresh_from_db()
    assert node.pool_bytes is None


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 403), ("nobody", 401)])
def test_others_may_not_resize(people: Any, node: Node, who: str, status: int) -> None:
    response = post(people.client(who), "node-0/resize", HALF)
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    node.refresh_from_db()
    assert (node.pool_bytes, node.generation) == (None, 1)
    assert not AuditEntry.objects.exists()


def test_a_dry_run_says_what_a_smaller_pool_holds_and_changes_nothing(operator: APIClient, node: Node) -> None:
    document = post(operator, "node-0/resize", HALF, version=None, query="?dry_run=true").json()
    assert (document["before"]["pool_bytes"], document["after"]["pool_bytes"]) == (64 * MIB, 32 * MIB)
    assert (document["change"]["emb_rows"], document["change"]["moved_bytes"]) == (-16 * MIB // 256, 32 * MIB)
    assert document["change"]["move_seconds"] is None
    node.refresh_from_db()
    assert (node.pool_bytes, node.generation) == (None, 1)


def test_a_node_of_a_kind_that_is_not_shipped_any_more_is_listed_and_keeps_its_size(operator: APIClient, node: Node) -> None:
    Node.objects.update(profile="a-kind-of-last-year")
    spec = operator.get("/api/v1/nodes/").json()["results"][0]["spec"]
    assert (spec["pool_bytes_min"], spec["pool_bytes_max"]) == (None, None)
    assert fields(post(operator, "node-0/resize", HALF)) == [("/pool_bytes", "unknown_profile")]
