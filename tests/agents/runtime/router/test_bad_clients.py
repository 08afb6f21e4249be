"""Clients that are slow, garbled, greedy or hostile: a clear refusal, and the router serves on."""

import asyncio
import contextlib
import random

import pytest

from tests.agents.runtime.router.fakes import FAST, Client, ask, get, infer, infer_body, running

INFER = b"POST /v2/models/helm-ranker/infer HTTP/1.1\r\n"


async def test_a_20_mb_body_is_413_and_the_client_reads_it() -> None:
    async with running(1) as fleet:
        reply = await ask(fleet.port, infer(b"x" * 20_000_000))
        assert reply.status == 413
        assert reply.error == "the request body exceeds 16777216 bytes"
        assert fleet.nodes[0].infers() == []
        assert (await ask(fleet.port, infer())).status == 200


async def test_a_chunked_body_that_grows_too_large_is_413() -> None:
    async with running(1, FAST._replace(body_bytes_max=10_000)) as fleet:
        client = await Client.open(fleet.port)
        await client.send(INFER + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(6):
            await client.send(b"7d0\r\n" + b"x" * 2_000 + b"\r\n")
        assert (await client.reply()).status == 413
        client.close()


async def test_a_client_that_asks_before_sending_a_huge_body_is_refused_without_it() -> None:
    async with running(1) as fleet:
        head = INFER + b"host: x\r\nexpect: 100-continue\r\ncontent-length: 20000000\r\n\r\n"
        assert (await ask(fleet.port, head)).status == 413


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\n", "headers"),
        (INFER + b"host: x\r\ncontent-length: 100\r\n\r\n{", "body"),
        (b"P", "headers"),
    ],
)
async def test_a_slow_client_is_408(sent: bytes, what: str) -> None:
    async with running(1, FAST._replace(head_seconds=0.1, body_seconds=0.1)) as fleet:
        reply = await ask(fleet.port, sent)
        assert reply.status == 408
        assert what in reply.error
        assert fleet.nodes[0].requests == []


@pytest.mark.parametrize("cut", [20, -10])
async def test_a_request_that_breaks_off_is_400_and_counted(cut: int) -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        await client.send(infer()[:cut])
        client.writer.write_eof()
        reply = await client.reply()
        assert (reply.status, reply.error) == (400, "the request ended before it was whole")
        assert await client.closed()
        assert fleet.daemon.counters.requests == {400: 1}
        assert fleet.nodes[0].requests == []
        client.close()


async def test_dripping_bytes_does_not_extend_the_deadline() -> None:
    async with running(1, FAST._replace(head_seconds=0.2)) as fleet:
        client = await Client.open(fleet.port)
        await client.send(b"GET /v2 HTTP/1.1\r\nhost: x\r\n")
        reply = asyncio.get_running_loop().create_task(client.reply())
        while not reply.done():
            client.writer.write(b"x-drip: 1\r\n")
            await asyncio.sleep(0.02)
        assert reply.result().status == 408


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with running(1, FAST._replace(idle_seconds=0.05)) as fleet:
        client = await Client.open(fleet.port)
        assert await client.closed()


async def test_a_client_that_never_reads_its_answer_does_not_stay_for_ever() -> None:
    limits = FAST._replace(idle_seconds=0.05, write_seconds=0.1, response_buffer_bytes=1 << 24)
    async with running(1, limits) as fleet:
        client = await Client.open(fleet.port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await fleet.until(lambda: fleet.daemon.gauges().connections == 1)
        (connection,) = fleet.daemon._connections
        connection.transport.set_write_buffer_limits(high=1 << 26)  # type: ignore[union-attr]  # as if less were left: never paused
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(200, b"x" * 12_000_000)
        await client.send(infer())
        await fleet.until(lambda: fleet.daemon.gauges().connections == 0)
        client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nbad header: 1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-a: 1\x00\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n folded\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        INFER + b"host: x\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        INFER + b"host: x\r\ncontent-length: -3\r\n\r\n",
        INFER + b"host: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        INFER + b"host: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        INFER + b"host: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT router:8780 HTTP/1.1\r\nhost: router:8780\r\n\r\n",
        INFER + b"host: x\r\nhost: y\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc",
        INFER + b"host: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_request_whose_meaning_is_in_doubt_is_400_and_reaches_no_node(sent: bytes) -> None:
    async with running(1) as fleet:
        reply = await ask(fleet.port, sent)
        assert reply.status == 400
        assert reply.error
        assert reply.headers[b"connection"] == b"close"
        assert fleet.nodes[0].requests == []


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        await client.send(infer() + b"nonsense\r\n\r\n")
        text = b""
        while piece := await client.reader.read(65_536):
            text += piece
        assert text.index(b"HTTP/1.1 200") < text.index(b"HTTP/1.1 400")
        assert len(fleet.nodes[0].infers()) == 1


@pytest.mark.parametrize(
    "extra",
    [b"x-a: " + b"y" * 40_000 + b"\r\n", b"".join(b"x-%d: 1\r\n" % i for i in range(200))],
)
async def test_too_much_header_is_413(extra: bytes) -> None:
    async with running(1) as fleet:
        assert (await ask(fleet.port, get(b"/v2", extra))).status == 413


async def test_a_header_that_never_ends_is_cut_off() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        await client.send(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-a: ")
        for _ in range(8):
            await client.send(b"y" * 8_192)
        assert (await client.reply()).status == 413


@pytest.mark.parametrize("opening", [b"0\r\nx-a: ", b"3\r\nabc\r\n0\r\nx-a: ", b"3;x="])
async def test_a_trailer_or_chunk_extension_that_never_ends_is_cut_off(opening: bytes) -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        await client.send(INFER + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n" + opening)
        reply = asyncio.get_running_loop().create_task(client.reply())
        for _ in range(100):
            client.writer.write(b"y" * 1_024)
            await asyncio.sleep(0)
        assert (await reply).status == 413
        assert fleet.nodes[0].requests == []


async def test_an_offer_to_upgrade_does_not_lift_the_bounds() -> None:
    async with running(1) as fleet:
        offer = b"connection: upgrade\r\nupgrade: h2c\r\n"
        assert (await ask(fleet.port, infer(b"x" * 20_000_000, offer))).status == 413
        client = await Client.open(fleet.port)
        await client.send(40 * get(b"/v2/health/live", offer))
        assert await client.reader.readuntil(b"429 Too Many Requests")
        assert (await ask(fleet.port, infer())).status == 200
        client.close()


async def test_trailers_are_dropped_here_and_do_not_reach_the_next_request() -> None:
    async with running(1) as fleet:
        body = infer_body()
        client = await Client.open(fleet.port)
        for _ in range(2):
            await client.send(INFER + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body))
            await client.send(b"x-helm-force-node: node-9\r\ncontent-encoding: gzip\r\ntraceparent: late\r\n\r\n")
            assert (await client.reply()).status == 200
        seen = fleet.nodes[0].infers()
        assert [one.body for one in seen] == [body, body]
        assert not {b"content-encoding", b"traceparent"} & {name for one in seen for name in one.names}
        assert fleet.daemon.counters.cold_requests_total == 0
        client.close()


async def test_too_many_bytes_of_trailers_are_413() -> None:
    async with running(1) as fleet:
        trailers = b"".join(b"x-%d: %s\r\n" % (i, b"y" * 1_000) for i in range(40))
        reply = await ask(fleet.port, INFER + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n")
        assert reply.status == 413
        assert fleet.nodes[0].requests == []


async def test_a_target_that_is_too_long_is_refused() -> None:
    async with running(1) as fleet:
        assert (await ask(fleet.port, get(b"/v2/" + b"a" * 5_000))).status == 413


@pytest.mark.parametrize("method", [b"DELETE", b"PUT", b"OPTIONS"])
async def test_methods_that_the_protocol_does_not_know_are_refused(method: bytes) -> None:
    async with running(1) as fleet:
        reply = await ask(fleet.port, method + b" /v2/models/helm-ranker HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (reply.status, reply.headers[b"allow"]) == (405, b"GET, POST")
        assert reply.error == "the inference protocol knows GET and POST only"
        assert fleet.nodes[0].requests == []


@pytest.mark.parametrize(
    ("path", "status"),
    [(b"/v2/health/live", 200), (b"/metrics", 200), (b"/v1/fleet", 401), (b"/nothing", 404), (b"/v2/models/helm-ranker", 405)],
)
async def test_an_answer_to_head_has_a_length_and_no_body(path: bytes, status: int) -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        await client.send(b"HEAD %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"content-length: " in head
        await client.send(get(b"/v2/health/live"))
        assert (await client.reply()).body == b'{"live":true}'
        assert fleet.nodes[0].requests == []
        client.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b'{"inputs": 3}',
        b'{"inputs": [{"name": "candidates", "shape": [1, 1e400]}]}',
        b'{"parameters": {"user_id": {"a": 1}}}',
        b"[" * 100_000,
        b'{"inputs":' + b"[" * 50_000,
        b'{"parameters": {"user_id": "' + b"x" * 200 + b'"}}',
        b'{"parameters": {"user_id": "\\ud800"}}',
    ],
)
async def test_a_body_that_cannot_be_read_goes_to_a_node_as_a_cold_request(body: bytes) -> None:
    async with running(1) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(400, b'{"error":"said the node"}')
        reply = await ask(fleet.port, infer(body))
        assert (reply.status, reply.error) == (400, "said the node")
        assert fleet.nodes[0].infers()[0].body == body
        assert fleet.daemon.counters.cold_requests_total == 1


@pytest.mark.parametrize("shape", [[1, 10**30], [1, -5], [], [1, 2**62]])
async def test_a_forged_shape_does_not_upset_the_pick(shape: list[int]) -> None:
    async with running(2) as fleet:
        body = b'{"inputs":[{"name":"history_items","shape":%s},{"name":"candidates","shape":%s}],"parameters":{"user_id":1}}' % (
            str(shape).encode(),
            str(shape).encode(),
        )
        assert (await ask(fleet.port, infer(body))).status == 200
        assert (await ask(fleet.port, infer())).status == 200


async def test_too_many_connections_are_told_so() -> None:
    async with running(1, FAST._replace(connections_max=2)) as fleet:
        held = [await Client.open(fleet.port) for _ in range(2)]
        for client in held:
            await client.send(infer())
            assert (await client.reply()).status == 200
        reply = await ask(fleet.port, b"")
        assert (reply.status, reply.headers[b"retry-after"]) == (429, b"1")
        for client in held:
            client.close()


async def test_refused_connections_that_linger_are_bounded_too() -> None:
    async with running(1, FAST._replace(connections_max=1, refused_max=2)) as fleet:
        clients = [await Client.open(fleet.port) for _ in range(3)]
        await fleet.until(lambda: fleet.daemon.gauges().connections == 3)
        assert await (await Client.open(fleet.port)).closed()
        assert fleet.daemon.gauges().connections == 3
        assert (await clients[2].reply()).status == 429
        for client in clients:
            client.close()


async def test_too_many_requests_in_flight_are_told_so() -> None:
    async with running(1, FAST._replace(in_flight_max=1)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: None
        first = await Client.open(fleet.port)
        await first.send(infer())
        await fleet.until(lambda: len(fleet.nodes[0].infers()) == 1)
        reply = await ask(fleet.port, infer())
        assert (reply.status, reply.headers[b"retry-after"]) == (429, b"1")
        first.close()


async def test_bodies_held_for_all_clients_together_are_bounded() -> None:
    async with running(1, FAST._replace(buffered_bytes_max=50_000)) as fleet:
        clients = [await Client.open(fleet.port) for _ in range(3)]
        for client in clients[:2]:
            await client.send(INFER + b"host: x\r\ncontent-length: 30000\r\n\r\n" + b"x" * 24_000)
        await fleet.until(lambda: fleet.daemon.gauges().buffered_bytes == 48_000)
        await clients[2].send(infer(b"x" * 5_000))
        assert (await clients[2].reply()).status == 429
        for client in clients:
            client.close()
        await fleet.until(lambda: fleet.daemon.gauges().buffered_bytes == 0)
        assert (await ask(fleet.port, infer(b"x" * 5_000))).status == 200


async def test_nothing_is_left_behind_by_a_hundred_rude_clients() -> None:
    async with running(1) as fleet:
        for i in range(100):
            client = await Client.open(fleet.port)
            await client.send(infer(infer_body(i))[: 40 + 13 * i])
            client.close()
        await fleet.until(lambda: fleet.daemon.gauges().connections == 0)
        gauges = fleet.daemon.gauges()
        assert (gauges.in_flight, gauges.buffered_bytes, gauges.totals["reservations"]) == (0, 0, 0)


async def test_mutated_requests_never_break_the_router() -> None:
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
    chance = random.Random(11)
    whole = infer(infer_body("u1", history=4, candidates=2), b"x-request-id: a\r\nexpect: 100-continue\r\n")
    pieces = [
        b"\r\n",
        b"\x00",
        b"chunked",
        b"transfer-encoding: chunked\r\n",
        b"content-length: 9\r\n",
        b": ",
        b"\xff" * 9,
        b"9" * 40,
        whole,
    ]
    async with running(1) as fleet:
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(data))
                if chance.random() < 0.5:
                    data[at : at + chance.randint(0, 12)] = chance.choice(pieces)
                else:
                    data[at] = chance.randrange(256)
            client = await Client.open(fleet.port)
            cut = chance.randrange(1, len(data))
            with contextlib.suppress(ConnectionError):
                await client.send(bytes(data[:cut]))
                await asyncio.sleep(0)
                await client.send(bytes(data[cut:]))
            client.close()
        await fleet.until(lambda: fleet.daemon.gauges().connections == 0)
        gauges = fleet.daemon.gauges()
        assert (gauges.in_flight, gauges.buffered_bytes, gauges.totals["reservations"]) == (0, 0, 0)
        assert (await ask(fleet.port, infer())).status == 200
    assert broken == []


async def test_garbage_from_nodes_never_breaks_the_router() -> None:
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
    chance = random.Random(12)
    good = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

    def answer(exchange: object, seen: object) -> None:
        data = bytearray(good)
        for _ in range(chance.randint(0, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        exchange.write(bytes(data))  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(0.002, exchange.die)  # type: ignore[attr-defined]

    async with running(3, FAST._replace(breaker_failures=10**6, retry_burst=10**6)) as fleet:
        for node in fleet.nodes:
            node.script = answer
        statuses = [(await ask(fleet.port, infer())).status for _ in range(60)]
        assert statuses.count(200) > 30
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.reply()
        assert (await ask(fleet.port, infer())).status == 200
        assert fleet.daemon.brain.totals()["reservations"] == 0
    assert broken == []
