"""The client's side: parse, bound, hand over, write. Requests of one connection are answered in order."""

import asyncio
import time
from collections import deque
from enum import Enum
from typing import Protocol, cast

import httptools

from agents.runtime.router import http
from agents.runtime.router.limits import Limits
from agents.wire.errors import ErrorCode, WireError

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Inbound:
    """One parsed request. `problem` is set when it must be refused and the connection closed."""

    __slots__ = ("body", "first", "headers", "keep_alive", "method", "problem", "request_id", "target", "version")

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version = "1.1"
        self.headers: http.Headers = []
        self.first: dict[bytes, bytes] = {}  # value by name
        self.body = b""
        self.keep_alive = True
        self.problem: WireError | None = None
        self.request_id = b""

    def header(self, name: bytes) -> bytes | None:
        """First value of a header, by lower-case name."""
        return self.first.get(name)

    def text(self, name: bytes) -> str | None:
        """The same as text; bytes beyond ASCII are replaced, no header we read has any."""
        value = self.first.get(name)
        return None if value is None else value.decode("ascii", "replace")


class Work(Protocol):
    """A request being answered, which a departing client can cancel."""

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        ...

    def client_writable(self, writable: bool) -> None:
        """The client reads again, or has stopped reading."""
        ...


class Front(Protocol):
    """What a connection asks of the daemon."""

    limits: Limits
    draining: bool
    now_ns: int  # of the last sweep: near enough for deadlines, which only a sweep enforces

    def opened(self, connection: "ClientConnection") -> bool:
        """Count a connection; False when there are too many."""
        ...

    def closed(self, connection: "ClientConnection") -> None:
        """The connection is gone."""
        ...

    def buffered(self, change_bytes: int) -> bool:
        """Count bytes of bodies held; False when the process holds too many."""
        ...

    def refused(self, error: WireError) -> None:
        """Count a refusal made before a request was whole."""
        ...

    def handle(self, connection: "ClientConnection", request: Inbound) -> Work | None:
        """Answer a request now (None) or later (the work)."""
        ...


class _Phase(Enum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    LINGER = "linger"  # refused: what still comes is thrown away
    CLOSED = "closed"


class ClientConnection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._limits = front.limits
        self.transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _Phase.IDLE
        self._deadline_ns = 0
        self._request = Inbound()
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._unread_bytes = 0  # received since the parser last told of a head, a piece of body or an end
        self._header_bytes = 0  # as parsed
        self._head_whole = False
        self._held_bytes = 0  # counted with the daemon, for this connection
        self._answering_bytes = 0  # the part of it in the request in hand
        self._queue: deque[Inbound] = deque()
        self._work: Work | None = None
        self._busy = False
        self._serving = False
        self._reading = True
        self._write_blocked_ns = 0

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it when there are too many."""
        self.transport = cast(asyncio.Transport, transport)
        if not self._front.opened(self):
            self._refuse(WireError(ErrorCode.QUEUE_FULL, "too many connections"))
            return
        self._arm(_Phase.IDLE, self._limits.idle_seconds)

    def data_received(self, data: bytes) -> None:
        """Parse; whatever is not HTTP is answered 400 and ends the connection."""
        if self._phase in (_Phase.LINGER, _Phase.CLOSED):
            return
        if self._phase is _Phase.IDLE:
            self._arm(_Phase.HEAD, self._limits.head_seconds)
        self._unread_bytes += len(data)
        offer: httptools.HttpParserUpgrade | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            offer = upgrade
        except httptools.HttpParserError as error:
            refusal = error.__context__ if isinstance(error.__context__, WireError) else None
            self._refuse_in_order(refusal or WireError(ErrorCode.INVALID_REQUEST, "not a valid HTTP/1.1 request"))
        else:
            if self._unread_bytes > self._limits.head_bytes_max:  # a header or trailer that never ends, of which we are told nothing
                self._refuse_in_order(self._long_head())
        if offer is not None:  # not above: a refusal raised while this one is handled would lose its reason
            self._decline_upgrade(data[offer.args[0] :])
        self._serve()

    def eof_received(self) -> bool:
        """The client closed. Half-closing clients are not told from departed ones: work for nobody is cancelled.

        One that closed in the middle of a request may still read why it gets no answer.
        """
        if self._phase in (_Phase.HEAD, _Phase.BODY) and not self._busy:
            self._refuse(WireError(ErrorCode.INVALID_REQUEST, "the request ended before it was whole"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what nobody waits for."""
        self._phase = _Phase.CLOSED
        self._queue.clear()
        self._front.buffered(-self._held_bytes)
        self._held_bytes = 0
        self._answering_bytes = 0
        self._chunks = []
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
        self.transport = None
        self._front.closed(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._write_blocked_ns = time.monotonic_ns()
        if self._work is not None:
            self._work.client_writable(False)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_blocked_ns = 0
        if self._work is not None:
            self._work.client_writable(True)

    # --- httptools ---

    def on_message_begin(self) -> None:
        """A new request."""
        self._request = Inbound()
        self._chunks = []
        self._body_bytes = 0
        self._header_bytes = 0
        self._head_whole = False
        if self._phase is _Phase.IDLE:
            self._arm(_Phase.HEAD, self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """The target, in pieces."""
        self._request.target += url
        if len(self._request.target) > self._limits.target_bytes_max:
            raise WireError(ErrorCode.TOO_LARGE, f"the target exceeds {self._limits.target_bytes_max} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, its name in lower case. A trailer is dropped: it comes after the head was judged."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._limits.head_bytes_max:
            raise self._long_head()
        if self._head_whole:
            return
        request = self._request
        headers = request.headers
        name = name.lower()
        headers.append((name, value))
        if name not in request.first:
            request.first[name] = value
        if len(headers) > self._limits.headers_max:
            raise WireError(ErrorCode.TOO_LARGE, f"more than {self._limits.headers_max} headers")

    def on_headers_complete(self) -> None:
        """Decide whether the body may come."""
        self._unread_bytes = 0
        self._head_whole = True
        request = self._request
        request.method = self._parser.get_method()
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        if self._parser.should_upgrade():
            if request.method == b"CONNECT":
                raise WireError(ErrorCode.INVALID_REQUEST, "tunnels are not supported")
            return  # the parser ends the message here: see `_decline_upgrade`
        problem = http.framing_problem(request.headers, request.version)
        if problem is not None:
            raise WireError(ErrorCode.INVALID_REQUEST, problem)
        length = int(request.first.get(b"content-length", b"0"))
        if length > self._limits.body_bytes_max:
            raise self._too_large()
        self._arm(_Phase.BODY, self._limits.body_seconds)
        if b"expect" in request.first and (length or b"transfer-encoding" in request.first):
            self._continue()

    def on_body(self, data: bytes) -> None:
        """A piece of the body, bounded per request and over all clients."""
        self._unread_bytes = 0
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes_max:
            raise self._too_large()
        self._held_bytes += len(data)
        if not self._front.buffered(len(data)):
            raise WireError(ErrorCode.QUEUE_FULL, "the router holds too many request bodies")
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request = self._request
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._queue.append(request)
        self._unread_bytes = 0
        self._arm(_Phase.IDLE, self._limits.idle_seconds)
        if len(self._queue) > self._limits.pipelined_max:
            raise WireError(ErrorCode.QUEUE_FULL, "too many pipelined requests")

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1, as a server may, with a request that offers another protocol: many clients always offer HTTP/2.

        The parser takes what follows such a head for the other protocol. A new one, which is shown the head without
        the offer, takes it for the body that it is.
        """
        offered = self._queue.pop()
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(http.head_without_upgrade(offered.method, offered.target, offered.version, offered.headers) + rest)

    def _continue(self) -> None:
        """Ask, once, for the body that a client holds back; after the answers that it is owed before."""
        if self._busy or self._queue or self._request.first.pop(b"expect", b"").lower() != b"100-continue":
            return
        self._arm(_Phase.BODY, self._limits.body_seconds)
        self.write(_CONTINUE)

    # --- answering ---

    def answered(self, keep_alive: bool) -> None:
        """The request in hand has its whole answer; take the next."""
        self._work = None
        self._busy = False
        self._front.buffered(-self._answering_bytes)
        self._held_bytes -= self._answering_bytes
        self._answering_bytes = 0
        if not keep_alive or self._front.draining:
            self._close()
            return
        if self._phase is _Phase.IDLE:
            self._arm(_Phase.IDLE, self._limits.idle_seconds)
        elif self._phase is _Phase.BODY:
            self._continue()
        self._serve()

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def write_parts(self, parts: list[bytes]) -> None:
        """Send an answer in pieces without joining them."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(parts)

    def abort(self) -> None:
        """End the connection so that the client sees a broken answer rather than a short one."""
        if self.transport is not None:
            self.transport.abort()

    def check(self, now_ns: int) -> None:
        """Called by the daemon's sweep: enforce deadlines."""
        if self.transport is None:
            return
        blocked_ns = self._write_blocked_ns
        if blocked_ns and now_ns - blocked_ns > int(self._limits.write_seconds * 1e9):
            self.abort()
        elif now_ns < self._deadline_ns or self._busy:
            return
        elif self._phase in (_Phase.HEAD, _Phase.BODY):
            what = "headers" if self._phase is _Phase.HEAD else "body"
            self._refuse(WireError(ErrorCode.SLOW_CLIENT, f"the request's {what} did not arrive in time"))
        elif self._phase is _Phase.IDLE:
            self._close()
        else:
            self.abort()

    def drain(self) -> None:
        """The daemon stops: close at once when idle, else after the answer in hand."""
        if not self._busy and not self._queue and self._phase is _Phase.IDLE:
            self._close()

    # --- inside ---

    def _serve(self) -> None:
        if self._serving:
            return  # an answer given at once comes back here: the loop below goes on with the next
        self._serving = True
        while self._queue and not self._busy and self.transport is not None:
            request = self._queue.popleft()
            if request.problem is not None:
                self._refuse(request.problem)
                break
            self._busy = True
            self._answering_bytes = len(request.body)
            work = self._front.handle(self, request)
            if self._busy:
                self._work = work
        self._serving = False
        # keep reading while busy, or a client's departure would go unnoticed; not while it sends ahead
        if self._reading is not (not self._queue):
            self._read(not self._queue)

    def _read(self, wanted: bool) -> None:
        if wanted is self._reading or self.transport is None or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _arm(self, phase: _Phase, seconds: float) -> None:
        self._phase = phase
        self._deadline_ns = self._front.now_ns + int(seconds * 1e9)

    def _long_head(self) -> WireError:
        return WireError(ErrorCode.TOO_LARGE, f"headers exceed {self._limits.head_bytes_max} bytes")

    def _too_large(self) -> WireError:
        return WireError(ErrorCode.TOO_LARGE, f"the request body exceeds {self._limits.body_bytes_max} bytes")

    def _refuse_in_order(self, error: WireError) -> None:
        """Refuse after the answers that the client is still owed."""
        refusal = Inbound()
        refusal.problem = error
        self._queue.append(refusal)
        self._arm(_Phase.LINGER, self._limits.linger_seconds + self._limits.request_seconds)

    def _refuse(self, error: WireError) -> None:
        self._front.refused(error)
        self.write(http.answer(error.status, http.error_body(error.detail), b"application/json", http.refusal_lines(error), False))
        self._queue.clear()
        self._linger()

    def _linger(self) -> None:
        self._arm(_Phase.LINGER, self._limits.linger_seconds)
        if self.transport is not None and not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._read(True)

    def _close(self) -> None:
        """Close once what was written is read, or is never going to be."""
        if self.transport is not None:
            self._arm(_Phase.LINGER, self._limits.write_seconds)
            self.transport.close()
