"""A real router before nodes that are scripts, in a thread of its own, where the control plane finds it."""

import asyncio
import threading
from pathlib import Path

import msgspec

from agents.wire.messages import NodeAddress, Phase
from tests.agents.runtime.router.fakes import FAST, Fleet, Reply, ask, load, running

START_SECONDS = 120.0  # a first pick on a fresh machine compiles kernels
ANSWER_SECONDS = 30.0
SLOW = FAST._replace(silence_seconds=60.0, attempt_seconds=30.0, request_seconds=60.0)


class RoutedFleet:
    """Three nodes and their router; `fleet_file` leads to it while it runs."""

    def __init__(self, fleet_file: Path) -> None:
        self._file = fleet_file
        self._fleet: Fleet | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._live, name="routed", daemon=True)

    def start(self) -> None:
        """Until every node is ready."""
        self._thread.start()
        assert self._ready.wait(START_SECONDS)

    def stop(self) -> None:
        """The router is gone; the file that leads to it stays, as after a crash."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(ANSWER_SECONDS)

    def ask(self, request: bytes) -> Reply:
        """One request through the router."""
        assert self._fleet is not None
        return asyncio.run_coroutine_threadsafe(ask(self._fleet.port, request), self._loop).result(ANSWER_SECONDS)

    def drain(self, index: int) -> None:
        """A node says that it is draining, and the router has heard it."""
        fleet = self._fleet
        assert fleet is not None
        fleet.nodes[index].load = load(Phase.DRAINING)
        asyncio.run_coroutine_threadsafe(fleet.until_ready(len(fleet.nodes) - 1), self._loop).result(ANSWER_SECONDS)

    def endpoint(self, index: int) -> str:
        """A node's `host:port`."""
        assert self._fleet is not None
        return f"127.0.0.1:{self._fleet.nodes[index].port}"

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        async with running(3, SLOW) as fleet:
            for node in fleet.nodes:
                node.script = lambda exchange, seen: exchange.reply(extra=b"server-timing: queue;dur=0.2, emb;dur=0.4, compute;dur=1.5\r\n")
            address = NodeAddress(name="router", host="127.0.0.1", port=fleet.port)
            self._file.write_bytes(msgspec.json.encode(msgspec.structs.replace(fleet.daemon.fleet, router=address)))
            self._fleet = fleet
            self._ready.set()
            await self._stop.wait()
