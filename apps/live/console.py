"""`/api/v1/stream`: a console's WebSocket. Authenticate, subscribe, forward."""

import asyncio
import logging
import time
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import AnonymousUser
from redis.exceptions import RedisError

from apps.accounts.authentication import token_of
from apps.accounts.policies import actor_of, may
from apps.audit.actions import Actor
from apps.lib.permissions import Permission
from apps.live import snapshots, stream
from apps.live.redis_links import async_client
from apps.live.sockets import bearer, same_origin

logger = logging.getLogger(__name__)
SLOW_SECONDS = 15.0  # what queues up meanwhile for one console: some thirty frames
UNAUTHENTICATED, FORBIDDEN, BAD_REQUEST, TRY_LATER = 4401, 4403, 4400, 1013


class ConsoleStream(AsyncWebsocketConsumer):
    """One console."""

    groups: list[str] = []

    async def connect(self) -> None:
        """Who, which topics, from where; then a snapshot or what was missed."""
        await self.accept()
        actor = await self._actor()
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        self.topics = set(query.get("topics", [",".join(stream.TOPICS)])[-1].split(",")) - {""}
        resume_from = query.get("resume_from", [""])[-1]
        if not same_origin(self.scope) or (actor.name and not may(actor, Permission.FLEET_READ)):
            return await self.close(FORBIDDEN, "not allowed")
        if not actor.name:
            return await self.close(UNAUTHENTICATED, "sign in first")
        if not self.topics <= set(stream.TOPICS) or not _is_seq(resume_from):
            return await self.close(BAD_REQUEST, "unknown topic or number")
        try:
            await self._begin(actor, resume_from)
        except (OSError, RedisError) as error:
            logger.warning("a console could not subscribe: %s", error)
            await self.close(TRY_LATER, "the stream is away")
        return None

    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        try:
            await self.channel_layer.group_discard(stream.GROUP, self.channel_name)
        except (OSError, RedisError) as error:
            logger.info("a console left while Redis was away: %s", error)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A console has nothing to say; verbs go over REST."""

    async def stream_entry(self, message: dict[str, Any]) -> None:
        """News from the channel layer: forward it, or first fetch what was missed before it."""
        if stream.order(message["seq"]) <= stream.order(self.last_seq):
            return
        if stream.order(message["prev"]) > stream.order(self.last_seq):
            await self._catch_up()
            return
        await self._forward(stream.Entry(message["seq"], message["topic"], message["body"]))

    async def _begin(self, actor: Actor, resume_from: str) -> None:
        redis = async_client()
        # Subscribed first: what is published meanwhile has a later number and is forwarded after the snapshot.
        await self.channel_layer.group_add(stream.GROUP, self.channel_name)
        newest = await redis.xrevrange(stream.KEY, count=1)
        newest_seq = newest[0][0].decode() if newest else "0-0"
        if resume_from and await self._may_resume(resume_from, newest_seq):
            self.last_seq = resume_from
            await self._catch_up()
            return
        self.last_seq = newest_seq
        if resume_from:
            await self.send(stream.with_seq(stream.body_of("resync", "fleet", {}), self.last_seq))
        data = await database_sync_to_async(snapshots.snapshot)(self.topics, actor)
        await self.send(stream.with_seq(stream.body_of("snapshot", "snapshot", data), self.last_seq))

    async def _may_resume(self, resume_from: str, newest_seq: str) -> bool:
        """Only if nothing after it has been trimmed, and it is not from another life of the stream."""
        oldest = await async_client().xrange(stream.KEY, count=1)
        if not oldest or stream.order(resume_from) > stream.order(newest_seq):
            return False
        fresh = stream.order(resume_from)[0] >= int(time.time() * 1000) - stream.KEEP_MS
        return fresh and stream.order(oldest[0][0].decode()) <= stream.order(resume_from)

    async def _catch_up(self) -> None:
        rows = await async_client().xrange(stream.KEY, min=f"({self.last_seq}", count=stream.REPLAY_MAX)
        for row in rows:
            await self._forward(stream.entry_of(row))

    async def _forward(self, entry: stream.Entry) -> None:
        self.last_seq = entry.seq
        if entry.topic not in self.topics:
            return
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await self.send(stream.with_seq(entry.body, entry.seq))
        except TimeoutError:
            logger.info("a console reads too slowly: closed, it may resume")
            await self.close(TRY_LATER, "too slow")

    @database_sync_to_async
    def _actor(self) -> Actor:
        token = token_of(bearer(self.scope)) if bearer(self.scope) else None
        user = token.owner if token else self.scope.get("user", AnonymousUser())
        return actor_of(user, token)


def _is_seq(text: str) -> bool:
    try:
        stream.order(text or "0-0")
    except ValueError:
        return False
    return True
