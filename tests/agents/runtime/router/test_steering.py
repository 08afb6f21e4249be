"""Requests that say where they may go: a version, a subset of endpoints, a node an operator forces."""

import time

import msgspec
import pytest
from structlog.testing import capture_logs

from agents.wire import tickets
from agents.wire.messages import ResidencySnapshot
from tests.agents.runtime.router.fakes import FAST, KEY, Fleet, ask, get, infer, infer_body, load, running

OPERATOR = f"authorization: Bearer {KEY}\r\n".encode()


def subset(fleet: Fleet, *indexes: int) -> bytes:
    endpoints = ",".join(f"127.0.0.1:{fleet.nodes[index].port}" for index in indexes)
    return f"x-gateway-destination-endpoint-subset: {endpoints}\r\n".encode()


def infer_version(version: str) -> bytes:
    body = infer_body()
    return (
        f"POST /v2/models/helm-ranker/versions/{version}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )


async def test_a_request_goes_only_to_the_endpoints_its_caller_allows() -> None:
    async with running(3) as fleet:
        await fleet.prefer(0)
        reply = await ask(fleet.port, infer(extra=subset(fleet, 2)))
        assert reply.status == 200
        assert [len(node.infers()) for node in fleet.nodes] == [0, 0, 1]
        assert reply.headers[b"x-gateway-destination-endpoint"] == f"127.0.0.1:{fleet.nodes[2].port}".encode()


async def test_a_subset_of_strangers_and_an_empty_one_are_503_with_a_reason() -> None:
    async with running(2) as fleet:
        for extra in (b"x-gateway-destination-endpoint-subset: 10.0.0.1:80\r\n", b"x-gateway-destination-endpoint-subset: \r\n"):
            reply = await ask(fleet.port, infer(extra=extra))
            assert (reply.status, reply.headers[b"x-helm-reason"]) == (503, b"no_ready_node")
            assert reply.headers[b"retry-after"] == b"1"
            assert reply.error == "no node that this request may go to is ready"


async def test_a_failed_node_of_a_subset_is_not_replaced_by_one_outside_it() -> None:
    async with running(3) as fleet:
        for node in fleet.nodes:
            node.script = lambda exchange, seen: exchange.die()
        reply = await ask(fleet.port, infer(extra=subset(fleet, 0, 1)))
        assert reply.status == 502
        assert [len(node.infers()) for node in fleet.nodes] == [1, 1, 0]


async def test_an_operator_forces_a_node_and_nobody_else_does() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        reply = await ask(fleet.port, infer(extra=OPERATOR + b"x-helm-force-node: node-1\r\n"))
        assert (reply.status, len(fleet.nodes[1].infers())) == (200, 1)
        for extra in (b"", b"authorization: Bearer wrong\r\n"):
            assert (await ask(fleet.port, infer(extra=extra + b"x-helm-force-node: node-1\r\n"))).status == 401
        assert (await ask(fleet.port, infer(extra=OPERATOR + b"x-helm-force-node: node-9\r\n"))).status == 400
        assert [len(node.infers()) for node in fleet.nodes] == [0, 1]
        assert all(b"authorization" not in seen.headers and b"x-helm-force-node" not in seen.headers for seen in fleet.nodes[1].infers())


def ticket(who: str = "olga", key: str = KEY, ttl_seconds: float = 60.0) -> str:
    return tickets.issue(tickets.Ticket(who=who, expires_unix_seconds=int(time.time() + ttl_seconds)), key)


def forcing(bearer: str) -> bytes:
    return infer(extra=f"authorization: Bearer {bearer}\r\nx-helm-force-node: node-1\r\nx-request-id: r-1\r\n".encode())


async def test_an_operators_ticket_forces_a_node_and_who_forced_it_is_written_down() -> None:
    async with running(2) as fleet:
        await fleet.prefer(0)
        with capture_logs() as logs:
            reply = await ask(fleet.port, forcing(ticket()))
        assert (reply.status, len(fleet.nodes[1].infers())) == (200, 1)
        (entry,) = [entry for entry in logs if entry["event"] == "node forced"]
        assert (entry["by"], entry["node"], entry["request_id"]) == ("olga", "node-1", "r-1")


@pytest.mark.parametrize("bearer", [ticket(key="of another fleet"), ticket(ttl_seconds=-1.0), ticket()[:-1], "helm_" + "x" * 43, ""])
async def test_a_forged_expired_or_cut_ticket_and_a_viewers_token_force_nothing(bearer: str) -> None:
    async with running(2) as fleet:
        reply = await ask(fleet.port, forcing(bearer))
        assert (reply.status, reply.headers[b"x-helm-reason"]) == (401, b"unauthenticated")
        assert reply.error == "forcing a node needs an operator's ticket or the fleet's key"
        assert sum(len(node.infers()) for node in fleet.nodes) == 0


async def test_a_forced_node_that_is_away_is_503_and_no_other_answers() -> None:
    async with running(2) as fleet:
        await fleet.nodes[1].kill()
        await fleet.until_ready(1)
        reply = await ask(fleet.port, infer(extra=OPERATOR + b"x-helm-force-node: node-1\r\n"))
        assert (reply.status, len(fleet.nodes[0].infers())) == (503, 0)


async def test_a_version_is_served_by_the_nodes_that_have_it() -> None:
    async with running(2) as fleet:
        for index, version in enumerate(("1", "2")):
            fleet.nodes[index].load = load(model_version=version, queued_ms=300.0 * index)
        await fleet.until(lambda: fleet.daemon.brain.model_versions == ["1", "2"])
        assert (await ask(fleet.port, infer_version("2"))).status == 200
        assert [len(node.infers()) for node in fleet.nodes] == [0, 1]
        reply = await ask(fleet.port, infer_version("3"))
        assert (reply.status, reply.headers[b"x-helm-reason"]) == (404, b"unknown_model")
        assert (await ask(fleet.port, infer())).status == 200


async def test_a_model_flip_forgets_what_the_node_held_until_it_tells_again() -> None:
    async with running(1) as fleet:
        node = fleet.nodes[0]
        node.snapshot = ResidencySnapshot(seq=1, user_keys=[7], cached_tokens=[128])
        node.load = load(model_version="1")
        await fleet.until(lambda: fleet.daemon.brain.model_versions == ["1"])
        fleet.daemon.heard_residency(0, node.snapshot)
        node.load = load(model_version="2")
        await fleet.until(lambda: fleet.daemon.brain.model_versions == ["2"])
        assert fleet.daemon.brain.resident_tokens(7) == {}
        assert fleet.daemon.brain.sequence(0) == -1


async def test_without_a_ready_node_a_router_that_fails_open_sends_blindly_and_counts_it() -> None:
    async with running(2, limits=FAST._replace(fail_open=True), key=KEY, ready=False) as fleet:
        for index in range(2):
            fleet.daemon.brain.node_gone(index)
        reply = await ask(fleet.port, infer())
        assert reply.status == 200
        assert fleet.daemon.counters.blind_total == 1
        refused = await ask(fleet.port, infer(extra=b"x-gateway-destination-endpoint-subset: 10.0.0.1:80\r\n"))
        assert refused.status == 503


async def test_a_blind_pick_is_explained_by_the_node_it_was_sent_to() -> None:
    async with running(2, limits=FAST._replace(fail_open=True), key="another", ready=False) as fleet:
        reply = await ask(fleet.port, infer(extra=b"x-request-id: r-3\r\n"))
        assert fleet.daemon.counters.blind_total == 1
        told = msgspec.json.decode((await ask(fleet.port, get(b"/debug/picks/r-3", b"authorization: Bearer another\r\n"))).body)
        served = [
            name
            for name, pool in zip(fleet.daemon.brain.names, fleet.daemon.pools, strict=True)
            if pool.endpoint == reply.headers[b"x-gateway-destination-endpoint-served"]
        ]
        assert [told["picked"]] == served
        assert [node["filtered"] for node in told["nodes"]] == ["offline", "offline"]


async def test_a_node_speaks_for_itself_only() -> None:
    async with running(2) as fleet:
        everything = ResidencySnapshot(seq=9, user_keys=list(range(1, 50)), cached_tokens=[512] * 49)
        fleet.nodes[1].news.put_nowait(everything)
        await fleet.until(lambda: fleet.daemon.brain.sequence(1) == 9)
        assert fleet.daemon.brain.resident_tokens(7) == {"node-1": 512}
        named = msgspec.msgpack.encode({"type": "snapshot", "name": "node-0", "seq": 10, "user_keys": [7], "cached_tokens": [64]})
        fleet.nodes[1].news.put_nowait(named)
        await fleet.until(lambda: fleet.daemon.brain.sequence(1) == 10)
        assert fleet.daemon.brain.resident_tokens(7) == {"node-1": 64}


async def test_where_a_request_may_go_is_part_of_its_explanation() -> None:
    async with running(3) as fleet:
        extra = OPERATOR + b"x-helm-force-node: node-2\r\nx-request-id: r-1\r\n" + subset(fleet, 1, 2)
        await ask(fleet.port, infer(extra=extra))
        told = msgspec.json.decode((await ask(fleet.port, get(b"/debug/picks/r-1", OPERATOR))).body)
        assert [node["filtered"] for node in told["nodes"]] == ["subset", "forced", ""]


async def test_a_request_that_nobody_could_take_is_explained_too() -> None:
    async with running(2) as fleet:
        extra = b"x-gateway-destination-endpoint-subset: 10.0.0.1:80\r\nx-request-id: r-2\r\n"
        await ask(fleet.port, infer(extra=extra))
        told = msgspec.json.decode((await ask(fleet.port, get(b"/debug/picks/r-2", OPERATOR))).body)
        assert (told["picked"], [node["filtered"] for node in told["nodes"]]) == (None, ["subset", "subset"])
