"""A client light enough to saturate a router from one core: raw protocol, prepared bytes, no parsing beyond lengths."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from helmctl.bench.report import MeasureError

_OK = 200
_CLOSED = 0  # in the place of a status
_LATE_RATIO_MAX = 0.05
_ANSWERS_SECONDS_MAX = 10.0  # after the last arrival
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class LoadError(MeasureError):
    """An answer that is not the one expected: the figure would be of refusals."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answered: Callable[[int], None] | None = None
        self.head = b""  # status line and headers of the last answer
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits hears of it."""
        self._tell(_CLOSED)

    def data_received(self, data: bytes) -> None:
        """Count until the answer is whole."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0 or self._answered is None:
            return
        length = _LENGTH.search(self._buffer)
        if length is None or len(self._buffer) < head + 4 + int(length[1]):
            return
        status, self.head, self.body = int(self._buffer[9:12]), self._buffer[:head], self._buffer[head + 4 :]
        self._buffer = b""
        self._tell(status)

    def _tell(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)

    def send(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send; `answered` is called with the whole answer's status, or `_CLOSED`. It may send the next request."""
        self._answered = answered
        self._transport.write(request)

    async def ask(self, request: bytes) -> None:
        """Send, and wait for the whole answer; `LoadError` when it is not 200."""
        require_ok(await self.status_of(request))

    async def status_of(self, request: bytes) -> int:
        """Send, and wait for the whole answer; its status. `LoadError` when the connection was closed instead."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.send(request, lambda status: None if done.done() else done.set_result(status))
        status = await done
        if status == _CLOSED:
            raise LoadError("the connection was closed")
        return status

    def close(self) -> None:
        """End it."""
        self._transport.close()


def require_ok(status: int) -> None:
    """`LoadError` for any answer but a good one."""
    if status != _OK:
        raise LoadError(f"a request was answered with status {status}" if status != _CLOSED else "the connection was closed")


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
    loop = asyncio.get_running_loop()
    load = _OpenLoop(connections, requests, len(due))
    start_ns = time.monotonic_ns()
    pacing = loop.run_in_executor(None, _pace, loop, load.release, start_ns + due * 1e9)
    try:
        async with asyncio.timeout(seconds + _ANSWERS_SECONDS_MAX):
            took_ms = await load.done
    except TimeoutError as error:
        raise LoadError(f"answers still wait {_ANSWERS_SECONDS_MAX:.0f} s after the last request") from error
    await pacing
    late_seconds = (time.monotonic_ns() - start_ns) / 1e9 - due[-1]
    if late_seconds > _LATE_RATIO_MAX * seconds + 1.0:
        raise LoadError(f"the client fell {late_seconds:.1f} s behind {rate:.0f} requests/s")
    return took_ms


class _OpenLoop:
    """Requests on whatever connection is idle, by callbacks alone: a task for each would cost as much as the hop that is measured."""

    def __init__(self, connections: Sequence[Connection], requests: Sequence[bytes], count: int) -> None:
        self.done: asyncio.Future[NDArray[np.float64]] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._idle = deque(connections)
        self._waiting: deque[tuple[int, int]] = deque()
        self._took_ms = np.full(count, np.nan)
        self._released, self._left = 0, count

    def release(self, at_ns: int) -> None:
        """The next request may go."""
        index, self._released = self._released, self._released + 1
        if self._idle:
            self._send(self._idle.popleft(), index, at_ns)
        else:
            self._waiting.append((index, at_ns))

    def _send(self, connection: Connection, index: int, at_ns: int) -> None:
        connection.send(self._requests[index % len(self._requests)], partial(self._answered, connection, index, at_ns))

    def _answered(self, connection: Connection, index: int, at_ns: int, status: int) -> None:
        self._took_ms[index] = (time.monotonic_ns() - at_ns) / 1e6
        if self.done.done():
            return
        try:
            require_ok(status)
        except LoadError as error:
            self.done.set_exception(error)
            return
        self._left -= 1
        if self._left == 0:
            self.done.set_result(self._took_ms)
        elif self._waiting:
            self._send(connection, *self._waiting.popleft())
        else:
            self._idle.append(connection)


def _pace(loop: asyncio.AbstractEventLoop, release: Callable[[int], None], due_ns: NDArray[np.float64]) -> None:
    """Call `release` in the loop with the present time at each of these times of the monotonic clock."""
    for at_ns in due_ns.tolist():
        time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
        loop.call_soon_threadsafe(release, time.monotonic_ns())
