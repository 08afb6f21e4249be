"""What nodes tell: presence, acknowledgements, expiry."""

from datetime import UTC, datetime, timedelta
from typing import Any

from agents.wire.messages import Ack, Mode
from apps.audit.actions import Actor
from apps.audit.models import AuditEntry, Event
from apps.fleet import actions, observing, queries
from apps.fleet.lifecycle import Verb
from apps.fleet.models import Node, NodeStatus
from apps.outbox.models import OutboxMessage
from tests.apps.frames import hello, telemetry

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OLGA = Actor("olga", "user", "operator")


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def feed(name: str = "node-0") -> list[str]:
    return list(Event.objects.filter(target=name).order_by("id").values_list("kind", flat=True))


def override(node: Node, ttl_seconds: int = 60) -> Node:
    etag = f'"{Node.objects.get(pk=node.pk).resource_version}"'
    return actions.take(OLGA, node.name, actions.Wish(Verb.OVERRIDE, "a test", 0.6, ttl_seconds), etag, NOON)


def ack(node: Node, generation: int, observed: int, **more: Any) -> None:
    answer = Ack(command_id=f"{node.uid.hex}:{generation}", observed_generation=observed, **{"accepted": True, **more})
    observing.acknowledge(node.pk, generation, answer, NOON)


def test_a_silent_node_is_announced_once_and_again_when_it_is_back(make_node: Any) -> None:
    node = make_node(at=NOON)
    assert observing.announce_silent(later(3.0)) == 0
    assert observing.announce_silent(later(4.0)) == 1
    assert observing.announce_silent(later(5.0)) == 0
    observing.observe({node.pk: (later(6), telemetry())}, later(6))
    assert feed() == ["node_online", "node_offline", "node_online"]


def test_a_link_that_was_replaced_does_not_take_the_node_with_it(make_node: Any) -> None:
    node = make_node(at=NOON)
    observing.link_opened(node.pk, "newer", hello(), later(1))
    observing.link_closed(node.pk, "link-node-0", later(2))
    assert NodeStatus.objects.get(node=node).link_id == "newer"
    assert feed() == ["node_online"]


def test_our_own_leaving_is_not_the_nodes(make_node: Any) -> None:
    node = make_node(at=NOON)
    observing.link_closed(node.pk, "link-node-0", later(1), quietly=True)
    assert feed() == ["node_online"]
    observing.link_opened(node.pk, "after the restart", hello(), later(2))
    assert feed() == ["node_online"]


def test_an_acknowledgement_closes_the_command(make_node: Any) -> None:
    node = make_node(at=NOON)
    override(node)
    ack(node, 2, 2)
    status = NodeStatus.objects.get(node=node)
    assert (status.acked_generation, status.observed_generation) == (2, 2)
    assert OutboxMessage.objects.get(topic="node.command").state == "done"


def test_an_acknowledgement_of_an_older_command_leaves_the_newer_open(make_node: Any) -> None:
    node = make_node(at=NOON)
    override(node)
    override(node)
    ack(node, 2, 2)
    assert list(OutboxMessage.objects.filter(topic="node.command").order_by("id").values_list("state", flat=True)) == [
        "superseded",
        "pending",
    ]


def test_a_refusal_of_an_older_command_is_no_news(make_node: Any) -> None:
    node = make_node(at=NOON)
    override(node)
    override(node)
    ack(node, 2, 1, accepted=False, error_code="outside_guard_rails", detail="no")
    assert NodeStatus.objects.get(node=node).refusal is None


def test_a_node_that_calls_us_stale_is_overtaken(make_node: Any) -> None:
    node = make_node(at=NOON)
    override(node)
    ack(node, 2, 9, accepted=False, error_code="stale_generation", detail="9 is newer")
    node.refresh_from_db()
    assert (node.generation, node.mode) == (10, "override")
    assert OutboxMessage.objects.filter(topic="node.command", state="pending").get().payload["generation"] == 10


def test_an_override_ends_in_the_desired_state_a_little_after_the_nodes_own_clock(make_node: Any) -> None:
    node = make_node(at=NOON)
    override(node, ttl_seconds=60)
    assert actions.expire_due(later(61.9)) == 0
    assert actions.expire_due(later(62.1)) == 1
    assert actions.expire_due(later(63)) == 0
    node.refresh_from_db()
    assert (node.mode, node.emb_ratio, node.expires_at, node.generation) == ("auto", None, None, 3)
    assert AuditEntry.objects.get(action="node.expire").actor == "system"


def test_a_command_carries_the_time_that_is_left(make_node: Any) -> None:
    node = override(make_node(at=NOON), ttl_seconds=60)
    spec = queries.wire_spec(node, later(20))
    assert (spec.mode, spec.emb_ratio, spec.ttl_remaining_ms) == (Mode.OVERRIDE, 0.6, 40_000)


def test_an_override_that_ended_before_the_node_heard_of_it_is_sent_as_auto(make_node: Any) -> None:
    node = override(make_node(at=NOON), ttl_seconds=60)
    spec = queries.wire_spec(node, later(60))
    assert (spec.mode, spec.emb_ratio, spec.ttl_remaining_ms, spec.generation) == (Mode.AUTO, None, None, 2)


def test_a_pin_never_ends_by_itself(make_node: Any) -> None:
    node = make_node(at=NOON)
    node = actions.take(OLGA, "node-0", actions.Wish(Verb.PIN, "hold it", 0.4), '"1"', NOON)
    assert actions.expire_due(later(10**7)) == 0
    assert queries.wire_spec(node, later(10**7)).ttl_remaining_ms is None
