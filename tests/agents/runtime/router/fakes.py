"""A node that is a script, and a router around such nodes, all in one event loop."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httptools
import msgspec

from agents.profiles import load_profile
from agents.router.router import Router, RouterConfig
from agents.runtime.router.daemon import RouterDaemon
from agents.runtime.router.limits import Limits
from agents.wire.messages import ClusterReuse, FleetFile, NodeAddress, NodeLoad, Phase, ResidencyFrame, ResidencySnapshot

KEY = "fleet-key"
SALT = bytes(range(16))
FAST = Limits(
    sweep_seconds=0.02,
    reconnect_seconds=0.03,
    silence_seconds=1.0,
    reuse_seconds=0.05,
    reap_seconds=0.05,
    breaker_open_seconds=0.1,
    linger_seconds=1.0,
    drain_seconds=2.0,
)


def load(phase: Phase = Phase.READY, queued_ms: float = 0.0, **changes: object) -> NodeLoad:
    """An idle node's report."""
    values = {
        "at_unix_ns": time.time_ns(),
        "phase": phase,
        "queued_ms": queued_ms,
        "queue_depth": 0,
        "emb_hit_ratio": 0.5,
        "ms_fixed": 1.0,
        "ms_per_missing_row": 0.001,
        "ms_per_token": 0.01,
        "ms_per_token_squared": 1e-5,
        "ms_per_candidate": 0.001,
        "refill_backlog_bytes": 0,
        "kv_tokens_capacity": 30_000,
        "kv_tokens_used": 0,
        "served_total": 0,
    }
    return msgspec.convert(values | changes, NodeLoad)


@dataclass
class Seen:
    """One request as a node saw it."""

    method: bytes = b""
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    names: list[bytes] = field(default_factory=list)
    body: bytes = b""


class _Exchange(asyncio.Protocol):
    """One connection to a fake node."""

    def __init__(self, node: "FakeNode") -> None:
        self.node = node
        self.parser = httptools.HttpRequestParser(self)
        self.seen = Seen()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.node.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.node.connections.discard(self)
        self.node.lost_while_busy += len([task for task in self.tasks if not task.done()])
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.seen = Seen()

    def on_url(self, url: bytes) -> None:
        self.seen.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.seen.headers[name.lower()] = value
        self.seen.names.append(name.lower())

    def on_body(self, data: bytes) -> None:
        self.seen.body += data

    def on_message_complete(self) -> None:
        self.seen.method = self.parser.get_method()
        task = asyncio.get_running_loop().create_task(self.node.respond(self, self.seen))
        self.tasks.add(task)

    def reply(self, status: int = 200, body: bytes = b'{"outputs":[]}', extra: bytes = b"") -> None:
        self.transport.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%s\r\n%s" % (status, len(body), extra, body))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def die(self) -> None:
        self.transport.abort()


Script = Callable[[_Exchange, Seen], "asyncio.Future[None] | None"]


class FakeNode:
    """Speaks the node's endpoints; inference does what `script` says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.script: Callable[..., object] = lambda exchange, seen: exchange.reply()
        self.load = load()
        self.snapshot = ResidencySnapshot(seq=1, user_keys=[], cached_tokens=[])
        self.news: asyncio.Queue[ResidencyFrame | bytes] = asyncio.Queue()
        self.requests: list[Seen] = []
        self.reuse: list[ClusterReuse] = []
        self.residency_requests: list[Seen] = []
        self.connections: set[_Exchange] = set()
        self.lost_while_busy = 0
        self.port = 0
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Exchange(self), "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """As kill -9: every connection resets, nobody listens."""
        if self.server is not None:
            self.server.close()
        for connection in list(self.connections):
            connection.die()
        await asyncio.sleep(0)

    async def respond(self, exchange: _Exchange, seen: Seen) -> None:
        if seen.target.startswith(b"/v1/residency"):
            await self._stream(exchange, seen)
        elif seen.target == b"/v1/reuse":
            self.reuse.append(msgspec.msgpack.decode(seen.body, type=ClusterReuse))
            exchange.reply(204, b"")
        else:
            self.requests.append(seen)
            result = self.script(exchange, seen)
            if asyncio.iscoroutine(result):
                await result

    async def _stream(self, exchange: _Exchange, seen: Seen) -> None:
        self.residency_requests.append(seen)
        if seen.headers.get(b"authorization") != f"Bearer {KEY}".encode():
            exchange.reply(401)
            return
        exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        _chunk(exchange, self.snapshot)
        while True:
            _chunk(exchange, self.load)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    _chunk(exchange, await self.news.get())

    def infers(self) -> list[Seen]:
        return [seen for seen in self.requests if seen.target.endswith(b"/infer")]


def _chunk(exchange: _Exchange, frame: ResidencyFrame | bytes) -> None:
    data = frame if isinstance(frame, bytes) else msgspec.msgpack.encode(frame)
    framed = struct.pack(">I", len(data)) + data
    exchange.write(b"%x\r\n%s\r\n" % (len(framed), framed))


class Fleet:
    """Fake nodes, a real router daemon, and its port."""

    def __init__(self, nodes: list[FakeNode], daemon: RouterDaemon, port: int) -> None:
        self.nodes = nodes
        self.daemon = daemon
        self.port = port

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that real sockets bring about."""
        async with asyncio.timeout(5.0):
            while not condition():  # noqa: ASYNC110 - conditions on other tasks' state, no event to wait for
                await asyncio.sleep(0.005)

    async def until_ready(self, count: int) -> None:
        await self.until(lambda: self.daemon.brain.ready_count() == count)

    async def prefer(self, index: int) -> None:
        """Make one node the obvious choice. Heard through its stream: what it said before may still be on its way."""
        queued_ms = [0.0 if i == index else 500.0 for i in range(len(self.nodes))]
        for node, wanted_ms in zip(self.nodes, queued_ms, strict=True):
            node.load = load(queued_ms=wanted_ms)
        await self.until(lambda: self.daemon.brain.state.nodes["queued_ms"].tolist() == queued_ms)


@contextlib.asynccontextmanager
async def running(
    count: int = 2, limits: Limits = FAST, config: RouterConfig | None = None, key: str = KEY, ready: bool = True
) -> AsyncIterator[Fleet]:
    """A fleet of fake nodes, all ready unless told otherwise."""
    nodes = [FakeNode(f"node-{i}") for i in range(count)]
    for node in nodes:
        await node.start()
    addresses = [NodeAddress(name=node.name, host="127.0.0.1", port=node.port) for node in nodes]
    router_address = NodeAddress(name="router", host="127.0.0.1", port=0)
    file = FleetFile(cluster_salt_hex=SALT.hex(), fleet_key=key, router=router_address, nodes=addresses, profile="cpu-demo")
    brain = Router([node.name for node in nodes], config or RouterConfig(users_max=1_024, copies_max=1_024), seed=1)
    daemon = RouterDaemon(file, load_profile("cpu-demo"), brain, limits, seed=1)
    port = await daemon.start("127.0.0.1", 0)
    fleet = Fleet(nodes, daemon, port)
    try:
        if ready:
            await fleet.until_ready(count)
        yield fleet
    finally:
        await daemon.close()
        for node in nodes:
            await node.kill()


@dataclass
class Reply:
    """An answer as a client sees it."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    @property
    def error(self) -> str:
        """The protocol's error sentence."""
        sentence: str = msgspec.json.decode(self.body)["error"]
        return sentence


class Client:
    """A client that can be as rude as the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        """One whole answer, or what there is of it when the connection ends."""
        result = Reply()

        class Sink:
            def on_header(self, name: bytes, value: bytes) -> None:
                result.headers[name.lower()] = value

            def on_body(self, data: bytes) -> None:
                result.body += data

            def on_headers_complete(self) -> None:
                result.status = parser.get_status_code()

            def on_message_complete(self) -> None:
                result.complete = result.status >= 200

        parser = httptools.HttpResponseParser(Sink())
        async with asyncio.timeout(5.0):
            while not result.complete:
                data = await self.reader.read(65_536)
                if not data:
                    break
                parser.feed_data(data)
        return result

    async def closed(self) -> bool:
        """Whether the router ends the connection."""
        async with asyncio.timeout(5.0):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.close()


def infer_body(user: str | int | None = "u1", history: int = 128, candidates: int = 16) -> bytes:
    """An inference request of this size."""
    inputs = [
        {"name": name, "shape": [1, history], "datatype": "INT64", "data": [1] * history}
        for name in ("history_items", "history_actions", "history_ts")
    ]
    inputs.append({"name": "candidates", "shape": [1, candidates], "datatype": "INT64", "data": [2] * candidates})
    parameters = {} if user is None else {"user_id": user}
    return msgspec.json.encode({"inputs": inputs, "parameters": parameters})


def infer(body: bytes | None = None, extra: bytes = b"") -> bytes:
    """A whole inference request."""
    body = infer_body() if body is None else body
    head = b"POST /v2/models/helm-ranker/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return head + extra + b"content-length: %d\r\n\r\n" % len(body) + body


def get(path: bytes, extra: bytes = b"") -> bytes:
    """A whole GET."""
    return b"GET %s HTTP/1.1\r\nhost: x\r\n%s\r\n" % (path, extra)


async def ask(port: int, data: bytes) -> Reply:
    """One request on its own connection."""
    client = await Client.open(port)
    await client.send(data)
    result = await client.reply()
    client.close()
    return result
