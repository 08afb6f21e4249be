"""`/agents/v1/link`: a node's WebSocket. Frames in, commands out; it needs the database, not Redis.

The first frame is a Hello. A frame that does not decode is counted and logged, and the link stays.
"""

import asyncio
import logging
import time
import uuid
from datetime import datetime
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.utils import timezone

from agents.wire.messages import WIRE_VERSION, Ack, Hello, SpecCommand
from apps.fleet import observing, queries
from apps.fleet.models import Node
from apps.lib.secrets import digest
from apps.live.hub import hub
from apps.live.sockets import bearer
from apps.telemetry import frames
from apps.telemetry.ingest import Received

logger = logging.getLogger(__name__)
UNAUTHENTICATED, NO_HELLO, WRONG_VERSION, REPLACED = 4401, 4400, 4406, 4409
SERVER_LEAVES = {1001, 1012}  # our own shutdown closes links with these; the nodes are fine
HELLO_SECONDS = 10.0
ANNOUNCE_REJECTED_SECONDS = 60.0  # a node that babbles fills its counter, not the feed
RESEND_SECONDS = 2.0


class AgentLink(AsyncWebsocketConsumer):
    """One node's connection."""

    channel_layer_alias = "none: a link must outlive Redis"
    groups: list[str] = []

    async def connect(self) -> None:
        """Only with a node's credential."""
        self.node_id, self.node_name, self.uid = 0, "", ""
        self.link_id, self.greeted = uuid.uuid4().hex, False
        self._sent: tuple[int, float] = (0, 0.0)  # generation, when
        self._announced_at = -ANNOUNCE_REJECTED_SECONDS
        node = await self._node_of(bearer(self.scope))
        if node is None:
            return await self.close(UNAUTHENTICATED)
        self.node_id, self.node_name, self.uid = node.pk, node.name, node.uid.hex
        await self.accept()
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_SECONDS, self._give_up)
        return None

    async def disconnect(self, code: int) -> None:
        """The node is gone at once, unless it is we who leave or it has already dialled in anew."""
        if not self.node_id:
            return
        self._hello_timer.cancel()
        hub.leave(self.node_id, self)
        if self.greeted:
            await database_sync_to_async(observing.link_closed)(self.node_id, self.link_id, timezone.now(), quietly=code in SERVER_LEAVES)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """One frame: decoded, then to whom it concerns."""
        now = timezone.now()
        try:
            if bytes_data is None:
                raise frames.FrameError("a text frame; frames are msgpack")
            frame = frames.decode(bytes_data)
            self._check_sender(frame)
        except frames.FrameError as error:
            await self._reject(str(error), now)
            return
        if isinstance(frame, Hello):
            await self._greet(frame, now)
        elif isinstance(frame, Ack):
            await self._acknowledge(frame, now)
        else:
            hub.inbox.put(Received(self.node_id, self.node_name, now, frame))

    async def send_spec(self) -> None:
        """Send the desired state as it is now. The newest generation wins; the node refuses older ones."""
        node = await database_sync_to_async(lambda: queries.nodes().get(pk=self.node_id))()
        generation, sent_at = self._sent
        if generation == node.generation and time.monotonic() - sent_at < RESEND_SECONDS:
            return
        self._sent = (node.generation, time.monotonic())
        command = SpecCommand(command_id=f"{self.uid}:{node.generation}", spec=queries.wire_spec(node, timezone.now()))
        await self.send(bytes_data=msgspec.msgpack.encode(command))

    async def _greet(self, hello: Hello, now: datetime) -> None:
        if hello.wire_version != WIRE_VERSION:
            await self._reject(f"wire version {hello.wire_version}, this control plane speaks {WIRE_VERSION}", now)
            await self.close(WRONG_VERSION)
            return
        self._hello_timer.cancel()
        self.greeted = True
        before = hub.join(self.node_id, self)
        greeting = await database_sync_to_async(observing.link_opened)(self.node_id, self.link_id, hello, now)
        if before is not None and before is not self:
            await before.close(REPLACED)
        if greeting.send_spec:
            await self.send_spec()

    async def _acknowledge(self, ack: Ack, now: datetime) -> None:
        uid, _, generation = ack.command_id.rpartition(":")
        if uid != self.uid or not generation.isdecimal() or len(generation) > 18:
            await self._reject(f"command_id: {ack.command_id[:80]!r} is none of ours", now)
            return
        await database_sync_to_async(observing.acknowledge)(self.node_id, int(generation), ack, now)

    def _check_sender(self, frame: Any) -> None:
        if getattr(frame, "name", self.node_name) != self.node_name:
            raise frames.FrameError(f"name: {frame.name!r} on the link of {self.node_name}")
        if not self.greeted and not isinstance(frame, Hello):
            raise frames.FrameError("the first frame must be a hello")

    async def _reject(self, why: str, now: datetime) -> None:
        announce_it = time.monotonic() - self._announced_at >= ANNOUNCE_REJECTED_SECONDS
        if announce_it:
            self._announced_at = time.monotonic()
        await database_sync_to_async(observing.frame_rejected)(
            self.node_id, self.node_name, why[:200].replace("\x00", ""), announce_it=announce_it, now=now
        )

    def _give_up(self) -> None:
        self._closing = asyncio.ensure_future(self.close(NO_HELLO))

    @database_sync_to_async
    def _node_of(self, credential: str) -> Node | None:
        return queries.node_by_credential(digest(credential)) if credential else None
