"""What nodes tell: links that open and close, frames, acknowledgements. Writes status, never spec."""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from django.db import transaction
from django.db.models import F

from agents.wire.errors import ErrorCode
from agents.wire.events import EventKind
from agents.wire.messages import Ack, Hello, NodeTelemetry
from apps.audit.actions import announce
from apps.fleet import actions, queries
from apps.fleet.models import Node, NodeStatus
from apps.fleet.presence import OFFLINE_AFTER_SECONDS
from apps.outbox import dispatch

logger = logging.getLogger(__name__)


class Greeting(NamedTuple):
    """A node that has just dialled in, and whether it must be told its spec."""

    node: Node
    send_spec: bool


def link_opened(node_id: int, link_id: str, hello: Hello, now: datetime) -> Greeting:
    """A link stands: it speaks for the node from now on."""
    with transaction.atomic():
        node = queries.nodes().get(pk=node_id)
        NodeStatus.objects.update_or_create(
            node_id=node_id,
            defaults={
                "link_id": link_id,
                "link_changed_at": now,
                "observed_generation": hello.observed_generation,
                "device": hello.device[:64],
                "emulated": hello.emulated,
            },
        )
        if hello.infer_url and hello.infer_url != node.infer_url:
            Node.objects.filter(pk=node_id).update(infer_url=hello.infer_url[:255])
        _announce_online(node, now)
        if hello.observed_generation > node.generation:
            return Greeting(actions.leap_generation(node, hello.observed_generation, now), True)
        if hello.observed_generation == node.generation:
            dispatch.close(actions.TOPIC_COMMAND, node.uid.hex)
        return Greeting(node, hello.observed_generation < node.generation)


def link_closed(node_id: int, link_id: str, now: datetime, *, quietly: bool = False) -> None:
    """A link is gone. Only the one that speaks for the node counts; `quietly` when it was us who left."""
    with transaction.atomic():
        closed = NodeStatus.objects.filter(node_id=node_id, link_id=link_id).update(link_id="", link_changed_at=now)
        if closed and not quietly:
            _announce_offline(node_id, "its link closed", now)


def announce_silent(now: datetime) -> int:
    """Nodes that were there and whose last frame is too old: tell the feed, once. Any process may ask."""
    limit = now - timedelta(seconds=OFFLINE_AFTER_SECONDS)
    silent = NodeStatus.objects.filter(announced_online=True, received_at__lt=limit, link_changed_at__lt=limit)
    count = 0
    for node_id in list(silent.values_list("node_id", flat=True)):
        with transaction.atomic():
            count += _announce_offline(node_id, "no frame arrives", now)
    return count


def observe(frames: Mapping[int, tuple[datetime, NodeTelemetry]], now: datetime) -> None:
    """Store each node's newest frame; a node that was thought lost is back."""
    for node_id, (at, frame) in frames.items():
        NodeStatus.objects.filter(node_id=node_id).update(
            frame=msgspec.to_builtins(frame), received_at=at, observed_generation=frame.observed_generation
        )
    lost = Node.objects.filter(pk__in=list(frames), status__announced_online=False).exclude(status__link_id="")
    for node in list(lost):
        _announce_online(node, now)


def acknowledge(node_id: int, generation: int, ack: Ack, now: datetime) -> None:
    """A node's answer to the command of one generation."""
    with transaction.atomic():
        node = queries.nodes().get(pk=node_id)
        status = NodeStatus.objects.filter(node_id=node_id)
        if ack.accepted:
            status.filter(acked_generation__lt=generation).update(acked_generation=generation)
            status.filter(observed_generation__lt=ack.observed_generation).update(observed_generation=ack.observed_generation)
            if generation >= node.generation:
                dispatch.close(actions.TOPIC_COMMAND, node.uid.hex)
            return
        if ack.error_code == ErrorCode.STALE_GENERATION and ack.observed_generation > node.generation:
            actions.leap_generation(node, ack.observed_generation, now)
            return
        if generation < node.generation:
            return
        dispatch.close(actions.TOPIC_COMMAND, node.uid.hex, refused=True)
        status.update(refusal={"generation": generation, "code": ack.error_code, "detail": ack.detail[:200]})
        announce(
            EventKind.CONDITION_CHANGED,
            node.name,
            f"{node.name} refused generation {generation}: {ack.detail or ack.error_code}",
            detail={"condition": "SpecApplied", "code": ack.error_code},
            now=now,
        )


def frame_rejected(node_id: int, node_name: str, why: str, *, announce_it: bool, now: datetime) -> None:
    """Count a frame that does not decode; the feed hears of it at most as often as the caller says."""
    logger.warning("frame of %s rejected: %s", node_name, why)
    with transaction.atomic():
        NodeStatus.objects.filter(node_id=node_id).update(rejected_frames_total=F("rejected_frames_total") + 1)
        if announce_it:
            announce(EventKind.FRAME_REJECTED, node_name, f"a frame of {node_name} did not decode: {why}", now=now)


def _announce_online(node: Node, now: datetime) -> None:
    if NodeStatus.objects.filter(node_id=node.pk, announced_online=False).update(announced_online=True):
        announce(EventKind.NODE_ONLINE, node.name, f"{node.name} is online", now=now)


def _announce_offline(node_id: int, why: str, now: datetime) -> bool:
    if not NodeStatus.objects.filter(node_id=node_id, announced_online=True).update(announced_online=False):
        return False
    name = Node.objects.values_list("name", flat=True).get(pk=node_id)
    announce(EventKind.NODE_OFFLINE, name, f"{name} is offline: {why}", detail={"why": why}, now=now)
    return True
