"""The router daemon: one event loop that owns the routing state and everything around it."""

import asyncio
import contextlib
import hmac
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from agents.profiles.profile import Profile
from agents.router.reuse import ClusterReuseStatistics
from agents.router.router import Pick, Router
from agents.runtime.router import http, pages, steering
from agents.runtime.router.attribution import Attribution, observed_ms, predicted_ms
from agents.runtime.router.exchange import Attempt, Exchange, connect_for
from agents.runtime.router.facts import UNKNOWN, RequestFacts, read_facts
from agents.runtime.router.guards import Breakers, Budget
from agents.runtime.router.limits import Limits, within_descriptors
from agents.runtime.router.metrics import Counters, Gauges, LatencyWindow
from agents.runtime.router.residency import listen
from agents.runtime.router.server import ClientConnection, Inbound, Work
from agents.runtime.router.upstream import NodePool, post
from agents.wire import tickets
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import FleetFile, NodeLoad, Phase, ResidencyDelta, ResidencySnapshot, UsersSeen

log = structlog.get_logger("router")
_ENCODER = msgspec.msgpack.Encoder()
KEY_HOLDER = "the fleet's key"
_METHODS = (b"GET", b"POST")
_NOT_ALLOWED = pages.Answer(
    405,
    http.error_body("the inference protocol knows GET and POST only"),
    headers=b"allow: GET, POST\r\nx-helm-reason: %s\r\n" % ErrorCode.INVALID_REQUEST.encode(),
)


@dataclass
class Explained:
    """A sampled pick that can be asked about, and how it went once that is known."""

    choice: Pick
    facts: RequestFacts
    at_unix_ns: int
    predicted_ms: dict[str, float] | None = None
    observed_ms: dict[str, float] | None = None


class RouterDaemon:
    """Clients on one side, nodes on the other, one `Router` between them."""

    def __init__(self, fleet: FleetFile, profile: Profile, router: Router, limits: Limits | None = None, seed: int = 0) -> None:
        self.fleet = fleet
        self.limits = limits or Limits()
        self.brain = router
        self.counters = Counters()
        self.pools = [NodePool(address, self.limits) for address in fleet.nodes]
        self._chance = random.Random(seed)  # noqa: S311 - jitter, not secrets
        self.breakers = Breakers(len(fleet.nodes), self.limits, self._chance)
        self.retry_budget = Budget(self.limits.retry_ratio, self.limits.retry_burst)
        self.hedge_budget = Budget(self.limits.hedge_ratio, self.limits.hedge_burst)
        self.draining = False
        self.now_ns = time.monotonic_ns()
        self.latency = LatencyWindow()
        self.explained: OrderedDict[str, Explained] = OrderedDict()
        self.attribution = Attribution()
        self.statistics = ClusterReuseStatistics(
            router_id=f"{fleet.router.name}-{secrets.token_hex(4)}",
            nodes=len(fleet.nodes),
            pool_tokens=profile.pool_bytes // profile.kv_token_bytes,
            block_tokens=profile.block_tokens,
            now_ns=time.monotonic_ns(),
        )
        self._steered = steering.Fleet(router.names, [pool.endpoint for pool in self.pools], router.model_versions)
        self._tokens_max = profile.model.tokens_max
        self._salt = bytes.fromhex(fleet.cluster_salt_hex)
        self._connections: set[ClientConnection] = set()
        self._exchanges: set[Exchange] = set()
        self._buffered_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._pushing: set[int] = set()  # nodes with a reuse message under way
        self._server: asyncio.Server | None = None
        self._id_prefix = secrets.token_hex(6).encode()
        self._id_serial = 0
        self._drained = asyncio.Event()
        self._rate_at = (time.monotonic_ns(), 0)
        self.picks_per_second = 0.0

    # --- life ---

    async def start(self, host: str, port: int) -> int:
        """Listen and begin to follow the nodes; returns the port. `OSError` when it is taken."""
        self._fit_descriptors()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientConnection(self), host, port, backlog=1_024)
        for index, address in enumerate(self.fleet.nodes):
            self._spawn(listen(index, address, self.fleet.fleet_key, self, self.limits, self._chance))
        self._spawn(self._publish_reuse())
        self._spawn(self._sweep())
        self._spawn(self._reap())
        bound: int = self._server.sockets[0].getsockname()[1]
        log.info("listening", host=host, port=bound, nodes=[node.name for node in self.fleet.nodes])
        return bound

    def _fit_descriptors(self) -> None:
        """Let in no more clients than can be served with the files this process may open; before the first connection."""
        fitted = within_descriptors(self.limits, len(self.fleet.nodes))
        if fitted != self.limits:
            log.warning("few descriptors", connections_max=fitted.connections_max, in_flight_max=fitted.in_flight_max)
            self.limits = fitted
            self.pools = [NodePool(address, fitted) for address in self.fleet.nodes]

    async def drain(self) -> None:
        """Stop accepting, hear out and answer those who are sending or waiting, close."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()
        if not self._connections:
            self._drained.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_seconds):
                await self._drained.wait()
        await self.close()

    async def close(self) -> None:
        """End everything now."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort()
        for pool in self.pools:
            pool.close()
        await asyncio.sleep(0)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task failed", error=repr(task.exception()))

    # --- front: clients ---

    def opened(self, connection: ClientConnection) -> bool:
        """See `Front.opened`."""
        self.counters.connections_total += 1
        self._connections.add(connection)
        above = len(self._connections) - self.limits.connections_max
        if above > self.limits.refused_max:
            connection.abort()  # those who still hear their refusal hold descriptors too
        return above <= 0

    def closed(self, connection: ClientConnection) -> None:
        """See `Front.closed`."""
        self._connections.discard(connection)
        if self.draining and not self._connections:
            self._drained.set()

    def buffered(self, change_bytes: int) -> bool:
        """See `Front.buffered`."""
        self._buffered_bytes += change_bytes
        return self._buffered_bytes <= self.limits.buffered_bytes_max

    def refused(self, error: WireError) -> None:
        """See `Front.refused`."""
        self._count(error.status)

    def handle(self, connection: ClientConnection, request: Inbound) -> Work | None:
        """Own pages are answered here; `/v2` goes to a node."""
        request.request_id = self._request_id(request)
        path = request.target.partition(b"?")[0]
        if path.startswith(b"/v2") and path not in pages.OPEN_PAGES:
            return self._proxy(connection, request, path)
        origin = None if path.startswith(b"/") else http.origin_form(request.target)
        if origin is not None:
            request.target = origin
            return self.handle(connection, request)
        bodiless = request.method == b"HEAD"
        if bodiless:
            request.method = b"GET"  # the same page, its body kept back
        self._answer(connection, request, pages.respond(self, request, path), bodiless)
        return None

    def _proxy(self, connection: ClientConnection, request: Inbound, path: bytes) -> Work | None:
        if request.method not in _METHODS:
            self._answer(connection, request, _NOT_ALLOWED, bodiless=request.method == b"HEAD")
            return None
        refusal = self._refusal()
        if refusal is not None:
            self._refuse(connection, request, refusal)
            return None
        try:
            bars = steering.bars_of(request, path, self._steered, self.operator_of)
        except WireError as error:
            self._refuse(connection, request, error)
            return None
        infers = request.method == b"POST" and path.endswith(b"/infer")
        facts = self._facts(request) if infers else UNKNOWN
        if infers and facts.user_key == 0:
            self.counters.cold_requests_total += 1
        exchange = Exchange(self, connection, request, facts, teaches=infers, bars=bars)
        self._exchanges.add(exchange)
        self.retry_budget.request()
        if self.limits.hedge_seconds > 0.0:
            self.hedge_budget.request()
        exchange.start()
        if infers and facts.user_key != 0 and exchange.first_choice is not None:
            self.statistics.seen(exchange.started_ns, facts.user_key, facts.history_tokens)
        return exchange

    def _refuse(self, connection: ClientConnection, request: Inbound, error: WireError) -> None:
        refusal = pages.Answer(error.status, http.error_body(error.detail), headers=http.refusal_lines(error))
        self._answer(connection, request, refusal)

    def _answer(self, connection: ClientConnection, request: Inbound, answer: pages.Answer, bodiless: bool = False) -> None:
        own = b"x-request-id: %s\r\n" % request.request_id + answer.headers
        keep = request.keep_alive and not self.draining
        self._count(answer.status)
        connection.write(http.answer(answer.status, answer.body, answer.content_type, own, keep, request.version, bodiless))
        connection.answered(keep)

    def operator_of(self, request: Inbound) -> str | None:
        """Who may steer the router: the holder of a ticket by name, or whoever has the fleet's key. `None`: anybody else."""
        given = request.header(b"authorization") or b""
        if hmac.compare_digest(given, b"Bearer " + self.fleet.fleet_key.encode()):
            return KEY_HOLDER
        ticket = tickets.read(given.removeprefix(b"Bearer ").decode("latin-1"), self.fleet.fleet_key, time.time())
        return None if ticket is None else ticket.who

    def _facts(self, request: Inbound) -> RequestFacts:
        head, encoding = request.text(b"inference-header-content-length"), request.text(b"content-encoding")
        return read_facts(request.body, self._salt, self._tokens_max, head, encoding)

    def _refusal(self) -> WireError | None:
        if self.draining:
            return WireError(ErrorCode.DRAINING, "the router is shutting down")
        if len(self._exchanges) >= self.limits.in_flight_max:
            return WireError(ErrorCode.QUEUE_FULL, "too many requests in flight")
        return None

    def _request_id(self, request: Inbound) -> bytes:
        given = request.header(b"x-request-id")
        if given is not None and http.REQUEST_ID.fullmatch(given):
            return given
        self._id_serial += 1
        return b"%s-%08x" % (self._id_prefix, self._id_serial)

    # --- desk: exchanges ---

    def timed_pick(self, exchange: Exchange, barred: NDArray[np.int8]) -> Pick:
        """See `Desk.timed_pick`."""
        user_key, history_tokens, candidates = facts = exchange.facts
        start_ns = time.monotonic_ns()
        choice = self.brain.pick(start_ns, user_key, history_tokens, candidates, barred, exchange.retry_gap_ns)
        self.counters.pick_seconds.add((time.monotonic_ns() - start_ns) / 1e9)
        if choice.sample >= 0:
            self._keep(exchange.request.request_id.decode(), Explained(choice, facts, time.time_ns()))
        return choice

    def _keep(self, request_id: str, told: Explained) -> None:
        """Remember a pick for those who ask; one that found nobody does not replace the one that was sent."""
        if told.choice.found or request_id not in self.explained:
            self.explained[request_id] = told
        if len(self.explained) > self.limits.explained_max:
            self.explained.popitem(last=False)

    def blind_pick(self, exchange: Exchange, own: steering.Bars) -> int:
        """See `Desk.blind_pick`."""
        allowed = np.flatnonzero(own == 0)
        if not self.limits.fail_open or len(allowed) == 0:
            return -1
        self.counters.blind_total += 1
        return int(allowed[exchange.facts.user_key % len(allowed)] if exchange.facts.user_key else self._chance.choice(allowed))

    def later(self, retry: Callable[[], None]) -> None:
        """See `Desk.later`."""
        asyncio.get_running_loop().call_later(self._chance.uniform(0.0, self.limits.retry_pause_seconds), retry)

    def after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """See `Desk.after`."""
        return asyncio.get_running_loop().call_later(seconds, call)

    def answered(self, exchange: Exchange, choice: Pick, headers: http.Headers, latency_ms: float) -> None:
        """See `Desk.answered`."""
        row = self.brain.sampled(choice.sample, choice.node_index)
        timing = next((value for name, value in headers if name == b"server-timing"), None)
        observed = observed_ms(timing, latency_ms) if timing is not None and row is not None else None
        if row is None or observed is None:
            return
        predicted = predicted_ms(row)
        self.attribution.add(predicted, observed)
        told = self.explained.get(exchange.request.request_id.decode())
        if told is not None:
            told.choice, told.predicted_ms, told.observed_ms = choice, predicted, observed

    def spawn_connect(self, attempt: Attempt, pool: NodePool) -> None:
        """See `Desk.spawn_connect`."""
        self._spawn(connect_for(attempt, pool))

    def finished(self, exchange: Exchange, status: int) -> None:
        """See `Desk.finished`."""
        self._exchanges.discard(exchange)
        self._count(status)
        if status in (502, 503):
            self.counters.failures_total += 1
        if status == 200:
            now_ns = time.monotonic_ns()
            latency_ms = (now_ns - exchange.started_ns) / 1e6
            self.counters.latency_seconds.add(latency_ms / 1e3)
            self.latency.add(now_ns, latency_ms)

    def _count(self, status: int) -> None:
        self.counters.requests[status] = self.counters.requests.get(status, 0) + 1

    # --- listener: nodes ---

    def heard_load(self, index: int, load: NodeLoad) -> None:
        """See `Listener.heard_load`."""
        now_ns = time.monotonic_ns()
        before = self.brain.node_view(index, now_ns).phase
        self.brain.node_load(index, now_ns, load)
        if load.phase is Phase.READY and before is not Phase.READY:
            self.breakers.succeeded(index)  # a new life: old failures say nothing about it
            log.info("node ready", node=self.fleet.nodes[index].name)
        elif load.phase is not before:
            log.info("node phase", node=self.fleet.nodes[index].name, phase=load.phase.value)

    def heard_residency(self, index: int, frame: ResidencySnapshot | ResidencyDelta) -> bool:
        """See `Listener.heard_residency`."""
        gap = self.brain.residency(index, frame)
        if gap:
            self.counters.gaps_total += 1
        return gap

    def heard_seen(self, seen: UsersSeen) -> None:
        """See `Listener.heard_seen`."""
        self.brain.seen(time.monotonic_ns(), seen.user_keys, seen.ages_ms)

    def sequence(self, index: int) -> int:
        """See `Listener.sequence`."""
        return self.brain.sequence(index)

    def lost(self, index: int, reason: str) -> None:
        """See `Listener.lost`."""
        view = self.brain.node_view(index, time.monotonic_ns())
        if view.phase is Phase.OFFLINE and not view.synced:
            return  # still gone
        self.counters.stream_losses_total += 1
        log.warning("node lost", node=self.fleet.nodes[index].name, reason=reason)
        self.brain.node_gone(index)

    # --- background ---

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            self.now_ns = now_ns = time.monotonic_ns()
            self.breakers.sweep(now_ns)
            for exchange in list(self._exchanges):
                exchange.expire(now_ns)
            for connection in list(self._connections):
                connection.check(now_ns)
            for pool in self.pools:
                pool.sweep(now_ns)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(self.limits.reap_seconds)
            now_ns = time.monotonic_ns()
            self.brain.reap(now_ns)
            then_ns, before = self._rate_at
            picks = self.brain.totals()["picks"]
            self.picks_per_second = (picks - before) / ((now_ns - then_ns) / 1e9)
            self._rate_at = (now_ns, picks)

    async def _publish_reuse(self) -> None:
        """Tell every node that can be heard; one that is slow to take it misses a turn, not the others."""
        while True:
            await asyncio.sleep(self.limits.reuse_seconds)
            now_ns = time.monotonic_ns()
            nodes = max(1, self.brain.ready_count())
            body = _ENCODER.encode(self.statistics.message(now_ns, time.time_ns(), nodes))
            for index in range(len(self.pools)):
                if index not in self._pushing and self.brain.node_view(index, now_ns).phase is not Phase.OFFLINE:
                    self._pushing.add(index)
                    self._spawn(self._push_reuse(index, body))

    async def _push_reuse(self, index: int, body: bytes) -> None:
        headers = f"authorization: Bearer {self.fleet.fleet_key}\r\ncontent-type: application/msgpack\r\n".encode()
        try:
            with contextlib.suppress(OSError):  # the node's stream tells whether it lives
                await post(self.pools[index], b"/v1/reuse", headers, body, self.limits.reuse_timeout_seconds)
        finally:
            self._pushing.discard(index)

    # --- views ---

    def gauges(self) -> Gauges:
        """Values of the moment, for the metrics page."""
        now_ns = time.monotonic_ns()
        totals = self.brain.totals()
        return Gauges(
            in_flight=len(self._exchanges),
            connections=len(self._connections),
            buffered_bytes=self._buffered_bytes,
            users=totals["users"],
            state_bytes=self.brain.memory_bytes,
            totals=totals,
            nodes=[self.brain.node_view(index, now_ns) for index in range(len(self.pools))],
            attribution=self.attribution,
            breakers_open=[self.breakers.is_open(index) for index in range(len(self.pools))],
        )
