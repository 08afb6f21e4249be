"""The operators' stream: one Redis stream for all web processes, the channel layer for the news of it.

Every message of the group carries its own number and the one before it. A console that finds a
gap reads the missing part from the stream, so order is kept, nothing is lost and nothing comes
twice, whichever process wrote it. A number is the Redis stream's id; ten minutes are kept.

Envelope: `{"seq", "type", "ts", "topic", "data"}`. Types: `snapshot` (on connect), `fleet.tick`,
`nodes.delta` (1 Hz), `event`, `job.progress`, `training.progress`, and `resync` (what was missed is gone: read again).
"""

import time
from typing import Any, NamedTuple

import msgspec
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.utils import timezone

from apps.fleet.queries import iso
from apps.live.redis_links import sync_client

KEY = "helm:stream"
GROUP = "helm.stream"
KEEP_MS = 10 * 60 * 1000
TOPICS = ("fleet", "nodes", "events", "jobs")
REPLAY_MAX = 20_000  # ten minutes of two frames a second and a storm of events; more than that is a resync

# Appending and learning the number before it must be one step, or two writers would leave a gap that is none.
_APPEND = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local prev = last[1] and last[1][1] or '0-0'
local id = redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[1], '*', 't', ARGV[2], 'b', ARGV[3])
return {prev, id}
"""


class Entry(NamedTuple):
    """One message of the stream; `body` is the envelope without its number."""

    seq: str
    topic: str
    body: str


def publish(kind: str, topic: str, data: Any) -> str:
    """Append to the stream and tell every process; returns the number. Raises when Redis is away."""
    body = body_of(kind, topic, data)
    oldest = str(int(time.time() * 1000) - KEEP_MS)
    prev, seq = sync_client().eval(_APPEND, 1, KEY, oldest, topic, body)  # type: ignore[misc]
    message = {"type": "stream.entry", "prev": prev.decode(), "seq": seq.decode(), "topic": topic, "body": body}
    async_to_sync(get_channel_layer().group_send)(GROUP, message)
    return str(seq.decode())


def body_of(kind: str, topic: str, data: Any) -> str:
    """An envelope without its number, as JSON."""
    envelope = {"type": kind, "ts": iso(timezone.now()), "topic": topic, "data": data}
    return msgspec.json.encode(envelope).decode()


def with_seq(body: str, seq: str | None) -> str:
    """The envelope with its number."""
    number = "null" if seq is None else f'"{seq}"'
    return f'{{"seq":{number},{body[1:]}'


def order(seq: str) -> tuple[int, int]:
    """Numbers as they sort; `ValueError` for what is none."""
    head, _, tail = seq.partition("-")
    return int(head), int(tail or 0)


def entry_of(row: tuple[bytes, dict[bytes, bytes]]) -> Entry:
    """A row of XRANGE."""
    seq, fields = row
    return Entry(seq.decode(), fields[b"t"].decode(), fields[b"b"].decode())
