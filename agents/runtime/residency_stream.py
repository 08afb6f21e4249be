"""What a node tells one router: residency changes as they happen, its load and whom it served five times a second.

The reader's place in the node's residency log is all that is buffered for it; a change is encoded
when the reader has room for it. One that does not drain in time is cut, and resumes from its own
sequence number, with a snapshot when the log no longer reaches back.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable

import msgspec

from agents.runtime.engine import Engine

LOAD_SECONDS = 0.2
DRAIN_SECONDS_MAX = 5.0  # 25 load frames behind: what such a reader knows is no longer knowledge
SUBSCRIBERS_MAX = 16  # routers of one fleet; each costs one encoding per change
WRITE_BUFFER_BYTES = 262_144  # a snapshot of the largest demo pool fits; beyond it the reader sets the pace
SNAPSHOT_SEQ = -1  # "I know nothing"

_ENCODER = msgspec.msgpack.Encoder()
_LENGTH = struct.Struct(">I")


def frame(message: msgspec.Struct) -> bytes:
    """One frame of the stream: length, then msgpack."""
    body = _ENCODER.encode(message)
    return _LENGTH.pack(len(body)) + body


async def stream_residency(engine: Engine, seq: int, write: Callable[[bytes], Awaitable[None]]) -> None:
    """Feed one reader until it is cut (`TimeoutError`), goes away (`ConnectionError`) or the task is cancelled.

    It begins with what is missing since `seq`; a reader that misses nothing begins with the load.
    """
    changed = asyncio.Event()
    engine.residency_watchers.add(changed)
    loop = asyncio.get_running_loop()
    load_at = loop.time()
    told = 0  # number of the last user told of
    try:
        while True:
            changed.clear()
            chunk = b""
            news = engine.residency_since(seq)
            if news is not None:
                seq = news.seq
                chunk += frame(news)
            if loop.time() >= load_at:
                told, seen = engine.seen_since(told)
                chunk += b"" if seen is None else frame(seen)
                chunk += frame(engine.load())
                load_at = loop.time() + LOAD_SECONDS
            if chunk:
                async with asyncio.timeout(DRAIN_SECONDS_MAX):
                    await write(chunk)
            await _either(changed, load_at - loop.time())
    finally:
        engine.residency_watchers.discard(changed)


async def _either(changed: asyncio.Event, seconds: float) -> None:
    """Wait for a change, at most until the next load is due."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await changed.wait()
    except TimeoutError:
        return
