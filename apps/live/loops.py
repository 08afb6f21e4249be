"""What a web process does by itself, each loop once a second; every loop outlives its errors.

`store` empties the inbox and re-sends commands nobody has acknowledged to the nodes linked here.
`sweep` ends overrides, announces silent nodes and empties the outbox; any number of processes may do it.
`tick` draws the one fleet frame a second; a lease in Redis says which process does.
`listen` hears of commands for nodes that are linked here.
"""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import InterfaceError, OperationalError
from django.utils import timezone
from redis.exceptions import RedisError

from apps.fleet import actions, observing, queries
from apps.live import snapshots, stream
from apps.live.hub import GROUP, hub
from apps.live.redis_links import async_client
from apps.outbox import dispatch
from apps.telemetry import ingest
from apps.telemetry import queries as telemetry

logger = logging.getLogger(__name__)
PERIOD_SECONDS = 1.0
# After our own start nodes need a moment to dial in again; until then their silence is our doing.
GRACE_SECONDS = 8.0
LEASE_KEY, LEASE_MS = "helm:ticker", 3000
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end"

# Each loop in a thread of its own: a Redis or a database that hangs one must not hang the others.
in_thread = partial(database_sync_to_async, thread_sensitive=False)


class Ticker:
    """Draws fleet frames while it holds the lease."""

    def __init__(self) -> None:
        self._holder = f"{os.getpid()}:{uuid.uuid4().hex}"
        self._changes = snapshots.Changes()
        self._leading = False

    async def turn(self) -> bool:
        """One frame, if the lease is ours; returns whether it was."""
        leading = await self._lease()
        if leading and not self._leading:
            self._changes = snapshots.Changes()
        self._leading = leading
        if leading:
            await in_thread(self.publish)()
        return leading

    def publish(self) -> None:
        """The fleet's frame, and the nodes that changed."""
        now, nodes = timezone.now(), list(queries.nodes())
        stream.publish("fleet.tick", "fleet", telemetry.fleet_document(queries.default_cluster(), nodes, now))
        changed = self._changes.since_last(snapshots.node_states(nodes, now))
        if changed:
            stream.publish("nodes.delta", "nodes", changed)

    async def _lease(self) -> bool:
        redis = async_client()
        if await redis.set(LEASE_KEY, self._holder, nx=True, px=LEASE_MS):
            return True
        return bool(await redis.eval(_RENEW, 1, LEASE_KEY, self._holder, LEASE_MS))  # type: ignore[misc]


async def store() -> None:
    """Rows for what arrived, and commands for whom they still wait."""
    await in_thread(ingest.flush)(hub.inbox, timezone.now())
    for node_id in await in_thread(_nodes_with_open_commands)(hub.node_ids()):
        link = hub.link_of(node_id)
        if link is not None:
            await link.send_spec()


def _nodes_with_open_commands(node_ids: list[int]) -> list[int]:
    if not node_ids:
        return []
    keys = {node.uid.hex: node.pk for node in queries.nodes().filter(pk__in=node_ids)}
    return sorted({keys[message.key] for message in dispatch.open_messages(actions.TOPIC_COMMAND, list(keys))})


def sweeper(started: float) -> Callable[[], Awaitable[None]]:
    """The sweep of a process that started at `started` (monotonic seconds)."""

    async def sweep() -> None:
        await in_thread(_sweep)(time.monotonic() - started > GRACE_SECONDS)

    return sweep


def _sweep(announce: bool) -> None:
    now = timezone.now()
    actions.expire_due(now)
    if announce:
        observing.announce_silent(now)
    dispatch.dispatch_due(now)


async def listen() -> None:
    """Forward commands to the links of this process until cancelled."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(GROUP, channel)
    while True:
        message = await layer.receive(channel)
        link = hub.link_of(message["node_id"])
        if link is not None:
            await link.send_spec()


async def every_second(name: str, turn: Callable[[], Awaitable[object]]) -> None:
    """Call `turn` once a second for ever; an error is said once until it is over."""
    failing = False
    while True:
        began = time.monotonic()
        try:
            await turn()
            if failing:
                logger.warning("%s works again", name)
            failing = False
        except (OSError, RedisError, OperationalError, InterfaceError) as error:
            if not failing:
                logger.warning("%s: %s (tried again every second)", name, error)
            failing = True
        except Exception:
            logger.exception("%s failed", name)
        await asyncio.sleep(max(0.05, PERIOD_SECONDS - (time.monotonic() - began)))


def start_all() -> list["asyncio.Task[None]"]:
    """All loops of a web process."""
    turns: dict[str, Callable[[], Awaitable[object]]] = {
        "store": store,
        "sweep": sweeper(time.monotonic()),
        "tick": Ticker().turn,
        "listen": listen,
    }
    return [asyncio.create_task(every_second(name, turn), name=f"helm-{name}") for name, turn in turns.items()]
