"""The outbox: told after commit, told again until taken, never by two at once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction

from apps.outbox import dispatch
from apps.outbox.models import OutboxMessage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
State = OutboxMessage.State


class Hand:
    """A handler that answers as it is told and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.answer: bool | Exception = True

    def __call__(self, message: OutboxMessage) -> bool:
        self.seen.append(message.payload["n"])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hand(db: None) -> Iterator[Hand]:
    handler = Hand()
    dispatch.register("test", handler)
    yield handler
    dispatch._handlers.pop("test")
    dispatch._paused_until.pop("test", None)


def put(n: int, key: str = "k") -> OutboxMessage:
    return dispatch.enqueue("test", key, {"n": n}, NOON)


def state(message: OutboxMessage) -> str:
    message.refresh_from_db()
    return message.state


def test_a_fact_leaves_after_commit_and_not_before(hand: Hand, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        message = put(1)
        assert hand.seen == []
    assert (hand.seen, state(message)) == ([1], State.DONE)


def test_a_fact_of_a_transaction_that_failed_never_leaves(hand: Hand, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True), pytest.raises(RuntimeError), transaction.atomic():
        put(1)
        raise RuntimeError
    assert (hand.seen, OutboxMessage.objects.count()) == ([], 0)


def test_a_handler_that_fails_is_asked_again_later_and_later(hand: Hand) -> None:
    hand.answer = ConnectionError("Redis is away")
    message = put(1)

    waits = []
    now = NOON
    for _ in range(6):
        dispatch._paused_until.clear()
        dispatch.dispatch_due(now)
        message.refresh_from_db()
        waits.append((message.due_at - now).total_seconds())
        now = message.due_at

    assert waits == [2, 4, 8, 16, 30, 30]
    hand.answer = True
    dispatch._paused_until.clear()
    dispatch.dispatch_due(now)
    assert (len(hand.seen), state(message)) == (7, State.DONE)


def test_a_way_out_that_fails_is_not_tried_for_every_fact(hand: Hand) -> None:
    hand.answer = TimeoutError("Redis hangs")
    for n in range(5):
        put(n)
    assert dispatch.dispatch_due(NOON) == 0
    assert hand.seen == [0]


def test_a_fact_that_is_not_due_waits(hand: Hand) -> None:
    hand.answer = False
    message = put(1)
    assert dispatch.dispatch_due(NOON) == 1
    assert dispatch.dispatch_due(NOON + timedelta(seconds=1)) == 0
    assert dispatch.dispatch_due(NOON + timedelta(seconds=2)) == 1
    assert (hand.seen, state(message)) == ([1, 1], State.SENT)


def test_the_newest_fact_under_a_key_supersedes_open_ones_only(hand: Hand) -> None:
    old, other = put(1), put(2, "other")
    done = put(3)
    OutboxMessage.objects.filter(pk=done.pk).update(state=State.DONE)

    newest = dispatch.enqueue_newest("test", "k", {"n": 4}, NOON)

    assert [state(message) for message in (old, other, done, newest)] == [State.SUPERSEDED, State.PENDING, State.DONE, State.PENDING]


def test_a_fact_that_somebody_claimed_meanwhile_is_left_to_them(hand: Hand) -> None:
    message = put(1)
    assert dispatch.hand_over(message.pk, NOON) is True
    assert dispatch.hand_over(message.pk, NOON) is False
    assert hand.seen == [1]


def test_closing_ends_what_waits_for_an_answer(hand: Hand) -> None:
    hand.answer = False
    message = put(1)
    dispatch.dispatch_due(NOON)
    assert [item.pk for item in dispatch.open_messages("test", ["k", "other"])] == [message.pk]
    assert dispatch.close("test", "k") == 1
    assert dispatch.close("test", "k") == 0
    assert state(message) == State.DONE


def test_closed_facts_are_forgotten_after_a_day(hand: Hand) -> None:
    open_one, closed = put(1), put(2)
    OutboxMessage.objects.filter(pk=closed.pk).update(state=State.DONE)
    assert dispatch.prune(NOON + timedelta(hours=23)) == 0
    assert dispatch.prune(NOON + timedelta(hours=25)) == 1
    assert list(OutboxMessage.objects.values_list("pk", flat=True)) == [open_one.pk]
