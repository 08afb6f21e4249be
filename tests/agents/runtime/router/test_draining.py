"""A router that is told to end: what is under way is finished, the rest is refused, and nothing waits for ever."""

import asyncio

import pytest

from tests.agents.runtime.router.fakes import FAST, Client, Seen, infer, running


async def test_draining_finishes_what_is_under_way_and_refuses_the_rest() -> None:
    release = asyncio.Event()

    async def work(exchange: object, seen: Seen) -> None:
        await release.wait()
        exchange.reply()  # type: ignore[attr-defined]

    async with running(1) as fleet:
        fleet.nodes[0].script = work
        busy, idle = await Client.open(fleet.port), await Client.open(fleet.port)
        await busy.send(infer())
        await fleet.until(lambda: len(fleet.nodes[0].infers()) == 1)
        draining = asyncio.get_running_loop().create_task(fleet.daemon.drain())
        assert await idle.closed()
        with pytest.raises(OSError):
            await Client.open(fleet.port)
        release.set()
        reply = await busy.reply()
        assert (reply.status, reply.headers[b"connection"]) == (200, b"close")
        await draining


async def test_an_upload_under_way_is_heard_out_and_told_that_the_router_drains() -> None:
    async with running(1) as fleet:
        client, body = await Client.open(fleet.port), infer()
        await client.send(body[:-10])
        await fleet.until(lambda: fleet.daemon.gauges().buffered_bytes > 0)
        draining = asyncio.get_running_loop().create_task(fleet.daemon.drain())
        await fleet.until(lambda: fleet.daemon.draining)
        await client.send(body[-10:])
        reply = await client.reply()
        assert (reply.status, reply.headers[b"x-helm-reason"]) == (503, b"draining")
        await draining


async def test_an_answer_that_its_client_reads_slowly_is_whole_in_spite_of_draining() -> None:
    async with running(1, FAST._replace(response_buffer_bytes=1 << 24)) as fleet:
        answer = b"x" * 12_000_000  # more than the kernel takes off the router's hands
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(200, answer)
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: fleet.daemon.counters.requests.get(200) == 1)
        draining = asyncio.get_running_loop().create_task(fleet.daemon.drain())
        await fleet.until(lambda: fleet.daemon.draining)
        assert (await client.reply()).body == answer
        await draining


async def test_draining_does_not_wait_for_long_for_a_client_that_does_nothing() -> None:
    async with running(1, FAST._replace(drain_seconds=0.1)) as fleet:
        client = await Client.open(fleet.port)
        await client.send(infer()[:-10])
        await fleet.until(lambda: fleet.daemon.gauges().buffered_bytes > 0)
        await fleet.daemon.drain()
        assert await client.closed()
