"""The outbox: a row in the caller's transaction, handed over after commit, tried again until somebody took it.

A handler returns `True` when the fact is delivered for good and `False` when it was sent and an
acknowledgement is still to come (then it is sent again when due). A handler that raises leaves
the row open. Handlers must bear seeing a fact twice.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.outbox.models import OutboxMessage

logger = logging.getLogger(__name__)
Handler = Callable[[OutboxMessage], bool]
State = OutboxMessage.State
OPEN = (State.PENDING, State.SENT)

RETRY_SECONDS = 2.0  # long enough for an acknowledgement over a slow link, short enough for an operator to watch
RETRY_SECONDS_MAX = 30.0
CLAIM_MAX = 200  # one turn's work: a backlog must not hold the loop

# A way out that failed is left alone for a moment: with a Redis that hangs, every further attempt would cost its
# whole patience, and requests and loops would queue up behind it.
PAUSE_SECONDS = 2.0

_handlers: dict[str, Handler] = {}
_paused_until: dict[str, float] = {}  # topic -> monotonic seconds


def register(topic: str, handler: Handler) -> None:
    """Name the one function that hands over facts of `topic`."""
    _handlers[topic] = handler
    _paused_until.pop(topic, None)


def enqueue(topic: str, key: str, payload: dict[str, Any], now: datetime | None = None) -> OutboxMessage:
    """Write a fact in the current transaction; it is handed over right after commit, or by the loop."""
    now = now or timezone.now()
    message = OutboxMessage.objects.create(topic=topic, key=key, payload=payload, due_at=now, created_at=now)
    transaction.on_commit(partial(_hand_over_quietly, message.pk))
    return message


def enqueue_newest(topic: str, key: str, payload: dict[str, Any], now: datetime | None = None) -> OutboxMessage:
    """As `enqueue`, and older open facts under the same key are superseded."""
    OutboxMessage.objects.filter(topic=topic, key=key, state__in=OPEN).update(state=State.SUPERSEDED)
    return enqueue(topic, key, payload, now)


def dispatch_due(now: datetime | None = None) -> int:
    """One turn of the loop: hand over what is due; returns how many were handed over."""
    now = now or timezone.now()
    due = OutboxMessage.objects.filter(state__in=OPEN, due_at__lte=now).order_by("id").values_list("pk", flat=True)[:CLAIM_MAX]
    return sum(hand_over(pk, now) for pk in list(due))


def hand_over(pk: int, now: datetime | None = None) -> bool:
    """Claim one open, due fact and hand it over. False: somebody else has it, or the handler failed."""
    now = now or timezone.now()
    message = OutboxMessage.objects.filter(pk=pk, state__in=OPEN, due_at__lte=now).first()
    if message is None or message.topic not in _handlers or time.monotonic() < _paused_until.get(message.topic, 0.0):
        return False
    wait = min(RETRY_SECONDS * 2 ** min(message.attempts, 8), RETRY_SECONDS_MAX)
    claimed = OutboxMessage.objects.filter(pk=pk, state=message.state, attempts=message.attempts).update(
        attempts=message.attempts + 1, due_at=now + timedelta(seconds=wait)
    )
    if not claimed:
        return False
    try:
        finished = _handlers[message.topic](message)
    except Exception as error:
        _paused_until[message.topic] = time.monotonic() + PAUSE_SECONDS
        logger.warning("outbox %s %s not handed over (attempt %s): %s", message.topic, message.key, message.attempts + 1, error)
        return False
    OutboxMessage.objects.filter(pk=pk, state__in=OPEN).update(state=State.DONE if finished else State.SENT)
    return True


def open_messages(topic: str, keys: list[str]) -> list[OutboxMessage]:
    """Facts of a topic that wait for delivery or acknowledgement, oldest first."""
    return list(OutboxMessage.objects.filter(topic=topic, key__in=keys, state__in=OPEN).order_by("id"))


def close(topic: str, key: str, *, refused: bool = False) -> int:
    """Mark every open fact under a key as taken (or refused) by the other side."""
    state = State.REFUSED if refused else State.DONE
    return OutboxMessage.objects.filter(topic=topic, key=key, state__in=OPEN).update(state=state)


def prune(now: datetime) -> int:
    """Forget closed facts after a day: long enough to look into yesterday's trouble."""
    closed = OutboxMessage.objects.exclude(state__in=OPEN).filter(created_at__lt=now - timedelta(days=1))
    return closed.delete()[0]


def _hand_over_quietly(pk: int) -> None:
    try:
        hand_over(pk)
    except Exception:
        logger.exception("outbox row %s stays open", pk)
