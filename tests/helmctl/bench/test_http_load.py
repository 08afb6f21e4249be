"""The client that benches load a router with, against a server of a few lines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from helmctl.bench.http_load import Connection, LoadError, closed_loop, connect, open_loop

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
Answers = Callable[[int], bytes]


def answer(status: int = 200) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: 2\r\n\r\nok" % status


@asynccontextmanager
async def served(count: int, answer_of: Answers) -> AsyncIterator[list[Connection]]:
    """Connections to a server that answers its n-th request with `answer_of(n)`; an empty answer closes."""
    numbers = iter(range(1_000_000))
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        while await reader.readline() and await reader.readline():
            whole = answer_of(next(numbers))
            if not whole:
                break
            for part in (whole[:20], whole[20:]):
                writer.write(part)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        connections = await connect(*server.sockets[0].getsockname()[:2], count)
        yield connections
        for connection in connections:
            connection.close()
        await asyncio.gather(*(task for task in serving if task is not None))


async def test_every_arrival_of_an_open_loop_is_answered_and_timed_once() -> None:
    answered: list[int] = []

    def counted(number: int) -> bytes:
        answered.append(number)
        return answer()

    async with served(2, counted) as connections:
        took_ms = await open_loop(connections, [REQUEST], rate=400.0, seconds=0.25, seed=1)
    assert took_ms.shape == (100,)
    assert answered == list(range(100))
    assert bool(np.all(took_ms > 0.0))


async def test_an_arrival_that_finds_every_connection_busy_waits_for_one() -> None:
    async with served(1, lambda number: answer()) as connections:
        took_ms = await open_loop(connections, [REQUEST], rate=20_000.0, seconds=0.01, seed=1)
    assert took_ms.shape == (200,)
    assert bool(np.all(took_ms > 0.0))


@pytest.mark.parametrize(("last", "told"), [(answer(503), "status 503"), (b"", "closed")])
async def test_anything_but_a_good_answer_ends_the_measurement(last: bytes, told: str) -> None:
    async with served(1, lambda number: answer() if number < 3 else last) as connections:
        with pytest.raises(LoadError, match=told):
            await open_loop(connections, [REQUEST], rate=200.0, seconds=0.1, seed=1)


async def test_an_answer_that_never_comes_ends_the_measurement_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmctl.bench.http_load._ANSWERS_SECONDS_MAX", 0.05)
    async with served(1, lambda number: answer()[:-1]) as connections:
        with pytest.raises(LoadError, match="still wait"):
            await open_loop(connections, [REQUEST], rate=200.0, seconds=0.02, seed=1)


@pytest.mark.parametrize(("last", "told"), [(answer(429), "status 429"), (b"", "closed")])
async def test_a_closed_loop_ends_with_it_as_well(last: bytes, told: str) -> None:
    async with served(2, lambda number: answer() if number < 10 else last) as connections:
        with pytest.raises(LoadError, match=told):
            await closed_loop(connections, [REQUEST], seconds=5.0)
