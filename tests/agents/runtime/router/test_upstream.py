"""Connections to a node: an answer reaches the one who asked, and what nobody asked for reaches no one."""

from typing import Any

import pytest

from agents.runtime.router.upstream import UpstreamConnection
from tests.agents.runtime.router.fakes import FAST, Client, Fleet, Seen, ask, infer, running

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"


def answering_with(surplus: bytes) -> Any:
    """A node that answers by the request's own name, and in the same segment sends something more."""

    def script(exchange: Any, seen: Seen) -> None:
        name = seen.headers[b"x-request-id"]
        exchange.write(ANSWER % (len(name), name) + surplus)

    return script


async def asked_as(fleet: Fleet, name: bytes) -> bytes:
    return (await ask(fleet.port, infer(extra=b"x-request-id: %s\r\n" % name))).body


def connections(fleet: Fleet) -> list[UpstreamConnection]:
    return list(fleet.daemon.pools[0]._idle)


@pytest.mark.parametrize("surplus", [ANSWER % (6, b"forged"), b"HTTP/1.1 200 O", b"\x00"])
async def test_what_a_node_sends_beyond_its_answer_reaches_nobody_and_ends_the_connection(surplus: bytes) -> None:
    async with running(1, FAST._replace(reuse_seconds=60.0)) as fleet:
        fleet.nodes[0].script = answering_with(surplus)
        assert await asked_as(fleet, b"first") == b"first"
        assert connections(fleet) == []
        assert await asked_as(fleet, b"second") == b"second"
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 0  # both of its answers were good


async def test_two_answers_in_one_segment_do_not_give_one_connection_to_two_clients() -> None:
    """The node answers each request twice; the clients ask at the same time, so that a connection kept twice would carry both."""
    async with running(1, FAST._replace(reuse_seconds=60.0)) as fleet:
        fleet.nodes[0].script = answering_with(ANSWER % (6, b"forged"))
        clients = [await Client.open(fleet.port) for _ in range(4)]
        for turn in range(5):
            for number, client in enumerate(clients):
                await client.send(infer(extra=b"x-request-id: r%d-%d\r\n" % (number, turn)))
            assert [(await client.reply()).body for client in clients] == [b"r%d-%d" % (number, turn) for number in range(4)]
        for client in clients:
            client.close()


async def test_a_connection_given_back_twice_is_kept_once() -> None:
    async with running(1, FAST._replace(reuse_seconds=60.0)) as fleet:
        await ask(fleet.port, infer())
        pool = fleet.daemon.pools[0]
        (connection,) = connections(fleet)
        pool.put_back(connection)
        assert pool.take_idle() is connection
        assert pool.take_idle() is None


async def test_what_has_been_idle_too_long_is_closed_and_the_rest_kept() -> None:
    async with running(1, FAST._replace(reuse_seconds=60.0)) as fleet:
        pool = fleet.daemon.pools[0]
        old, young = await pool.connect(), await pool.connect()
        for connection in (old, young):
            pool.put_back(connection)
        old.idle_since_ns = 0
        await fleet.until(lambda: old.transport is None)
        assert connections(fleet) == [young]
