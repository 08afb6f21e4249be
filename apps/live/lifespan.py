"""The server's life: loops start with it and end with it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from channels.db import database_sync_to_async
from django.utils import timezone

from apps.live import loops
from apps.live.hub import hub
from apps.telemetry import ingest

logger = logging.getLogger(__name__)


async def lifespan(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """ASGI lifespan: start the loops, wait for the end, store what still waits."""
    await receive()
    tasks = loops.start_all()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await database_sync_to_async(ingest.flush)(hub.inbox, timezone.now())
    await send({"type": "lifespan.shutdown.complete"})
