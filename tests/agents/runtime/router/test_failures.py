"""Nodes that die, hang, refuse and come back; what clients notice of it."""

import asyncio
import os
import resource
import socket
from typing import Any

import pytest

from agents.runtime.router.limits import Limits
from agents.wire.messages import Phase
from tests.agents.runtime.router.fakes import FAST, Client, Fleet, Seen, ask, get, infer, infer_body, load, running

SLOW_STREAM = FAST._replace(silence_seconds=5.0)


async def test_a_node_that_dies_before_answering_costs_the_client_nothing() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.die()
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.headers[b"x-helm-retries"]) == (200, b"1")
        assert [len(node.infers()) for node in fleet.nodes] == [1, 1]
        assert fleet.daemon.counters.retries_total == 1
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 1


async def test_a_retry_carries_the_gap_of_the_first_try() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.die()
        await ask(fleet.port, infer())
        assert b"x-helm-reuse-gap-ms" not in fleet.nodes[1].infers()[0].headers


async def test_a_node_that_dies_in_the_middle_of_its_answer_is_retried_when_nothing_was_forwarded() -> None:
    def half(exchange: object, seen: Seen) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(0.01, exchange.die)  # type: ignore[attr-defined]

    async with running(2) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = half
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.body) == (200, b'{"outputs":[]}')
        assert [len(node.infers()) for node in fleet.nodes] == [1, 1]


async def test_a_node_that_dies_after_bytes_were_forwarded_gives_a_visibly_broken_answer() -> None:
    def half(exchange: object, seen: Seen) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 50_000)  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(0.02, exchange.die)  # type: ignore[attr-defined]

    async with running(2, FAST._replace(response_buffer_bytes=1_000)) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = half
        client = await Client.open(fleet.port)
        await client.send(infer())
        try:
            reply = await client.reply()
            assert not reply.complete
            assert len(reply.body) <= 50_000
        except ConnectionError:
            pass  # a reset is a visible break as well
        assert len(fleet.nodes[1].infers()) == 0


async def test_a_request_is_never_sent_twice_to_the_same_node() -> None:
    async with running(3) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.die()
        reply = await ask(fleet.port, infer())
        assert reply.status == 502
        assert "could not be retried" in reply.error
        assert [len(node.infers()) for node in fleet.nodes] == [1, 1, 1]


async def test_what_might_change_something_is_not_done_twice() -> None:
    async with running(3) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.die()
        reply = await ask(fleet.port, b"POST /v2/repository/models/helm-ranker/load HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert (reply.status, reply.headers[b"x-helm-reason"]) == (502, b"node_failed")
        assert sum(len(node.requests) for node in fleet.nodes) == 1


async def test_a_client_that_leaves_during_the_pause_before_a_retry_costs_no_second_node() -> None:
    async with running(2, limits=FAST._replace(retry_pause_seconds=10.0)) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.die()
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: sum(len(node.infers()) for node in fleet.nodes) == 1)
        client.close()
        await fleet.until(lambda: not fleet.daemon.gauges().in_flight)
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def test_retries_stop_at_two() -> None:
    async with running(4) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.die()
        assert (await ask(fleet.port, infer())).status == 502
        assert sum(len(node.infers()) for node in fleet.nodes) == 3


async def test_an_empty_retry_budget_ends_retries() -> None:
    async with running(2, FAST._replace(retry_burst=1.0, retry_ratio=0.0, breaker_failures=1_000)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.die()
        statuses = []
        for _ in range(2):
            await fleet.prefer(0)
            statuses.append((await ask(fleet.port, infer())).status)
        assert statuses == [200, 502]


async def test_a_failure_that_no_other_node_can_make_good_leaves_the_budget_to_others() -> None:
    async with running(1, FAST._replace(retry_burst=1.0, retry_ratio=0.0, breaker_failures=1_000)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.die()
        assert (await ask(fleet.port, infer())).status == 502
        assert fleet.daemon.retry_budget.tokens == 1.0
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def test_requests_that_spend_the_budget_during_anothers_pause_leave_it_its_failure() -> None:
    async with running(2, FAST._replace(retry_burst=1.0, retry_ratio=0.0, retry_pause_seconds=0.2, breaker_failures=1_000)) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.die()
        replies = await asyncio.gather(*(ask(fleet.port, infer()) for _ in range(3)))
        assert sorted(reply.status for reply in replies) == [200, 502, 502]
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def test_a_killed_node_is_noticed_at_once_and_rejoins_when_it_is_back() -> None:
    async with running(2) as fleet:
        await fleet.nodes[0].kill()
        await fleet.until_ready(1)
        assert {(await ask(fleet.port, infer(infer_body(f"u{i}")))).status for i in range(10)} == {200}
        assert len(fleet.nodes[0].infers()) == 0
        await fleet.nodes[0].start()
        await fleet.until_ready(2)
        await fleet.prefer(0)
        assert (await ask(fleet.port, infer())).status == 200
        assert len(fleet.nodes[0].infers()) == 1


async def test_killing_a_node_under_load_loses_no_request() -> None:
    async def work(exchange: object, seen: Seen) -> None:
        await asyncio.sleep(0.01)
        exchange.reply()  # type: ignore[attr-defined]

    async with running(3) as fleet:
        for node in fleet.nodes:
            node.script = work
        statuses: list[int] = []

        async def client(number: int) -> None:
            connection = await Client.open(fleet.port)
            for i in range(12):
                await connection.send(infer(infer_body(f"u{number}-{i}")))
                statuses.append((await connection.reply()).status)
            connection.close()

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(client(number))
            await fleet.until(lambda: len(statuses) > 30)
            await fleet.nodes[1].kill()
        assert statuses == [200] * 144
        assert fleet.daemon.brain.totals()["reservations"] == 0
        assert fleet.daemon.counters.retries_total > 0


async def test_a_busy_node_is_tried_once_elsewhere_and_its_refusal_passed_on_with_retry_after() -> None:
    busy = b'{"error":"busy"}'
    async with running(3) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.reply(429, busy, b"retry-after: 2\r\n")
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.body, reply.headers[b"retry-after"]) == (429, busy, b"2")
        assert sum(len(node.infers()) for node in fleet.nodes) == 2


async def test_a_busy_nodes_request_succeeds_elsewhere() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(503, b'{"error":"draining"}', b"retry-after: 1\r\n")
        assert (await ask(fleet.port, infer())).status == 200


async def test_a_single_busy_node_passes_its_refusal_on() -> None:
    async with running(1) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(429, b'{"error":"busy"}', b"retry-after: 2\r\n")
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.error) == (429, "busy")


@pytest.mark.parametrize("status", [400, 404, 413, 501, 505])
async def test_other_refusals_pass_through_unchanged(status: int) -> None:
    async with running(2) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.reply(status, b'{"error":"said the node"}')
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.error) == (status, "said the node")
        assert sum(len(node.infers()) for node in fleet.nodes) == 1


LOAD = b"POST /v2/repository/models/helm-ranker/load HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


async def test_a_nodes_failure_is_made_good_by_another_node() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(500, b'{"error":"the device is lost"}')
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.headers[b"x-helm-retries"]) == (200, b"1")
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 1
        assert fleet.daemon.brain.totals()["reservations"] == 0


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize(
    ("request_bytes", "asked", "limits"), [(infer(), 3, FAST), (LOAD, 1, FAST), (infer(), 1, FAST._replace(retry_burst=0.0))]
)
async def test_a_failure_passes_through_unchanged_when_nobody_else_may_be_asked(
    status: int, request_bytes: bytes, asked: int, limits: Limits
) -> None:
    async with running(3, limits._replace(retry_ratio=0.0)) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.reply(status, b'{"error":"said the node"}')
        reply = await ask(fleet.port, request_bytes)
        assert (reply.status, reply.error) == (status, "said the node")
        assert sum(len(node.requests) for node in fleet.nodes) == asked
        assert max(len(node.requests) for node in fleet.nodes) == 1
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def test_a_node_that_fails_every_request_attracts_none_of_them_for_long() -> None:
    async with running(2, FAST._replace(breaker_failures=2, breaker_open_seconds=0.1)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(500, b'{"error":"the device is lost"}')
        for _ in range(2):
            await fleet.prefer(0)
            assert (await ask(fleet.port, infer())).status == 200
        assert fleet.daemon.breakers.is_open(0)
        await fleet.until(lambda: not fleet.daemon.breakers.mask[0])
        await fleet.prefer(0)
        assert (await ask(fleet.port, infer())).status == 200
        assert len(fleet.nodes[0].infers()) == 3
        assert fleet.daemon.breakers.is_open(0)  # its trial failed


async def test_a_busy_node_is_asked_past_when_the_one_before_was_broken() -> None:
    async with running(3) as fleet:
        scripts = [
            lambda exchange, seen: exchange.reply(500, b'{"error":"broken"}'),
            lambda exchange, seen: exchange.reply(429, b'{"error":"busy"}'),
            lambda exchange, seen: exchange.reply(),
        ]
        order = iter(scripts)
        for node in fleet.nodes:
            node.script = lambda exchange, seen: next(order)(exchange, seen)
        assert (await ask(fleet.port, infer())).status == 200
        assert [len(node.infers()) for node in fleet.nodes] == [1, 1, 1]


async def test_a_failure_too_long_to_hold_back_is_left_for_another_node_before_a_byte_of_it_went_on() -> None:
    async with running(2, FAST._replace(response_buffer_bytes=1_000)) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(500, b"x" * 50_000)
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.body) == (200, b'{"outputs":[]}')
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 1
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def test_a_failure_too_long_to_hold_back_passes_through_whole_when_nobody_else_may_be_asked() -> None:
    async with running(1, FAST._replace(response_buffer_bytes=1_000)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(500, b"x" * 50_000)
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.body) == (500, b"x" * 50_000)
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 1
        assert fleet.daemon.retry_budget.tokens == FAST.retry_burst


async def test_without_a_ready_node_the_answer_is_503_with_retry_after() -> None:
    async with running(1) as fleet:
        await fleet.nodes[0].kill()
        await fleet.until_ready(0)
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.headers[b"retry-after"]) == (503, b"1")
        assert reply.error == "no node is ready"


async def test_a_draining_node_gets_nothing() -> None:
    async with running(2) as fleet:
        fleet.nodes[0].load = load(Phase.DRAINING)
        await fleet.until_ready(1)
        for i in range(6):
            assert (await ask(fleet.port, infer(infer_body(f"u{i}")))).status == 200
        assert [len(node.infers()) for node in fleet.nodes] == [0, 6]


async def test_a_node_that_does_not_answer_in_time_is_left_for_another() -> None:
    async with running(2, SLOW_STREAM._replace(attempt_seconds=0.1)) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: None
        assert (await ask(fleet.port, infer())).status == 200
        assert [len(node.infers()) for node in fleet.nodes] == [1, 1]


async def test_a_fleet_that_does_not_answer_in_time_is_a_503() -> None:
    async with running(2, SLOW_STREAM._replace(attempt_seconds=0.1, request_seconds=0.15)) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: None
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.error) == (503, "no node answered in time")
        assert fleet.daemon.brain.totals()["reservations"] == 0


async def slow_reader(port: int) -> Client:
    """A client with small buffers, so that an answer of some megabytes must wait for it."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return Client(*await asyncio.open_connection(sock=raw, limit=16_384))


async def blocked(fleet: Fleet) -> None:
    """Until the router has stopped writing to a client that does not read."""
    await fleet.until(lambda: any(exchange._blocked_ns for exchange in fleet.daemon._exchanges))


async def test_a_slow_reader_of_a_long_answer_gets_all_of_it_and_nobody_is_blamed() -> None:
    big = b"x" * 8_000_000
    async with running(1, SLOW_STREAM._replace(attempt_seconds=0.1, request_seconds=0.2, response_buffer_bytes=10_000)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(body=big)
        client = await slow_reader(fleet.port)
        await client.send(infer())
        await blocked(fleet)
        await asyncio.sleep(0.3)
        assert (await client.reply()).body == big
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 0
        client.close()


async def test_a_client_that_never_reads_is_cut_off_and_the_node_is_not_blamed() -> None:
    limits = SLOW_STREAM._replace(attempt_seconds=0.1, response_buffer_bytes=10_000, write_seconds=0.3, breaker_failures=1)
    async with running(1, limits) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(body=b"x" * 8_000_000)
        client = await slow_reader(fleet.port)
        await client.send(infer())
        await blocked(fleet)
        await fleet.until(lambda: not fleet.daemon.gauges().in_flight)
        assert fleet.daemon.brain.node_view(0, 0).failures_total == 0
        assert not fleet.daemon.breakers.is_open(0)
        assert fleet.daemon.brain.totals()["reservations"] == 0
        client.close()


async def test_a_node_that_stops_in_the_middle_of_a_long_answer_is_cut_off_and_blamed() -> None:
    def half(exchange: Any, seen: Seen) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 50_000)

    async with running(1, SLOW_STREAM._replace(attempt_seconds=0.1, response_buffer_bytes=1_000)) as fleet:
        fleet.nodes[0].script = half
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: fleet.daemon.brain.node_view(0, 0).failures_total == 1)
        client.close()


async def test_a_router_without_descriptors_says_so_and_blames_no_node() -> None:
    async with running(2, SLOW_STREAM._replace(breaker_failures=1, reuse_seconds=60.0)) as fleet:
        client = await Client.open(fleet.port)
        await client.send(get(b"/v2/health/live"))
        assert (await client.reply()).status == 200
        own, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.dup(client.writer.get_extra_info("socket").fileno())
        os.close(spare)  # the lowest free descriptor is the first that may not be opened
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            await client.send(infer())
            reply = await client.reply()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (own, hard))
        assert (reply.status, reply.error) == (503, "the router has no file descriptor left for a connection to a node")
        assert fleet.daemon.counters.without_descriptor_total == 1
        assert [fleet.daemon.brain.node_view(index, 0).failures_total for index in range(2)] == [0, 0]
        assert not any(fleet.daemon.breakers.is_open(index) for index in range(2))
        assert fleet.daemon.brain.totals()["reservations"] == 0
        await client.send(infer())
        assert (await client.reply()).status == 200
        client.close()


async def test_a_node_that_speaks_nonsense_is_a_failed_node() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        fleet.nodes[0].script = lambda exchange, seen: exchange.write(b"\x00\x01 what?\r\n\r\n")
        assert (await ask(fleet.port, infer())).status == 200


async def test_a_breaker_opens_after_failures_and_closes_after_a_good_answer() -> None:
    async with running(2, FAST._replace(breaker_failures=2, breaker_open_seconds=0.2)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.die()
        for _ in range(2):
            await fleet.prefer(0)
            await ask(fleet.port, infer())
        assert fleet.daemon.breakers.is_open(0)
        await fleet.prefer(0)
        assert (await ask(fleet.port, infer())).headers.get(b"x-helm-retries") is None
        assert len(fleet.nodes[0].infers()) == 2
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply()
        await fleet.until(lambda: not fleet.daemon.breakers.mask[0])
        await fleet.prefer(0)
        assert (await ask(fleet.port, infer())).status == 200
        assert not fleet.daemon.breakers.is_open(0)


async def test_a_departing_client_cancels_its_nodes_work() -> None:
    async def work(exchange: object, seen: Seen) -> None:
        await asyncio.sleep(30)

    async with running(1) as fleet:
        fleet.nodes[0].script = work
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: len(fleet.nodes[0].infers()) == 1)
        client.close()
        await fleet.until(lambda: fleet.nodes[0].lost_while_busy == 1)
        assert fleet.daemon.brain.totals()["reservations"] == 0
        assert fleet.daemon.counters.requests == {0: 1}
