"""Listening to one node: its residency stream is what the router knows and the sign that it lives.

The stream begins with a snapshot or the missing range and goes on with changes and five load reports
a second. When it breaks, or is silent for too long, or says something unsound, the node is gone at
once and is dialled again until it answers.
"""

import asyncio
import math
import random
from typing import Protocol

import httptools
import msgspec
import structlog

from agents.runtime.router.limits import Limits
from agents.wire.messages import NodeAddress, NodeLoad, ResidencyDelta, ResidencyFrame, ResidencySnapshot, UsersSeen

log = structlog.get_logger("router")
_READ_BYTES = 256 * 1024
_REPAIR_PAUSE_SECONDS = 0.05  # a node that never closes the gap is not dialled in a tight loop
_TOKENS_MAX = 2**31 - 1
_KEY_MAX = 2**64 - 1
RESIDENT_MAX = 262_144  # users in one frame: four times the pages of the largest profile, and all copies that a router keeps
SEEN_MAX = 65_536  # users in one frame: sixteen times what a node of ours keeps
_NAME_CHARACTERS_MAX = 128
_LOAD_MS_MAX = 3_600_000.0  # an hour of queue, or of work for one row: no node takes on that much, and sums stay small
_RATIOS = ("emb_hit_ratio", "kv_hit_compute_ratio")


class StreamError(Exception):
    """The stream cannot be used any further."""


class Knowledge(Protocol):
    """What is asked of the router itself."""

    def users_refused(self, index: int) -> int:
        """See `Router.users_refused`."""
        ...


class Listener(Protocol):
    """What becomes of a node's frames; plain or recorded router with the daemon around it."""

    @property
    def brain(self) -> Knowledge:
        """The router."""
        ...

    def heard_load(self, index: int, load: NodeLoad) -> None:
        """A load report."""
        ...

    def heard_residency(self, index: int, frame: ResidencySnapshot | ResidencyDelta) -> bool:
        """What the node holds; True when frames are missing before this one."""
        ...

    def heard_seen(self, seen: UsersSeen) -> None:
        """Users that the node served, by this router or another."""
        ...

    def sequence(self, index: int) -> int:
        """Last sequence number applied."""
        ...

    def lost(self, index: int, reason: str) -> None:
        """The stream has ended."""
        ...


class FrameReader:
    """Bytes of a chunked HTTP answer in, checked frames out."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._parser = httptools.HttpResponseParser(self)
        self._decoder = msgspec.msgpack.Decoder(ResidencyFrame)
        self._buffer = bytearray()
        self._ended = False
        self._refused = 0

    def on_headers_complete(self) -> None:
        """Only a 200 is a stream."""
        status = self._parser.get_status_code()
        self._refused = 0 if status == 200 else status

    def on_body(self, data: bytes) -> None:
        """A chunk; frames do not respect chunk borders."""
        self._buffer += data

    def on_message_complete(self) -> None:
        """The node ended the stream."""
        self._ended = True

    def feed(self, data: bytes) -> list[ResidencyFrame]:
        """All frames completed by `data`; `StreamError` when there can be no more."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise StreamError("the node's answer is not HTTP") from error
        if self._refused:
            raise StreamError(f"the node refused the stream with status {self._refused}")
        frames = self._frames()
        if self._ended and not frames:
            raise StreamError("the node ended the stream")
        return frames

    def _frames(self) -> list[ResidencyFrame]:
        frames: list[ResidencyFrame] = []
        start = 0
        while len(self._buffer) - start >= 4:
            length = int.from_bytes(self._buffer[start : start + 4], "big")
            if length > self._frame_bytes_max:
                raise StreamError(f"a frame of {length} bytes")
            if len(self._buffer) - start - 4 < length:
                break
            frames.append(self._decode(bytes(self._buffer[start + 4 : start + 4 + length])))
            start += 4 + length
        del self._buffer[:start]
        return frames

    def _decode(self, data: bytes) -> ResidencyFrame:
        try:
            frame: ResidencyFrame = self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise StreamError(f"a frame that does not decode: {error}") from error
        problem = problem_of(frame)
        if problem is not None:
            raise StreamError(problem)
        return frame


def problem_of(frame: ResidencyFrame) -> str | None:
    """Why a frame cannot be used."""
    if isinstance(frame, NodeLoad):
        return load_problem(frame)
    return seen_problem(frame) if isinstance(frame, UsersSeen) else residency_problem(frame)


def seen_problem(seen: UsersSeen) -> str | None:
    """Why a list of users cannot be used."""
    if len(seen.user_keys) != len(seen.ages_ms):
        return "user_keys and ages_ms must be of equal length"
    if len(seen.user_keys) > SEEN_MAX:
        return f"at most {SEEN_MAX} users are told of at once"
    if any(not 0 < key <= _KEY_MAX for key in seen.user_keys):
        return "user_keys must be 64-bit and not 0"
    return None if all(0 <= age <= _TOKENS_MAX for age in seen.ages_ms) else "ages_ms must be 32-bit and >= 0"


def load_problem(load: NodeLoad) -> str | None:
    """Why a report cannot be used: one NaN here would silence the picker for every request."""
    for name in load.__struct_fields__:
        value = getattr(load, name)
        if isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value < 2**63):
            return f"{name} must be finite and >= 0"
        if "ms" in name.split("_") and value > _LOAD_MS_MAX:
            return f"{name} must be at most {_LOAD_MS_MAX:.0f}"
    for name in ("model_version", "profile"):
        if len(getattr(load, name)) > _NAME_CHARACTERS_MAX:
            return f"{name} must have at most {_NAME_CHARACTERS_MAX} characters"
    beyond = next((name for name in _RATIOS if getattr(load, name) > 1.0), None)
    return None if beyond is None else f"{beyond} must be at most 1"


def residency_problem(frame: ResidencySnapshot | ResidencyDelta) -> str | None:
    """Why a residency frame cannot be used."""
    if len(frame.user_keys) != len(frame.cached_tokens):
        return "user_keys and cached_tokens must be of equal length"
    if len(frame.user_keys) > RESIDENT_MAX:
        return f"at most {RESIDENT_MAX} resident users are told of at once"
    if not 0 <= frame.seq < 2**62 or (isinstance(frame, ResidencyDelta) and not 0 <= frame.seq_first <= frame.seq):
        return "sequence numbers must be ordered and >= 0"
    if any(not 0 < key <= _KEY_MAX for key in frame.user_keys):
        return "user_keys must be 64-bit and not 0"
    if any(not 0 <= tokens <= _TOKENS_MAX for tokens in frame.cached_tokens):
        return "cached_tokens must be 32-bit and >= 0"
    return None


async def listen(index: int, address: NodeAddress, key: str, listener: Listener, limits: Limits, chance: random.Random) -> None:
    """Keep one node's stream for ever; ends by cancellation only."""
    while True:
        pause_seconds = limits.reconnect_seconds * chance.uniform(0.5, 1.5)
        try:
            await _follow(index, address, key, listener, limits)
            pause_seconds = _REPAIR_PAUSE_SECONDS  # a gap: ask for the missing range
        except (OSError, StreamError) as error:  # TimeoutError is an OSError
            listener.lost(index, str(error) or type(error).__name__)
        await asyncio.sleep(pause_seconds)


async def _follow(index: int, address: NodeAddress, key: str, listener: Listener, limits: Limits) -> None:
    """Hand over frames of one connection; returns when frames are missing, raises when the stream ends."""
    async with asyncio.timeout(limits.connect_seconds):
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=_READ_BYTES)
    try:
        writer.write(_request(address, key, listener.sequence(index)))
        frames = FrameReader(limits.frame_bytes_max)
        refused = listener.brain.users_refused(index)
        while True:
            async with asyncio.timeout(limits.silence_seconds):
                data = await reader.read(_READ_BYTES)
            if not data:
                raise StreamError("the node closed the stream")
            for frame in frames.feed(data):
                if isinstance(frame, NodeLoad):
                    listener.heard_load(index, frame)
                elif isinstance(frame, UsersSeen):
                    listener.heard_seen(frame)
                elif listener.heard_residency(index, frame):
                    return
            refused = _warn_of_excess(address, refused, listener.brain.users_refused(index))
    finally:
        writer.close()


def _warn_of_excess(address: NodeAddress, before: int, refused: int) -> int:
    """A line the first time that a node tells of more users than it may hold; the rest is counted, and what it may hold is kept."""
    if refused > before == 0:
        log.warning("node tells of more users than its share of the table", node=address.name, refused=refused)
    return refused


def _request(address: NodeAddress, key: str, sequence: int) -> bytes:
    lines = [
        f"GET /v1/residency?from={sequence} HTTP/1.1",
        f"host: {address.host}:{address.port}",
        f"authorization: Bearer {key}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()
