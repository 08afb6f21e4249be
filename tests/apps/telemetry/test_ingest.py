"""Frames become rows, once, and one bad message does not spoil the rest."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.audit.models import Event
from apps.fleet.models import Node, NodeStatus
from apps.telemetry import ingest
from apps.telemetry.ingest import Inbox, Received
from apps.telemetry.models import Decision, Point
from tests.apps.frames import decision, event, telemetry

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def received(node: Node, frame: Any, seconds: float = 0.0) -> Received:
    return Received(node.pk, node.name, NOON + timedelta(seconds=seconds), frame)


def flushed(*messages: Received) -> int:
    inbox = Inbox()
    for message in messages:
        inbox.put(message)
    return ingest.flush(inbox, NOON)


def test_a_batch_is_one_transaction_of_status_points_decisions_and_events(node: Node, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(12):
        count = flushed(
            received(node, telemetry(emb_ratio=0.6, observed_generation=4), 0.1),
            received(node, decision(seq=1)),
            received(node, decision(seq=2, before=0.5, granted=0.52)),
            received(node, event("ratio_moved", **{"from": "0.500", "to": "0.520"})),
        )

    assert count == 4
    status = NodeStatus.objects.get(node=node)
    assert (status.frame["emb_ratio"], status.observed_generation, status.received_at) == (0.6, 4, NOON + timedelta(seconds=0.1))
    assert Point.objects.get().at_seconds == int(NOON.timestamp())
    assert list(Decision.objects.order_by("id").values_list("seq", "moved")) == [(1, False), (2, True)]
    assert Event.objects.get(kind="ratio_moved").text == "node-0 moves its split from 0.500 to 0.520"


def test_two_frames_in_one_second_are_one_point_the_later(node: Node) -> None:
    flushed(received(node, telemetry(emb_ratio=0.4), 0.0), received(node, telemetry(emb_ratio=0.5), 0.9))
    flushed(received(node, telemetry(emb_ratio=0.6), 0.95))
    assert [point.emb_ratio for point in Point.objects.all()] == [0.6]


def test_a_message_the_database_refuses_does_not_take_the_others_with_it(node: Node) -> None:
    stored = flushed(received(node, decision(seq=1)), received(node, decision(seq=2**70)), received(node, telemetry(emb_ratio=0.6)))

    assert stored == 2
    assert list(Decision.objects.values_list("seq", flat=True)) == [1]
    assert NodeStatus.objects.get(node=node).frame["emb_ratio"] == 0.6


def test_presence_is_not_the_nodes_to_tell(node: Node) -> None:
    flushed(received(node, event("node_online")), received(node, event("node_offline")))
    assert Event.objects.filter(kind="node_offline").count() == 0
    assert Event.objects.filter(kind="node_online").count() == 1  # ours, when its link opened


def test_a_full_inbox_forgets_the_oldest_gauges_and_keeps_notes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "FRAMES_MAX", 2)
    inbox = Inbox()
    for index in range(5):
        inbox.put(received(node, telemetry(seq=index), index))
        inbox.put(received(node, decision(seq=index), index))
    waiting = inbox.take()
    assert [item.frame.seq for item in waiting] == [3, 4, 0, 1, 2, 3, 4]  # type: ignore[union-attr]
    assert inbox.take() == []


def test_an_empty_inbox_costs_nothing(node: Node, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert flushed() == 0


def test_what_cannot_be_stored_because_the_database_is_away_waits_for_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    inbox = Inbox()
    inbox.put(received(node, telemetry(seq=1)))
    inbox.put(received(node, decision(seq=1)))

    def away(*_: Any) -> None:
        inbox.put(received(node, telemetry(seq=2)))
        raise OperationalError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "store", away)
        with pytest.raises(OperationalError):
            ingest.flush(inbox, NOON)

    assert [item.frame.seq for item in inbox.take()] == [1, 2, 1]  # type: ignore[union-attr]
