"""What a client sees through the router, and what a node sees of it."""

import asyncio

import msgspec
import pytest

from agents.wire.ids import user_key
from agents.wire.messages import ResidencySnapshot
from tests.agents.runtime.router.fakes import FAST, KEY, SALT, Client, ask, get, infer, infer_body, running


async def test_a_request_reaches_a_node_with_its_body_untouched() -> None:
    async with running(1) as fleet:
        body = b' { "inputs" : [ ] , "parameters":{"user_id":"\\u00e9"} }\n'
        reply = await ask(fleet.port, infer(body))
        assert (reply.status, reply.body) == (200, b'{"outputs":[]}')
        assert [seen.body for seen in fleet.nodes[0].infers()] == [body]
        assert fleet.nodes[0].infers()[0].target == b"/v2/models/helm-ranker/infer"


async def test_an_answer_names_the_node_and_the_request() -> None:
    async with running(1) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(extra=b"server-timing: queue;dur=1\r\nx-helm-node: node-0\r\n")
        reply = await ask(fleet.port, infer(extra=b"x-request-id: abc-1\r\n"))
        assert reply.headers[b"x-request-id"] == b"abc-1"
        assert reply.headers[b"x-gateway-destination-endpoint-served"] == b"127.0.0.1:%d" % fleet.nodes[0].port
        assert reply.headers[b"server-timing"] == b"queue;dur=1"
        assert reply.headers[b"x-helm-node"] == b"node-0"
        assert fleet.nodes[0].infers()[0].headers[b"x-request-id"] == b"abc-1"


async def test_a_bad_request_id_is_replaced() -> None:
    async with running(1) as fleet:
        reply = await ask(fleet.port, infer(extra=b"x-request-id: a b;c\r\n"))
        assert reply.status == 200
        assert b" " not in reply.headers[b"x-request-id"]
        assert fleet.nodes[0].infers()[0].headers[b"x-request-id"] == reply.headers[b"x-request-id"]


async def test_only_known_headers_travel_and_clients_cannot_forge_the_routers_own() -> None:
    forged = (
        b"x-helm-reuse-gap-ms: 5\r\nx-helm-resident-elsewhere: 1\r\nauthorization: Bearer stolen\r\n"
        b"connection: x-secret\r\nx-secret: 1\r\ntraceparent: 00-a-b-01\r\n"
    )
    async with running(1) as fleet:
        await ask(fleet.port, infer(extra=forged))
        names = fleet.nodes[0].infers()[0].names
        assert sorted(names) == [b"content-length", b"content-type", b"host", b"traceparent", b"x-request-id"]


async def test_the_second_request_of_a_user_carries_the_gap() -> None:
    async with running(1) as fleet:
        await ask(fleet.port, infer(infer_body("u7")))
        await ask(fleet.port, infer(infer_body("u7")))
        first, second = fleet.nodes[0].infers()
        assert b"x-helm-reuse-gap-ms" not in first.headers
        assert 0 <= int(second.headers[b"x-helm-reuse-gap-ms"]) < 5_000


async def test_a_user_resident_elsewhere_is_said_to_be() -> None:
    async with running(2) as fleet:
        key = user_key("u7", SALT)
        fleet.daemon.heard_residency(1, ResidencySnapshot(seq=9, user_keys=[key], cached_tokens=[128]))
        await fleet.prefer(0)
        await ask(fleet.port, infer(infer_body("u7")))
        assert fleet.nodes[0].infers()[0].headers[b"x-helm-resident-elsewhere"] == b"1"


async def test_a_resident_user_goes_to_its_node() -> None:
    async with running(3) as fleet:
        key = user_key(42, SALT)
        fleet.daemon.heard_residency(2, ResidencySnapshot(seq=9, user_keys=[key], cached_tokens=[640]))
        for _ in range(3):
            await ask(fleet.port, infer(infer_body(42, history=700)))
        assert [len(node.infers()) for node in fleet.nodes] == [0, 0, 3]


async def test_connections_are_kept_on_both_sides() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        for _ in range(5):
            await client.send(infer())
            assert (await client.reply()).status == 200
        # one for the residency stream, one for requests, at most one more for the reuse pushes
        assert len(fleet.nodes[0].connections) <= 3
        client.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        await client.send(b"".join(infer(extra=b"x-request-id: r%d\r\n" % i) for i in range(5)))
        text = b""
        while text.count(b'{"outputs":[]}') < 5:
            text += await client.reader.read(65_536)
        order = [line[14:] for line in text.split(b"\r\n") if line.startswith(b"x-request-id: ")]
        assert order == [b"r0", b"r1", b"r2", b"r3", b"r4"]
        client.close()


async def test_metadata_paths_are_proxied_and_others_are_not() -> None:
    async with running(1) as fleet:
        assert (await ask(fleet.port, get(b"/v2/models/helm-ranker"))).status == 200
        assert (await ask(fleet.port, get(b"/v1/status"))).status == 404
        assert (await ask(fleet.port, b"PUT /v1/control HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")).status == 400
        assert [seen.target for seen in fleet.nodes[0].requests] == [b"/v2/models/helm-ranker"]


H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"


@pytest.mark.parametrize("segment_bytes", [1, 7, 150, 100_000])
async def test_a_client_that_offers_http_2_is_served_in_http_1(segment_bytes: int) -> None:
    async with running(1) as fleet:
        bodies = [b'{"inputs":[],"parameters":{"user_id":"u%d"}}' % i for i in range(3)]
        sent = infer(bodies[0], H2C) + infer(bodies[1]) + infer(bodies[2], H2C)
        client = await Client.open(fleet.port)
        for start in range(0, len(sent), segment_bytes):
            client.writer.write(sent[start : start + segment_bytes])
            await asyncio.sleep(0)
        await fleet.until(lambda: fleet.daemon.counters.requests.get(200) == 3)
        assert [seen.body for seen in fleet.nodes[0].infers()] == bodies
        assert b"upgrade" not in fleet.nodes[0].infers()[0].names
        client.close()


async def test_a_body_in_chunks_behind_an_offer_of_http_2_arrives() -> None:
    async with running(1) as fleet:
        head = b"POST /v2/models/helm-ranker/infer HTTP/1.1\r\nhost: x\r\n" + H2C + b"transfer-encoding: chunked\r\n\r\n"
        assert (await ask(fleet.port, head + b"2\r\n{}\r\n0\r\n\r\n")).status == 200
        assert fleet.nodes[0].infers()[0].body == b"{}"


async def test_a_page_asked_for_by_websocket_is_the_page() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        for _ in range(2):
            await client.send(get(b"/v2/health/live", b"connection: upgrade\r\nupgrade: websocket\r\n"))
            assert (await client.reply()).status == 200
        client.close()


@pytest.mark.parametrize("origin", [b"http://router:8780", b"HTTPS://router"])
async def test_a_target_in_absolute_form_is_its_path(origin: bytes) -> None:
    async with running(1) as fleet:
        assert (await ask(fleet.port, infer().replace(b"POST ", b"POST " + origin, 1))).status == 200
        assert fleet.nodes[0].infers()[0].target == b"/v2/models/helm-ranker/infer"
        assert (await ask(fleet.port, get(origin + b"/v2/health/live?a=b"))).status == 200
        assert (await ask(fleet.port, get(origin))).status == 404


async def test_a_user_is_read_from_a_body_whose_encoding_changes_nothing() -> None:
    async with running(1) as fleet:
        assert (await ask(fleet.port, infer(extra=b"content-encoding: Identity\r\n"))).status == 200
        assert fleet.daemon.counters.cold_requests_total == 0


async def test_a_chunked_body_arrives_with_a_length() -> None:
    async with running(1) as fleet:
        body = infer_body()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 700]), body[i : i + 700]) for i in range(0, len(body), 700))
        head = b"POST /v2/models/helm-ranker/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        assert (await ask(fleet.port, head + chunks + b"0\r\n\r\n")).status == 200
        assert fleet.nodes[0].infers()[0].body == body
        assert fleet.nodes[0].infers()[0].headers[b"content-length"] == str(len(body)).encode()


async def test_a_client_that_expects_100_gets_it() -> None:
    async with running(1) as fleet:
        body = infer_body()
        client = await Client.open(fleet.port)
        await client.send(infer(body, b"expect: 100-continue\r\n")[: -len(body)])
        assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.reply()).status == 200
        client.close()


async def test_a_client_that_expects_100_before_its_chunks_gets_it() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        head = b"POST /v2/models/helm-ranker/infer HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head)
        assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"2\r\n{}\r\n0\r\n\r\n")
        assert (await client.reply()).status == 200
        assert fleet.nodes[0].infers()[0].body == b"{}"
        client.close()


@pytest.mark.parametrize("before", [get(b"/v2/health/live"), infer(), infer() + infer()])
async def test_a_client_that_expects_100_behind_other_requests_gets_it_when_they_are_answered(before: bytes) -> None:
    async with running(1) as fleet:
        body = infer_body()
        client = await Client.open(fleet.port)
        await client.send(before + infer(body, b"expect: 100-continue\r\n")[: -len(body)])
        async with asyncio.timeout(5.0):
            text = await client.reader.readuntil(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert text.count(b"HTTP/1.1 200") == max(1, before.count(b"POST"))
        await client.send(body)
        assert (await client.reply()).status == 200
        client.close()


async def test_an_http_1_0_client_is_served_and_closed() -> None:
    async with running(1) as fleet:
        client = await Client.open(fleet.port)
        body = infer_body()
        await client.send(b"POST /v2/models/helm-ranker/infer HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        reply = await client.reply()
        assert (reply.status, reply.headers[b"connection"]) == (200, b"close")
        assert await client.closed()


async def test_health_follows_the_nodes() -> None:
    async with running(1) as fleet:
        assert (await ask(fleet.port, get(b"/v2/health/live"))).status == 200
        assert (await ask(fleet.port, get(b"/v2/health/ready"))).status == 200
        await fleet.nodes[0].kill()
        await fleet.until_ready(0)
        reply = await ask(fleet.port, get(b"/v2/health/ready"))
        assert (reply.status, reply.headers[b"retry-after"]) == (503, b"1")
        assert (await ask(fleet.port, get(b"/v2/health/live"))).status == 200


async def test_the_fleet_view_needs_the_key_and_counts() -> None:
    async with running(2) as fleet:
        for i in range(4):
            await ask(fleet.port, infer(infer_body(f"u{i}")))
        assert (await ask(fleet.port, get(b"/v1/fleet"))).status == 401
        assert (await ask(fleet.port, get(b"/v1/fleet", b"authorization: Bearer wrong\r\n"))).status == 401
        reply = await ask(fleet.port, get(b"/v1/fleet", b"authorization: Bearer %s\r\n" % KEY.encode()))
        view = msgspec.json.decode(reply.body)
        assert view["router"]["picks_total"] == 4
        assert view["router"]["users_known"] == 4
        assert view["router"]["retries_total"] == 0
        assert view["router"]["latency_ms_p50"] > 0
        assert sum(node["picks_total"] for node in view["nodes"]) == 4
        assert [node["phase"] for node in view["nodes"]] == ["ready", "ready"]
        assert all(node["staleness_ms"] < 1_000 for node in view["nodes"])


async def test_a_pick_is_explained_by_its_request_id() -> None:
    async with running(2) as fleet:
        await fleet.prefer(1)
        await ask(fleet.port, infer(extra=b"x-request-id: why\r\n"))
        bearer = b"authorization: Bearer %s\r\n" % KEY.encode()
        assert (await ask(fleet.port, get(b"/debug/picks/why"))).status == 401
        assert (await ask(fleet.port, get(b"/debug/picks/unknown", bearer))).status == 404
        told = msgspec.json.decode((await ask(fleet.port, get(b"/debug/picks/why", bearer))).body)
        assert told["picked"] == "node-1"
        slow, quick = (node["components"] for node in told["nodes"])
        assert slow["queue"] > 400 > quick["queue"]
        parts = ("fixed", "kv", "emb", "candidates", "refill")
        assert abs(sum(quick[part] for part in parts) - quick["service"]) < 1e-3


async def test_metrics_count_requests_and_picks() -> None:
    async with running(1) as fleet:
        await ask(fleet.port, infer())
        text = (await ask(fleet.port, get(b"/metrics"))).body.decode()
        assert 'helm_router_requests_total{code="200"} 1.0' in text
        assert 'helm_router_picks_total{node="node-0"} 1.0' in text
        assert "helm_router_pick_duration_seconds_count 1.0" in text
        assert 'helm_router_node_ready{node="node-0"} 1.0' in text


async def test_nodes_are_told_the_clusters_reuse() -> None:
    async with running(2) as fleet:
        for _ in range(2):
            await ask(fleet.port, infer(infer_body("u1", history=256)))
        await fleet.until(lambda: all(node.reuse and sum(node.reuse[-1].references_per_second) > 0 for node in fleet.nodes))
        for node in fleet.nodes:
            told = node.reuse[-1]
            assert told.nodes == 2
            assert len(told.edges_tokens) == len(told.references_per_second) == 129
            assert told.edges_tokens[-1] == 2 * 65_536
            assert told.sampling_rate == 1.0


async def test_a_large_answer_is_streamed_whole() -> None:
    big = bytes(range(256)) * 4_096
    async with running(1, FAST._replace(response_buffer_bytes=10_000)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(body=big)
        assert (await ask(fleet.port, infer())).body == big

        def chunked(exchange: object, seen: object) -> None:
            exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")  # type: ignore[attr-defined]
            for start in range(0, len(big), 50_000):
                piece = big[start : start + 50_000]
                exchange.write(b"%x\r\n%s\r\n" % (len(piece), piece))  # type: ignore[attr-defined]
            exchange.write(b"0\r\n\r\n")  # type: ignore[attr-defined]

        fleet.nodes[0].script = chunked
        assert (await ask(fleet.port, infer())).body == big


async def test_a_client_that_does_not_read_a_large_answer_holds_the_node_back_and_gets_all_of_it() -> None:
    big = b"x" * 8_000_000
    async with running(1, FAST._replace(response_buffer_bytes=10_000)) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(body=big)
        client = await Client.open(fleet.port)
        await client.send(infer())
        await fleet.until(lambda: bool(fleet.nodes[0].infers()))
        assert len((await client.reply()).body) == len(big)
        client.close()
