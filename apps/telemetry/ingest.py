"""From frames to rows: a bounded inbox per web process, emptied in one transaction a second."""

import logging
import threading
from collections import deque
from datetime import datetime
from typing import NamedTuple

import msgspec
from django.db import InterfaceError, OperationalError, transaction

from agents.wire.events import EventKind
from agents.wire.messages import DecisionRecord, EventFrame, NodeTelemetry
from apps.audit.actions import announce
from apps.fleet import observing
from apps.fleet.queries import from_unix_ns
from apps.telemetry.frames import point_of
from apps.telemetry.models import Decision, Point
from apps.telemetry.sentences import sentence

logger = logging.getLogger(__name__)
FRAMES_MAX = 20_000  # a minute of three hundred nodes while the database is away; then the oldest gauges go
NOTES_MAX = 20_000  # decisions and events: ten times rarer than frames

# Whether a node is there is seen from here; its own word on it would be a second line in the feed.
OURS = {EventKind.NODE_ONLINE, EventKind.NODE_OFFLINE, EventKind.NODE_ENROLLED}
POINT_KEYS = ["node", "resolution_seconds", "at_seconds"]
POINT_VALUES = [field.name for field in Point._meta.concrete_fields if field.name not in {"id", *POINT_KEYS}]


class Received(NamedTuple):
    """A message of a node with our time of its arrival."""

    node_id: int
    node_name: str
    at: datetime
    frame: NodeTelemetry | DecisionRecord | EventFrame


class Inbox:
    """What arrived since the last flush. Filled on the event loop, emptied by one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: deque[Received] = deque(maxlen=FRAMES_MAX)
        self._notes: deque[Received] = deque(maxlen=NOTES_MAX)

    def put(self, received: Received) -> None:
        """Accept one message; never blocks, never fails."""
        with self._lock:
            (self._frames if isinstance(received.frame, NodeTelemetry) else self._notes).append(received)

    def put_back(self, waiting: list[Received]) -> None:
        """Return what could not be stored yet, before what came since."""
        with self._lock:
            frames = [item for item in waiting if isinstance(item.frame, NodeTelemetry)]
            notes = [item for item in waiting if not isinstance(item.frame, NodeTelemetry)]
            self._frames = deque([*frames, *self._frames], maxlen=FRAMES_MAX)
            self._notes = deque([*notes, *self._notes], maxlen=NOTES_MAX)

    def take(self) -> list[Received]:
        """Everything that waits, in order of arrival per kind."""
        with self._lock:
            waiting = [*self._frames, *self._notes]
            self._frames.clear()
            self._notes.clear()
        return waiting


def flush(inbox: Inbox, now: datetime) -> int:
    """Store what waits in one transaction; if one message spoils it, store them one by one and drop that one.

    A database that is away is not the messages' fault: they wait for it.
    """
    waiting = inbox.take()
    if not waiting:
        return 0
    try:
        store(waiting, now)
    except (OperationalError, InterfaceError):
        inbox.put_back(waiting)
        raise
    except Exception:
        logger.exception("a batch of %s messages was refused, storing them one by one", len(waiting))
        return sum(_store_alone(received, now) for received in waiting)
    return len(waiting)


def store(waiting: list[Received], now: datetime) -> None:
    """Status rows, points, decisions and events of a batch."""
    frames = [received for received in waiting if isinstance(received.frame, NodeTelemetry)]
    # Two frames of one node within a second are one point: the later one.
    points = {(item.node_id, int(item.at.timestamp())): item for item in frames}
    with transaction.atomic():
        observing.observe({item.node_id: (item.at, item.frame) for item in frames}, now)  # type: ignore[misc]
        Point.objects.bulk_create(
            [point_of(node_id, at_seconds, item.frame) for (node_id, at_seconds), item in points.items()],  # type: ignore[arg-type]
            update_conflicts=True,
            unique_fields=POINT_KEYS,
            update_fields=POINT_VALUES,
        )
        Decision.objects.bulk_create([_decision(item, item.frame) for item in waiting if isinstance(item.frame, DecisionRecord)])
        for item in waiting:
            if isinstance(item.frame, EventFrame) and item.frame.kind not in OURS:
                _announce(item, item.frame)


def _store_alone(received: Received, now: datetime) -> bool:
    try:
        store([received], now)
    except Exception:
        logger.exception("dropped a message of %s", received.node_name)
        return False
    return True


def _decision(received: Received, record: DecisionRecord) -> Decision:
    moved = abs(record.emb_ratio_granted - record.emb_ratio_before) > 1e-9
    return Decision(
        node_id=received.node_id, at=from_unix_ns(record.at_unix_ns), seq=record.seq, moved=moved, record=msgspec.to_builtins(record)
    )


def _announce(received: Received, frame: EventFrame) -> None:
    """The detail keeps every fact whole; the sentence is for people."""
    text = sentence(received.node_name, frame)
    announce(frame.kind[:48], received.node_name, text, detail=dict(frame.detail), now=from_unix_ns(frame.at_unix_ns))
