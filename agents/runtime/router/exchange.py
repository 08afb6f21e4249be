"""One proxied request from pick to last byte: the retries, and when they are over.

A request is tried on another node when its node breaks before a byte was forwarded: never twice on
the same, at most `retries_max` times, within the router's budget, after a short random pause, and only
if doing it twice does no harm. Answers are held back until whole (up to a bound), so that a node dying
in the middle of one costs the client nothing. A node's own "busy" (429, 503) is tried once elsewhere,
then passed on.
"""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agents.router.router import Pick
from agents.router.state import Filter
from agents.runtime.router import http
from agents.runtime.router.facts import RequestFacts
from agents.runtime.router.guards import Breakers, RetryBudget
from agents.runtime.router.limits import Limits
from agents.runtime.router.server import ClientConnection, Inbound
from agents.runtime.router.steering import Bars, together
from agents.runtime.router.upstream import NodePool, UpstreamConnection
from agents.wire.errors import ErrorCode, WireError

_BUSY = (429, 503)
_NOBODY = WireError(ErrorCode.NO_READY_NODE, "no node is ready")
_NOBODY_ALLOWED = WireError(ErrorCode.NO_READY_NODE, "no node that this request may go to is ready")


class Brain(Protocol):
    """The verbs of `agents.router.Router` that an exchange uses, plain or recorded."""

    def pick(
        self,
        now_ns: int,
        user_key: int,
        history_tokens: int,
        candidates: int,
        barred: NDArray[np.int8] | None = None,
        retry_gap_ns: int | None = None,
    ) -> Pick:
        """See `Router.pick`."""
        ...

    def completed(self, now_ns: int, reservation: int, latency_ms: float | None, failed: bool = False) -> bool:
        """See `Router.completed`."""
        ...


class Desk(Protocol):
    """What an exchange needs of the daemon."""

    limits: Limits
    draining: bool
    pools: list[NodePool]
    breakers: Breakers
    budget: RetryBudget

    @property
    def brain(self) -> Brain:
        """Who picks."""
        ...

    def timed_pick(self, exchange: "Exchange", barred: NDArray[np.int8]) -> Pick:
        """Pick and record what it took."""
        ...

    def blind_pick(self, exchange: "Exchange", own: Bars) -> int:
        """A node for a request that no node is known to be ready for; -1 when the router fails closed."""
        ...

    def later(self, retry: Callable[[], None]) -> None:
        """Call back after a short, random pause."""
        ...

    def answered(self, exchange: "Exchange", choice: Pick, headers: http.Headers, latency_ms: float) -> None:
        """A node's good answer, to be held against what was predicted of it."""
        ...

    def spawn_connect(self, exchange: "Exchange", pool: NodePool) -> None:
        """Open a connection in the background; the exchange hears `connected` or `upstream_lost`."""
        ...

    def finished(self, exchange: "Exchange", status: int) -> None:
        """Count the end of an exchange; 0 when the client went away."""
        ...


class Exchange:
    """State of one proxied request. Receives its node's answer."""

    def __init__(
        self, desk: Desk, client: ClientConnection, request: Inbound, facts: RequestFacts, teaches: bool, bars: Bars | None = None
    ) -> None:
        self._desk = desk
        self._client = client
        self.request = request
        self.facts = facts
        self._teaches = teaches  # whether its latency says something about the predictor
        self.started_ns = time.monotonic_ns()
        self.deadline_ns = 0
        self.attempts = 0
        self.retry_gap_ns: int | None = None
        self.choice: Pick | None = None
        self.first_choice: Pick | None = None
        self._sent_ns = 0
        self._bars = bars  # where the request's own words keep it from
        self._tried: Bars | None = None
        self._pausing = False  # between a failed attempt and the next one
        self._connection: UpstreamConnection | None = None
        self._streaming = False
        self._chunked = False
        self._busy_elsewhere = False
        self._done = False

    # --- attempts ---

    def start(self) -> None:
        """First attempt."""
        if not self._attempt():
            self._refuse(_NOBODY if self._bars is None else _NOBODY_ALLOWED)

    def _pick(self) -> Pick:
        choice = self._desk.timed_pick(self, together(self._desk.breakers.mask, self._bars, self._tried))
        if choice.found:
            return choice
        own = together(np.zeros(len(self._desk.pools), dtype=np.int8), self._bars, self._tried)
        return choice._replace(node_index=self._desk.blind_pick(self, own))

    def _attempt(self) -> bool:
        """Pick and send; False when there is nobody to send to."""
        breakers = self._desk.breakers
        choice = self._pick()
        if not choice.found:
            return False
        self.choice = choice
        if self.first_choice is None:
            self.first_choice = choice
        self.retry_gap_ns = choice.reuse_gap_ns
        self.attempts += 1
        breakers.picked(choice.node_index)
        limits = self._desk.limits
        self._sent_ns = time.monotonic_ns()
        overall_ns = self.started_ns + int(limits.request_seconds * 1e9)
        self.deadline_ns = min(self._sent_ns + int(limits.attempt_seconds * 1e9), overall_ns)
        pool = self._desk.pools[choice.node_index]
        connection = pool.take_idle()
        if connection is not None:
            self.connected(connection)
        else:
            self._desk.spawn_connect(self, pool)
        return True

    def connected(self, connection: UpstreamConnection, attempt: int | None = None) -> None:
        """A connection to the picked node is there; `attempt` tells a late one from the one waited for."""
        if self._done or self._pausing or (attempt is not None and attempt != self.attempts):
            connection.pool.put_back(connection)
            return
        self._connection = connection
        connection.send(self, self._head(connection.pool), self.request.body)

    def _head(self, pool: NodePool) -> bytes:
        request = self.request
        choice = self.choice
        lines = [
            b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (request.method, request.target, pool.endpoint),
            b"x-request-id: %s\r\n" % request.request_id,
            http.forwarded_lines(request.headers),
        ]
        if request.body or request.method == b"POST":
            lines.append(b"content-length: %d\r\n" % len(request.body))
        if choice is not None and choice.reuse_gap_ns >= 0:
            lines.append(b"x-helm-reuse-gap-ms: %d\r\n" % (choice.reuse_gap_ns // 1_000_000))
        if choice is not None and choice.resident_elsewhere:
            lines.append(b"x-helm-resident-elsewhere: 1\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _retry(self, otherwise: Callable[[], None]) -> None:
        """Another node after a pause, if the request may have one; else what is left. The one in hand is released already."""
        choice = self.choice
        if choice is None or not self._may_retry() or not self._desk.budget.take():
            otherwise()
            return
        if self._tried is None:
            self._tried = np.zeros(len(self._desk.pools), dtype=np.int8)
        self._tried[choice.node_index] = Filter.EXCLUDED
        self._pausing = True

        def again() -> None:
            if self._done:
                return
            self._pausing = False
            if not self._attempt():
                otherwise()

        self._desk.later(again)

    def _may_retry(self) -> bool:
        limits = self._desk.limits
        if self._streaming or self.attempts > limits.retries_max or not self._is_idempotent():
            return False
        return time.monotonic_ns() < self.started_ns + int(limits.request_seconds * 1e9)

    def _is_idempotent(self) -> bool:
        """Reading and scoring change nothing; a POST to anything else of the protocol might."""
        return self.request.method == b"GET" or self._teaches

    # --- the node's answer ---

    def answer_grew(self, connection: UpstreamConnection) -> None:
        """Hold the answer back until it is whole or too big to hold."""
        if self._done:
            connection.chunks.clear()
            return
        if not self._streaming and connection.body_bytes > self._desk.limits.response_buffer_bytes:
            self._begin_streaming(connection)
        if self._streaming:
            self._stream(connection)

    def answer_ended(self, connection: UpstreamConnection) -> None:
        """The answer is whole: pass it on, or try another node when this one is busy."""
        if self._done:
            return
        self._connection = None
        status = connection.status
        self._release(status, connection.headers)
        if self._streaming:
            self._stream(connection)
            if self._chunked:
                self._client.write(b"0\r\n\r\n")
            self._finish(status, self._keep_alive())
            return
        if status in _BUSY and not self._busy_elsewhere:
            self._busy_elsewhere = True
            headers, chunks = connection.headers, connection.chunks
            self._retry(otherwise=lambda: self._pass_on(status, headers, chunks))
            return
        self._pass_on(status, connection.headers, connection.chunks)

    def _pass_on(self, status: int, headers: http.Headers, chunks: list[bytes]) -> None:
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        keep = self._keep_alive()
        lines = [
            http.status_line(status),
            http.returned_lines(headers),
            b"content-length: %d\r\n" % len(body),
            self._own_lines(keep),
            b"\r\n",
        ]
        self._client.write_parts([b"".join(lines), body] if body else [b"".join(lines)])
        self._finish(status, keep)

    def _begin_streaming(self, connection: UpstreamConnection) -> None:
        self._streaming = True
        length = next((value for name, value in connection.headers if name == b"content-length"), None)
        self._chunked = length is None
        framing = b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %s\r\n" % length
        if self._chunked and self.request.version == "1.0":
            self._chunked, framing = False, b""  # ends with the connection
            self.request.keep_alive = False
        own = self._own_lines(self._keep_alive())
        self._client.write(b"".join([http.status_line(connection.status), http.returned_lines(connection.headers), framing, own, b"\r\n"]))

    def _stream(self, connection: UpstreamConnection) -> None:
        for chunk in connection.chunks:
            self._client.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        connection.chunks.clear()

    def _own_lines(self, keep: bool) -> bytes:
        lines = [b"x-request-id: %s\r\n" % self.request.request_id]
        if self.choice is not None and self.first_choice is not None:
            served = self._desk.pools[self.choice.node_index].endpoint
            lines.append(b"x-gateway-destination-endpoint: %s\r\n" % self._desk.pools[self.first_choice.node_index].endpoint)
            lines.append(b"x-gateway-destination-endpoint-served: %s\r\n" % served)
            lines.append(b"x-helm-predicted-ms: %.3f\r\n" % self.choice.predicted_ms)
        if self.attempts > 1:
            lines.append(b"x-helm-retries: %d\r\n" % (self.attempts - 1))
        lines.append(http.connection_line(self.request.version, keep))
        return b"".join(lines)

    def _keep_alive(self) -> bool:
        return self.request.keep_alive and not self._desk.draining

    # --- failures ---

    def upstream_lost(self, reason: str) -> None:
        """The node broke off, could not be reached or did not answer in time."""
        if self._done or self._pausing:
            return
        self._connection = None
        self._fail_choice(time.monotonic_ns())
        if self._streaming:
            self._finish(0, False)
            self._client.abort()  # a broken answer must look broken
            return
        failure = WireError(ErrorCode.NODE_FAILED, f"the node failed and the request could not be retried: {reason}")
        self._retry(otherwise=lambda: self._refuse(failure))

    def expire(self, now_ns: int) -> None:
        """Called by the daemon's sweep."""
        if self._done or self._pausing or now_ns < self.deadline_ns:
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if not self._streaming and now_ns >= self.started_ns + int(self._desk.limits.request_seconds * 1e9):
            self._fail_choice(now_ns)
            self._refuse(WireError(ErrorCode.DEADLINE_EXCEEDED, "no node answered in time"))
        else:
            self.upstream_lost("no answer in time")

    def cancel(self) -> None:
        """The client went away: stop the node's work too."""
        if self._done:
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        choice = self.choice
        if choice is not None and not self._pausing:
            self._desk.brain.completed(time.monotonic_ns(), choice.reservation, None)
            self._desk.breakers.released(choice.node_index)
        self._done = True
        self._desk.finished(self, 0)

    def client_writable(self, writable: bool) -> None:
        """Hold the node back while the client does not read a streamed answer."""
        if self._connection is not None:
            self._connection.pause_reading(not writable)

    # --- ends ---

    def _release(self, status: int, headers: http.Headers) -> None:
        choice = self.choice
        if choice is None:
            return
        now_ns = time.monotonic_ns()
        good = status == 200 and self._teaches
        latency_ms = (now_ns - self._sent_ns) / 1e6 if good else None
        self._desk.brain.completed(now_ns, choice.reservation, latency_ms)
        self._desk.breakers.succeeded(choice.node_index)
        if latency_ms is not None:
            self._desk.answered(self, choice, headers, latency_ms)

    def _fail_choice(self, now_ns: int) -> None:
        if self.choice is not None:
            self._desk.brain.completed(now_ns, self.choice.reservation, None, failed=True)
            self._desk.breakers.failed(self.choice.node_index, now_ns)

    def _refuse(self, error: WireError) -> None:
        keep = self._keep_alive()
        own = b"x-request-id: %s\r\n" % self.request.request_id + http.refusal_lines(error)
        self._client.write(http.answer(error.status, http.error_body(error.detail), b"application/json", own, keep, self.request.version))
        self._finish(error.status, keep)

    def _finish(self, status: int, keep_alive: bool) -> None:
        self._done = True
        self._desk.finished(self, status)
        self._client.answered(keep_alive)


async def connect_for(exchange: Exchange, pool: NodePool) -> None:
    """Open a connection and hand it over; a refusal is the node's failure."""
    attempt = exchange.attempts
    try:
        connection = await pool.connect()
    except OSError as error:
        if attempt == exchange.attempts:
            exchange.upstream_lost(f"the node cannot be reached: {error or type(error).__name__}")
        return
    exchange.connected(connection, attempt)
