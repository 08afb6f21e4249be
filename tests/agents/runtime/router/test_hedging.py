"""Hedging: one more node for an answer that is late, within a budget, and the first answer wins."""

import asyncio
from collections.abc import Callable
from typing import Any

from agents.runtime.router.limits import Limits
from tests.agents.runtime.router.fakes import FAST, Client, Fleet, Seen, ask, infer, running

HEDGING = FAST._replace(hedge_seconds=0.02, hedge_burst=8.0, silence_seconds=5.0)
LATE_SECONDS = 30.0


def late(release: asyncio.Event, body: bytes = b'{"late":1}', status: int = 200) -> Callable[..., Any]:
    """A node that answers when it is told to."""

    async def work(exchange: Any, seen: Seen) -> None:
        async with asyncio.timeout(LATE_SECONDS):
            await release.wait()
        exchange.reply(status, body)

    return work


def asked(fleet: Fleet) -> list[int]:
    return [len(node.infers()) for node in fleet.nodes]


async def test_without_being_asked_to_the_router_does_not_hedge() -> None:
    assert Limits().hedge_seconds == 0.0
    release = asyncio.Event()
    async with running(2, FAST._replace(silence_seconds=5.0)) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = late(release)
        asyncio.get_running_loop().call_later(0.1, release.set)
        assert (await ask(fleet.port, infer())).status == 200
        assert asked(fleet) == [1, 0]


async def test_a_late_answer_is_overtaken_by_another_node_and_the_late_one_is_given_up() -> None:
    async with running(2, HEDGING) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = late(asyncio.Event())
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.headers[b"x-helm-hedged"]) == (200, b"1")
        assert b"x-helm-retries" not in reply.headers
        assert reply.headers[b"x-gateway-destination-endpoint-served"] == f"127.0.0.1:{fleet.nodes[1].port}".encode()
        assert asked(fleet) == [1, 1]
        await fleet.until(lambda: fleet.nodes[0].lost_while_busy == 1)
        counters = fleet.daemon.counters
        assert (counters.hedges_total, counters.hedges_won_total, counters.retries_total) == (1, 1, 0)
        assert fleet.daemon.brain.totals()["reservations"] == 0
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 0


async def test_the_first_node_may_still_win_and_then_the_hedge_is_given_up() -> None:
    release = asyncio.Event()
    async with running(2, HEDGING) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script, fleet.nodes[1].script = late(release), late(asyncio.Event())
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: asked(fleet) == [1, 1])
        release.set()
        assert (await client.reply()).body == b'{"late":1}'
        await fleet.until(lambda: fleet.nodes[1].lost_while_busy == 1)
        assert (fleet.daemon.counters.hedges_total, fleet.daemon.counters.hedges_won_total) == (1, 0)
        assert fleet.daemon.brain.totals()["reservations"] == 0
        client.close()


async def test_a_single_node_is_never_asked_twice() -> None:
    release = asyncio.Event()
    async with running(1, HEDGING) as fleet:
        fleet.nodes[0].script = late(release)
        asyncio.get_running_loop().call_later(0.1, release.set)
        assert (await ask(fleet.port, infer())).status == 200
        assert (asked(fleet), fleet.daemon.counters.hedges_total) == ([1], 0)
        assert fleet.daemon.hedge_budget.tokens == HEDGING.hedge_burst  # nobody to ask costs nothing


async def test_what_might_change_something_is_not_hedged() -> None:
    release = asyncio.Event()
    async with running(2, HEDGING) as fleet:
        for node in fleet.nodes:
            node.script = late(release)
        asyncio.get_running_loop().call_later(0.1, release.set)
        load = b"POST /v2/repository/models/helm-ranker/load HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        assert (await ask(fleet.port, load)).status == 200
        assert sum(len(node.requests) for node in fleet.nodes) == 1


async def test_a_fleet_that_is_slow_as_a_whole_is_hedged_within_the_budget_only() -> None:
    release = asyncio.Event()
    async with running(2, HEDGING._replace(hedge_burst=2.0, hedge_ratio=0.0)) as fleet:
        for node in fleet.nodes:
            node.script = late(release)
        clients = [await Client.open(fleet.port) for _ in range(6)]
        for client in clients:
            await client.send(infer())
        await fleet.until(lambda: sum(asked(fleet)) == 8)
        await asyncio.sleep(0.1)
        assert (sum(asked(fleet)), fleet.daemon.counters.hedges_total) == (8, 2)
        release.set()
        assert [(await client.reply()).status for client in clients] == [200] * 6
        await fleet.until(lambda: fleet.daemon.brain.totals()["reservations"] == 0)
        for client in clients:
            client.close()


async def test_a_failure_of_one_attempt_leaves_the_other_in_the_race() -> None:
    release = asyncio.Event()

    async def dies_late(exchange: Any, seen: Seen) -> None:
        await release.wait()
        exchange.die()

    second = asyncio.Event()
    async with running(2, HEDGING) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script, fleet.nodes[1].script = dies_late, late(second)
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: asked(fleet) == [1, 1])
        release.set()
        await fleet.until(lambda: fleet.daemon.brain.node_view(0, 0).failures_total == 1)
        second.set()
        assert (await client.reply()).status == 200
        assert (asked(fleet), fleet.daemon.counters.retries_total) == ([1, 1], 0)
        client.close()


async def test_a_refusal_waits_for_the_hedge_that_may_say_better() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    async with running(2, HEDGING) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script, fleet.nodes[1].script = late(first, b'{"error":"busy"}', 429), late(second)
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: asked(fleet) == [1, 1])
        first.set()
        await fleet.until(lambda: fleet.daemon.brain.totals()["reservations"] == 1)
        second.set()
        assert (await client.reply()).status == 200
        client.close()


async def test_a_client_that_leaves_ends_both_attempts() -> None:
    async with running(2, HEDGING) as fleet:
        for node in fleet.nodes:
            node.script = late(asyncio.Event())
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: asked(fleet) == [1, 1])
        client.close()
        await fleet.until(lambda: [node.lost_while_busy for node in fleet.nodes] == [1, 1])
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def test_an_overtaken_pick_is_explained_by_the_node_that_answered() -> None:
    async with running(2, HEDGING) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = late(asyncio.Event())
        fleet.nodes[1].script = lambda exchange, seen: exchange.reply(extra=b"server-timing: compute;dur=1.5\r\n")
        await ask(fleet.port, infer(extra=b"x-request-id: r-7\r\n"))
        told = fleet.daemon.explained["r-7"]
        assert fleet.daemon.brain.names[told.choice.node_index] == "node-1"
        assert told.observed_ms is not None
