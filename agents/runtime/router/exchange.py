"""One proxied request from pick to last byte: its attempts, and when they are over.

A request is tried on another node when its node breaks before a byte was forwarded: never twice on
the same, at most `retries_max` times, within the router's budget, after a short random pause, and only
if doing it twice does no harm. Answers are held back until whole (up to a bound), so that a node dying
in the middle of one costs the client nothing. An answer that says that the node is broken (500 and its
like) counts as breaking off, but where nobody else may be asked it is passed on. A node's own "busy"
(429, 503) is tried once elsewhere, then passed on.

Where hedging is on, a request that waits for too long is sent to one more node, under the same rules and
a budget of its own. The first answer wins; the other attempt is given up and its booking released.
"""

import asyncio
import errno
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agents.router.router import Pick
from agents.router.state import Filter
from agents.runtime.router import http
from agents.runtime.router.facts import RequestFacts
from agents.runtime.router.guards import Breakers, Budget
from agents.runtime.router.limits import Limits
from agents.runtime.router.metrics import Counters
from agents.runtime.router.server import ClientConnection, Inbound
from agents.runtime.router.steering import Bars, together
from agents.runtime.router.upstream import NodePool, UpstreamConnection
from agents.wire.errors import ErrorCode, WireError

_BUSY = (429, 503)
_NOT_ITS_FAULT = (501, 503, 505)  # what no node can do, and a node that is healthy but has no room
_NOBODY = WireError(ErrorCode.NO_READY_NODE, "no node is ready")
_NOBODY_ALLOWED = WireError(ErrorCode.NO_READY_NODE, "no node that this request may go to is ready")
_NO_DESCRIPTOR = WireError(ErrorCode.NO_READY_NODE, "the router has no file descriptor left for a connection to a node")
_DESCRIPTORS_SPENT = (errno.EMFILE, errno.ENFILE)
_LATE = WireError(ErrorCode.DEADLINE_EXCEEDED, "no node answered in time")


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


class Told(Protocol):
    """A sampled pick that can be asked about."""

    choice: Pick


class Desk(Protocol):
    """What an exchange needs of the daemon."""

    limits: Limits
    draining: bool
    pools: list[NodePool]
    breakers: Breakers
    retry_budget: Budget
    hedge_budget: Budget
    counters: Counters

    @property
    def brain(self) -> Brain:
        """Who picks."""
        ...

    @property
    def explained(self) -> Mapping[str, Told]:
        """Sampled picks by request id."""
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

    def after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after a time, unless cancelled."""
        ...

    def answered(self, exchange: "Exchange", choice: Pick, headers: http.Headers, latency_ms: float) -> None:
        """A node's good answer to a sampled pick, to be held against what was predicted; of other picks no components are kept."""
        ...

    def spawn_connect(self, attempt: "Attempt", pool: NodePool) -> None:
        """Open a connection in the background; the attempt hears `connected` or `upstream_lost`."""
        ...

    def finished(self, exchange: "Exchange", status: int) -> None:
        """Count the end of an exchange; 0 when the client went away."""
        ...


class Attempt:
    """One node's try at a request; receives that node's answer."""

    __slots__ = ("choice", "connection", "deadline_ns", "exchange", "sent_ns", "trial")

    def __init__(self, exchange: "Exchange", choice: Pick, sent_ns: int, deadline_ns: int, trial: int) -> None:
        self.exchange = exchange
        self.choice = choice
        self.sent_ns = sent_ns
        self.deadline_ns = deadline_ns
        self.trial = trial  # of the node's breaker
        self.connection: UpstreamConnection | None = None

    def connected(self, connection: UpstreamConnection) -> None:
        """A connection to the picked node is there."""
        self.exchange.connected(self, connection)

    def without_descriptor(self) -> None:
        """The router could not even try to connect."""
        self.exchange.without_descriptor(self)

    def answer_grew(self, connection: UpstreamConnection) -> None:
        """See `Receiver.answer_grew`."""
        self.exchange.answer_grew(self, connection)

    def answer_ended(self, connection: UpstreamConnection) -> None:
        """See `Receiver.answer_ended`."""
        self.exchange.answer_ended(self, connection)

    def upstream_lost(self, reason: str) -> None:
        """See `Receiver.upstream_lost`."""
        self.exchange.attempt_lost(self, reason)


class Exchange:
    """State of one proxied request."""

    __slots__ = (
        "_bars",
        "_blocked_ns",
        "_chunked",
        "_client",
        "_desk",
        "_done",
        "_hedge",
        "_kept_answer",
        "_live",
        "_nodes",
        "_overall_ns",
        "_pausing",
        "_refused",
        "_retries",
        "_streaming",
        "_teaches",
        "_timer",
        "facts",
        "first_choice",
        "request",
        "retry_gap_ns",
        "started_ns",
    )

    def __init__(
        self, desk: Desk, client: ClientConnection, request: Inbound, facts: RequestFacts, teaches: bool, bars: Bars | None = None
    ) -> None:
        self._desk = desk
        self._client = client
        self.request = request
        self.facts = facts
        self._teaches = teaches  # whether its latency says something about the predictor
        self.started_ns = time.monotonic_ns()
        self._overall_ns = self.started_ns + int(desk.limits.request_seconds * 1e9)
        self.retry_gap_ns: int | None = None
        self.first_choice: Pick | None = None
        self._bars = bars  # where the request's own words keep it from
        self._live: list[Attempt] = []  # one, or two while a hedge runs
        self._nodes: list[int] = []  # those that were tried
        self._retries = 0
        self._hedge: Attempt | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pausing = False  # between a failed attempt and the next one
        self._streaming = False
        self._blocked_ns = 0  # since when the client has not read; 0: it reads
        self._chunked = False
        self._kept_answer: Callable[[], None] | None = None  # passes a node's refusal or failure on, if nothing better comes
        self._refused = False  # a node was busy
        self._done = False

    # --- attempts ---

    def start(self) -> None:
        """First attempt."""
        if self._attempt(self._pick()) is None:
            self._refuse(_NOBODY if self._bars is None else _NOBODY_ALLOWED)
            return
        seconds = self._desk.limits.hedge_seconds
        if seconds > 0.0 and not self._done and self._is_idempotent():
            self._timer = self._desk.after(seconds, self._start_hedge)

    def _pick(self) -> Pick:
        """The best node that was not tried; a blind one where the router fails open."""
        tried = self._tried()
        choice = self._desk.timed_pick(self, together(self._desk.breakers.mask, self._bars, tried))
        if choice.found:
            return choice
        own = together(np.zeros(len(self._desk.pools), dtype=np.int8), self._bars, tried)
        blind = choice._replace(node_index=self._desk.blind_pick(self, own))
        told = self._desk.explained.get(self.request.request_id.decode()) if blind.found and choice.sample >= 0 else None
        if told is not None:
            told.choice = blind  # it was kept as one that found nobody
        return blind

    def _tried(self) -> Bars | None:
        if not self._nodes:
            return None
        tried: Bars = np.zeros(len(self._desk.pools), dtype=np.int8)
        tried[self._nodes] = Filter.EXCLUDED
        return tried

    def _attempt(self, choice: Pick) -> Attempt | None:
        """Send to the picked node; `None` when there is nobody to send to."""
        if not choice.found:
            return None
        desk, node = self._desk, choice.node_index
        if self.first_choice is None:
            self.first_choice = choice
        self.retry_gap_ns = choice.reuse_gap_ns
        self._nodes.append(node)
        sent_ns = time.monotonic_ns()
        deadline_ns = min(sent_ns + int(desk.limits.attempt_seconds * 1e9), self._overall_ns)
        attempt = Attempt(self, choice, sent_ns, deadline_ns, desk.breakers.picked(node))
        self._live.append(attempt)
        pool = desk.pools[node]
        connection = pool.take_idle()
        if connection is not None:
            self.connected(attempt, connection)
        else:
            desk.spawn_connect(attempt, pool)
        return attempt

    def connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        """A connection to the picked node is there; one that comes too late serves others."""
        if attempt not in self._live:
            connection.pool.put_back(connection)
            return
        attempt.connection = connection
        connection.send(attempt, self._head(connection.pool, attempt.choice), self.request.body)

    def _head(self, pool: NodePool, choice: Pick) -> bytes:
        request = self.request
        lines = [
            b"%s %s HTTP/1.1\r\nhost: %s\r\nx-request-id: %s\r\n" % (request.method, request.target, pool.endpoint, request.request_id),
            http.forwarded_lines(request.headers),
        ]
        if request.body or request.method == b"POST":
            lines.append(b"content-length: %d\r\n" % len(request.body))
        if choice.reuse_gap_ns >= 0:
            lines.append(b"x-helm-reuse-gap-ms: %d\r\n" % (choice.reuse_gap_ns // 1_000_000))
        if choice.resident_elsewhere:
            lines.append(b"x-helm-resident-elsewhere: 1\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _retry(self, otherwise: Callable[[], None]) -> None:
        """Another node after a pause, if the request may have one; else what is left. No attempt is live."""
        if not self._may_retry():
            otherwise()
            return
        self._pausing = True

        def again() -> None:
            if self._done:
                return
            self._pausing = False
            if not self._try_another():
                otherwise()

        self._desk.later(again)

    def _try_another(self) -> bool:
        """Send to a node that was not tried, if there is one and others have not spent the budget; only then it costs anything."""
        budget = self._desk.retry_budget
        choice = self._pick() if budget.allows() else None
        if choice is None or not choice.found:
            return False
        budget.take()
        self._retries += 1
        self._desk.counters.retries_total += 1
        self._attempt(choice)
        return True

    def _may_retry(self) -> bool:
        if self._streaming or self._retries >= self._desk.limits.retries_max or not self._is_idempotent():
            return False
        return self._desk.retry_budget.allows() and time.monotonic_ns() < self._overall_ns

    def _is_idempotent(self) -> bool:
        """Reading and scoring change nothing; a POST to anything else of the protocol might."""
        return self.request.method == b"GET" or self._teaches

    def _start_hedge(self) -> None:
        """The answer is late: one more node, if there is one and the budget allows it."""
        budget = self._desk.hedge_budget
        if self._done or self._pausing or self._streaming or len(self._live) != 1 or not budget.allows():
            return
        choice = self._desk.timed_pick(self, together(self._desk.breakers.mask, self._bars, self._tried()))
        if choice.found:
            budget.take()
            self._hedge = self._attempt(choice)
            self._desk.counters.hedges_total += 1

    # --- the nodes' answers ---

    def answer_grew(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        """The answer is too big to hold back: from here on it goes through as it comes."""
        if attempt not in self._live:
            connection.chunks.clear()
            return
        if not self._streaming:
            if _is_failure(connection.status) and self._turned_away(attempt, connection):
                return
            self._win(attempt)
            self._begin_streaming(attempt, connection)
        self._stream(connection)

    def _turned_away(self, attempt: Attempt, connection: UpstreamConnection) -> bool:
        """A failure too long to hold back goes to nobody if another node is asked, or was; it cannot wait for a pause."""
        if len(self._live) == 1 and not (self._may_retry() and self._try_another()):
            return False
        connection.abort()
        self._fail(attempt, time.monotonic_ns())
        return True

    def answer_ended(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        """The answer is whole: pass it on, or see what other nodes say when this one is busy or broken."""
        if attempt not in self._live:
            return
        self._live.remove(attempt)
        status = connection.status
        self._release(attempt, status, connection.headers)
        if self._streaming:
            self._stream(connection)
            if self._chunked:
                self._client.write(b"0\r\n\r\n")
            self._finish(status, self._keep_alive())
        elif _is_failure(status) or (status in _BUSY and (not self._refused or self._live)):
            self._refused = self._refused or status in _BUSY
            self._put_off(attempt, status, connection)
        else:
            self._win(attempt)
            self._pass_on(attempt, status, connection.headers, connection.chunks)

    def _put_off(self, attempt: Attempt, status: int, connection: UpstreamConnection) -> None:
        """Keep a node's refusal or failure; the hedge that still runs, or one more node, may say better."""
        headers, chunks = connection.headers, connection.chunks
        self._kept_answer = lambda: self._pass_on(attempt, status, headers, chunks)
        if not self._live:
            self._retry(otherwise=self._kept_answer)

    def _win(self, attempt: Attempt) -> None:
        """This attempt's answer is the one: the other is given up, and nothing is learned of it."""
        if attempt is self._hedge:
            self._desk.counters.hedges_won_total += 1
        for other in tuple(self._live):
            if other is not attempt:
                self._give_up(other)

    def _give_up(self, attempt: Attempt) -> None:
        self._live.remove(attempt)
        if attempt.connection is not None:
            attempt.connection.abort()
        self._desk.brain.completed(time.monotonic_ns(), attempt.choice.reservation, None)
        self._desk.breakers.released(attempt.choice.node_index, attempt.trial)

    def _pass_on(self, attempt: Attempt, status: int, headers: http.Headers, chunks: list[bytes]) -> None:
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        keep = self._keep_alive()
        lines = [
            http.status_line(status),
            http.returned_lines(headers),
            b"content-length: %d\r\n" % len(body),
            self._own_lines(attempt, keep),
            b"\r\n",
        ]
        self._client.write_parts([b"".join(lines), body] if body else [b"".join(lines)])
        self._finish(status, keep)

    def _begin_streaming(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        self._streaming = True
        length = next((value for name, value in connection.headers if name == b"content-length"), None)
        self._chunked = length is None
        framing = b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %s\r\n" % length
        if self._chunked and self.request.version == "1.0":
            self._chunked, framing = False, b""  # ends with the connection
            self.request.keep_alive = False
        own = self._own_lines(attempt, self._keep_alive())
        self._client.write(b"".join([http.status_line(connection.status), http.returned_lines(connection.headers), framing, own, b"\r\n"]))

    def _stream(self, connection: UpstreamConnection) -> None:
        for chunk in connection.chunks:
            self._client.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        connection.chunks.clear()

    def _own_lines(self, attempt: Attempt, keep: bool) -> bytes:
        pools, first = self._desk.pools, self.first_choice or attempt.choice
        told = (
            self.request.request_id,
            pools[first.node_index].endpoint,
            pools[attempt.choice.node_index].endpoint,
            attempt.choice.predicted_ms,
        )
        lines = _OWN_LINES % told
        if self._retries > 0:
            lines += b"x-helm-retries: %d\r\n" % self._retries
        if self._hedge is not None:
            lines += b"x-helm-hedged: 1\r\n"
        return lines + http.connection_line(self.request.version, keep)

    def _keep_alive(self) -> bool:
        return self.request.keep_alive and not self._desk.draining

    # --- failures ---

    def attempt_lost(self, attempt: Attempt, reason: str) -> None:
        """A node broke off, could not be reached or did not answer in time."""
        if attempt not in self._live:
            return
        if self._blocked_ns:
            self._give_up(attempt)  # it was held back for the client's sake: that it went says nothing of it
        else:
            self._fail(attempt, time.monotonic_ns())
        if self._streaming:
            self._finish(0, False)
            self._client.abort()  # a broken answer must look broken
        elif not self._live:  # else the other one is still on its way
            failure = WireError(ErrorCode.NODE_FAILED, f"the node failed and the request could not be retried: {reason}")
            self._retry(otherwise=self._kept_answer or (lambda: self._refuse(failure)))

    def without_descriptor(self, attempt: Attempt) -> None:
        """The router has no descriptor left: nothing is said of the node, and a connection to another would need one too."""
        self._desk.counters.without_descriptor_total += 1
        if attempt not in self._live:
            return
        self._give_up(attempt)
        if not self._live:
            (self._kept_answer or (lambda: self._refuse(_NO_DESCRIPTOR)))()

    def expire(self, now_ns: int) -> None:
        """Called by the daemon's sweep. While the client does not read no node is late; `write_seconds` bounds the client."""
        if self._blocked_ns:
            return
        for attempt in [one for one in self._live if now_ns >= one.deadline_ns]:
            if attempt.connection is not None:
                attempt.connection.abort()
            if self._streaming or now_ns < self._overall_ns:
                self.attempt_lost(attempt, "no answer in time")
            else:
                self._fail(attempt, now_ns)
        if not self._done and not self._pausing and not self._live and now_ns >= self._overall_ns:
            self._refuse(_LATE)

    def _fail(self, attempt: Attempt, now_ns: int) -> None:
        self._live.remove(attempt)
        self._desk.brain.completed(now_ns, attempt.choice.reservation, None, failed=True)
        self._desk.breakers.failed(attempt.choice.node_index, now_ns, attempt.trial)

    def cancel(self) -> None:
        """The client went away: stop the nodes' work too."""
        if self._done:
            return
        for attempt in list(self._live):
            self._give_up(attempt)
        self._end(0)

    def client_writable(self, writable: bool) -> None:
        """Hold the node back while the client does not read a streamed answer; the wait is not the node's."""
        now_ns = time.monotonic_ns()
        held_ns = now_ns - self._blocked_ns if self._blocked_ns else 0
        self._blocked_ns = 0 if writable else now_ns
        for attempt in self._live:
            attempt.sent_ns += held_ns
            attempt.deadline_ns += held_ns
            if attempt.connection is not None:
                attempt.connection.pause_reading(not writable)

    # --- ends ---

    def _release(self, attempt: Attempt, status: int, headers: http.Headers) -> None:
        choice = attempt.choice
        now_ns = time.monotonic_ns()
        good = status == 200 and self._teaches
        latency_ms = (now_ns - attempt.sent_ns) / 1e6 if good else None
        if _is_failure(status):
            self._desk.brain.completed(now_ns, choice.reservation, None, failed=True)
            self._desk.breakers.failed(choice.node_index, now_ns, attempt.trial)
            return
        self._desk.brain.completed(now_ns, choice.reservation, latency_ms)
        self._desk.breakers.succeeded(choice.node_index)
        if latency_ms is not None and choice.sample >= 0:
            self._desk.answered(self, choice, headers, latency_ms)

    def _refuse(self, error: WireError) -> None:
        keep = self._keep_alive()
        own = b"x-request-id: %s\r\n" % self.request.request_id + http.refusal_lines(error)
        self._client.write(http.answer(error.status, http.error_body(error.detail), b"application/json", own, keep, self.request.version))
        self._finish(error.status, keep)

    def _finish(self, status: int, keep_alive: bool) -> None:
        self._end(status)
        self._client.answered(keep_alive)

    def _end(self, status: int) -> None:
        self._done = True
        if self._timer is not None:
            self._timer.cancel()
        self._desk.finished(self, status)


_OWN_LINES = (
    b"x-request-id: %s\r\nx-gateway-destination-endpoint: %s\r\nx-gateway-destination-endpoint-served: %s\r\nx-helm-predicted-ms: %.3f\r\n"
)


def _is_failure(status: int) -> bool:
    """Whether an answer says that the node is broken, as a sick device makes it say to every request."""
    return status >= 500 and status not in _NOT_ITS_FAULT


async def connect_for(attempt: Attempt, pool: NodePool) -> None:
    """Open a connection and hand it over; a refusal is the node's failure, the want of a descriptor is ours."""
    try:
        connection = await pool.connect()
    except OSError as error:
        if error.errno in _DESCRIPTORS_SPENT:
            attempt.without_descriptor()
            return
        attempt.upstream_lost(f"the node cannot be reached: {error or type(error).__name__}")
        return
    attempt.connected(connection)
