"""A client light enough to saturate a router from one core: raw protocol, prepared bytes, no parsing beyond lengths."""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from helmctl.bench.report import MeasureError

_OK = 200
_LATE_RATIO_MAX = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class LoadError(MeasureError):
    """An answer that is not the one expected: the figure would be of refusals."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._done: asyncio.Future[int] | None = None
        self.head = b""  # status line and headers of the last answer
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits hears of it."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Count until the answer is whole."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0 or self._done is None:
            return
        length = _LENGTH.search(self._buffer)
        if length is None or len(self._buffer) < head + 4 + int(length[1]):
            return
        status, self.head, self.body = int(self._buffer[9:12]), self._buffer[:head], self._buffer[head + 4 :]
        self._buffer = b""
        self._done.set_result(status)

    async def ask(self, request: bytes) -> None:
        """Send, and wait for the whole answer; `LoadError` when it is not 200."""
        status = await self.status_of(request)
        if status != _OK:
            raise LoadError(f"a request was answered with status {status}")

    async def status_of(self, request: bytes) -> int:
        """Send, and wait for the whole answer; its status."""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        """End it."""
        self._transport.close()


async def connect(host: str, port: int, count: int) -> list[Connection]:
    """Open connections, one after the other."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(Connection, host, port) for _ in range(count)]
    return [connection for _, connection in opened]


async def closed_loop(connections: Sequence[Connection], requests: Sequence[bytes], seconds: float) -> float:
    """Requests per second with each connection asking again as soon as it is answered."""
    end_ns = time.monotonic_ns() + int(seconds * 1e9)
    counts = await asyncio.gather(*(_ask_until(one, requests, start, end_ns) for start, one in enumerate(connections)))
    return sum(counts) / seconds


async def _ask_until(connection: Connection, requests: Sequence[bytes], start: int, end_ns: int) -> int:
    count = 0
    while time.monotonic_ns() < end_ns:
        await connection.ask(requests[(start + 7 * count) % len(requests)])
        count += 1
    return count


async def open_loop(
    connections: Sequence[Connection], requests: Sequence[bytes], rate: float, seconds: float, seed: int
) -> NDArray[np.float64]:
    """Milliseconds of each answer: Poisson arrivals at `rate` per second, waiting for an idle connection included.

    A thread lets requests go, and each is timed from then: the event loop's own timers tick once a millisecond, which would
    release several at once and measure how they wait for one another. `LoadError` when the client fell behind the
    rate, because then the figure would be of another load.
    """
    due = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, int(rate * seconds)))
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        idle.put_nowait(connection)
    released: asyncio.Queue[int] = asyncio.Queue()
    took_ms = np.full(len(due), np.nan)
    start_ns = time.monotonic_ns()

    async def ask(index: int, connection: Connection, released_ns: int) -> None:
        await connection.ask(requests[index % len(requests)])
        took_ms[index] = (time.monotonic_ns() - released_ns) / 1e6
        idle.put_nowait(connection)

    pacing = asyncio.get_running_loop().run_in_executor(None, _pace, asyncio.get_running_loop(), released, start_ns + due * 1e9)
    async with asyncio.TaskGroup() as group:
        for index in range(len(due)):
            released_ns = await released.get()
            group.create_task(ask(index, await idle.get(), released_ns))
    await pacing
    late_seconds = (time.monotonic_ns() - start_ns) / 1e9 - due[-1]
    if late_seconds > _LATE_RATIO_MAX * seconds + 1.0:
        raise LoadError(f"the client fell {late_seconds:.1f} s behind {rate:.0f} requests/s")
    return took_ms


def _pace(loop: asyncio.AbstractEventLoop, released: "asyncio.Queue[int]", due_ns: NDArray[np.float64]) -> None:
    """Put the present time into the queue at each of these times of the monotonic clock."""
    for at_ns in due_ns.tolist():
        time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
        loop.call_soon_threadsafe(released.put_nowait, time.monotonic_ns())
