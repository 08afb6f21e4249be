"""Connections to one node: a keep-alive pool of raw protocols, one exchange at a time on each."""

import asyncio
import time
from itertools import takewhile
from typing import Protocol, cast

import httptools

from agents.runtime.router.http import Headers
from agents.runtime.router.limits import Limits
from agents.wire.messages import NodeAddress

_HEAD_BYTES_MAX = 64 * 1024  # of a node's answer: our own nodes send one kilobyte
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class _Unasked(Exception):
    """A node sent something without having been asked."""


class Receiver(Protocol):
    """Who waits for a node's answer."""

    def answer_grew(self, connection: "UpstreamConnection") -> None:
        """More of the body has arrived, in `connection.chunks`, and it is more than is held back."""
        ...

    def answer_ended(self, connection: "UpstreamConnection") -> None:
        """The answer is whole."""
        ...

    def upstream_lost(self, reason: str) -> None:
        """The connection broke, or the node answered nonsense, before the answer was whole."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One keep-alive connection to a node."""

    def __init__(self, pool: "NodePool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        self.status = 0
        self.headers: Headers = []
        self.chunks: list[bytes] = []
        self.body_bytes = 0
        self.idle_since_ns = 0
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._head_done = False
        self._framed = False  # the head says where the body ends
        self._paused = False

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse; anything unasked for or malformed ends the connection."""
        if self.receiver is None:
            self.abort()
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("the node answered something that is not HTTP")
            return
        if self._head_bytes > _HEAD_BYTES_MAX and not self._head_done:
            self._fail("the node's header is too long")

    def eof_received(self) -> bool:
        """Close; `connection_lost` tells the receiver."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool; a waiting receiver hears of it, unless the answer ends at the end of the stream."""
        self.pool.forget(self)
        self.transport = None
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        if self._ends_at_eof() and exc is None:
            receiver.answer_ended(self)
            return
        receiver.upstream_lost(str(exc) if exc else "the node closed the connection")

    # --- httptools ---

    def on_message_begin(self) -> None:
        """A new answer; one that nobody waits for ends the connection, or it would be taken for the next request's."""
        if self.receiver is None:
            raise _Unasked
        self.headers = []
        self.chunks = []
        self.body_bytes = 0
        self._head_done = False
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, its name in lower case."""
        name = name.lower()
        self.headers.append((name, value))
        if name in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()
        self._head_done = True
        self._head_bytes = 0

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.chunks.append(data)
        self.body_bytes += len(data)
        if self.body_bytes > self.pool.hold_bytes and self.receiver is not None:
            self.receiver.answer_grew(self)

    def on_message_complete(self) -> None:
        """Hand over, and return to the pool if the node keeps the connection."""
        if self.status < 200:
            return
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return  # given up while the last of it came
        keep = self._parser.should_keep_alive() and not self._ends_at_eof()
        receiver.answer_ended(self)
        if keep:
            self.pool.put_back(self)
        else:
            self.close()

    # --- use ---

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        """One request; the receiver hears exactly one end."""
        self.receiver = receiver
        self.status = 0
        self._head_done = False
        self._head_bytes = 0
        if self.transport is None or self.transport.is_closing():
            self.receiver = None
            receiver.upstream_lost("the node closed the connection")
        elif body:
            self.transport.writelines([head, body])
        else:
            self.transport.write(head)

    def pause_reading(self, paused: bool) -> None:
        """Hold the node back while the client does not read."""
        if paused is self._paused or self.transport is None or self.transport.is_closing():
            return
        self._paused = paused
        if paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def close(self) -> None:
        """End it in good order."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End it now, without telling the receiver."""
        self.receiver = None
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, reason: str) -> None:
        receiver = self.receiver
        self.abort()
        if receiver is not None:
            receiver.upstream_lost(reason)

    def _ends_at_eof(self) -> bool:
        """An answer without length or chunks ends when the node closes."""
        if not self._head_done or self.status < 200 or self.status in (204, 304):
            return False
        return not self._framed


class NodePool:
    """All connections to one node."""

    def __init__(self, address: NodeAddress, limits: Limits) -> None:
        self.address = address
        self.endpoint = f"{address.host}:{address.port}".encode()
        self.hold_bytes = limits.response_buffer_bytes
        self._limits = limits
        self._idle: dict[UpstreamConnection, None] = {}  # each once, the oldest first; used from the end, so that the rest can age
        self._open: set[UpstreamConnection] = set()
        self._closed = False

    def take_idle(self) -> UpstreamConnection | None:
        """A connection that is ready now."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection; `OSError` (or `TimeoutError`, which is one) when the node does not take it."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._limits.connect_seconds):
            _, connection = await loop.create_connection(lambda: UpstreamConnection(self), self.address.host, self.address.port)
        self._open.add(connection)
        return connection

    def put_back(self, connection: UpstreamConnection) -> None:
        """The connection has nothing to do; saying so twice changes nothing."""
        if connection in self._idle:
            return
        if self._closed or len(self._idle) >= self._limits.upstream_idle_max:
            connection.close()
            return
        connection.pause_reading(False)
        connection.idle_since_ns = time.monotonic_ns()
        self._idle[connection] = None

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def sweep(self, now_ns: int) -> None:
        """Close what has been idle too long; the oldest stand first."""
        oldest_ns = now_ns - int(self._limits.upstream_idle_seconds * 1e9)
        for connection in list(takewhile(lambda one: one.idle_since_ns < oldest_ns, self._idle)):
            del self._idle[connection]
            connection.close()

    def close(self) -> None:
        """Close idle connections now and the others as they end."""
        self._closed = True
        for connection in list(self._idle):
            connection.close()
        self._idle.clear()

    @property
    def open_count(self) -> int:
        """Connections, idle or not."""
        return len(self._open)


class Call:
    """A receiver for the router's own requests to a node: one future, and nothing kept of a long body."""

    def __init__(self) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def answer_grew(self, connection: UpstreamConnection) -> None:
        """Nothing is kept of the body."""
        connection.chunks.clear()

    def answer_ended(self, connection: UpstreamConnection) -> None:
        """The status is the result."""
        if not self.done.done():
            self.done.set_result(connection.status)

    def upstream_lost(self, reason: str) -> None:
        """The node went away."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(reason))


async def post(pool: NodePool, target: bytes, headers: bytes, body: bytes, timeout_seconds: float) -> int:
    """One POST of the router's own; the status, or `OSError`."""
    connection = pool.take_idle() or await pool.connect()
    call = Call()
    head = b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %d\r\n%s\r\n" % (target, pool.endpoint, len(body), headers)
    try:
        async with asyncio.timeout(timeout_seconds):
            connection.send(call, head, body)
            return await call.done
    except TimeoutError:
        connection.abort()
        raise
