"""What a router hears of its nodes' users: after a restart, over a gap, and from nodes that say what cannot be."""

import asyncio

import pytest
import structlog

from agents.profiles import load_profile
from agents.router.router import Router, RouterConfig
from agents.runtime.router.daemon import RouterDaemon
from agents.runtime.router.residency import RESIDENT_MAX
from agents.wire.ids import user_key
from agents.wire.messages import ResidencyDelta, ResidencySnapshot, UsersSeen
from tests.agents.runtime.router.fakes import FAST, SALT, Seen, ask, get, infer, infer_body, load, running

SLOW_STREAM = FAST._replace(silence_seconds=5.0)


async def test_a_user_served_through_another_router_comes_back_as_one_that_returns() -> None:
    async with running(1) as fleet:
        fleet.nodes[0].news.put_nowait(UsersSeen(user_keys=[user_key("u1", SALT)], ages_ms=[2_000]))
        await fleet.until(lambda: fleet.daemon.brain.totals()["users"] == 1)
        await ask(fleet.port, infer(infer_body("u1")))
        assert int(fleet.nodes[0].infers()[0].headers[b"x-helm-reuse-gap-ms"]) >= 2_000


async def test_a_restarted_router_knows_all_that_the_nodes_hold_once_they_are_ready() -> None:
    async with running(2) as fleet:
        for index, node in enumerate(fleet.nodes):
            node.snapshot = ResidencySnapshot(seq=5, user_keys=list(range(1, 501)), cached_tokens=[64 * (index + 1)] * 500)
        brain = Router([node.name for node in fleet.nodes], RouterConfig(users_max=1_024, copies_max=2_048), seed=2)
        again = RouterDaemon(fleet.daemon.fleet, load_profile("cpu-demo"), brain, FAST, seed=2)
        try:
            await again.start("127.0.0.1", 0)
            await fleet.until(lambda: brain.ready_count() == 2)
            assert all(brain.resident_tokens(key) == {"node-0": 64, "node-1": 128} for key in range(1, 501))
        finally:
            await again.close()


async def test_a_gap_in_the_residency_stream_is_asked_for_again() -> None:
    async with running(1) as fleet:
        node = fleet.nodes[0]
        await node.news.put(ResidencyDelta(seq_first=2, seq=2, user_keys=[5], cached_tokens=[64]))
        await fleet.until(lambda: fleet.daemon.sequence(0) == 2)
        node.snapshot = ResidencySnapshot(seq=5, user_keys=[6], cached_tokens=[128])
        await node.news.put(ResidencyDelta(seq_first=5, seq=5, user_keys=[6], cached_tokens=[128]))
        await fleet.until(lambda: fleet.daemon.sequence(0) == 5)
        assert node.residency_requests[1].target == b"/v1/residency?from=2"
        assert fleet.daemon.counters.gaps_total == 1
        assert fleet.daemon.brain.resident_tokens(5) == {}
        assert fleet.daemon.brain.resident_tokens(6) == {"node-0": 128}


@pytest.mark.parametrize(
    "frame",
    [
        b"not msgpack",
        ResidencyDelta(seq_first=2, seq=2, user_keys=[5, 6], cached_tokens=[64]),
        ResidencyDelta(seq_first=2, seq=2, user_keys=[0], cached_tokens=[64]),
        ResidencyDelta(seq_first=2, seq=2, user_keys=[5], cached_tokens=[-1]),
        ResidencyDelta(seq_first=2, seq=2, user_keys=[5], cached_tokens=[2**40]),
        load(ms_fixed=float("nan")),
        ResidencySnapshot(seq=2, user_keys=[5] * (RESIDENT_MAX + 1), cached_tokens=[64] * (RESIDENT_MAX + 1)),
        load(queued_ms=float("inf")),
        load(queued_ms=9e18),
        load(ms_per_token=1e9),
        load(emb_hit_ratio=1.5),
        load(kv_hit_compute_ratio=1.5),
        load(model_version="x" * 200),
        load(profile="x" * 200),
        UsersSeen(user_keys=[1], ages_ms=[]),
        UsersSeen(user_keys=[1], ages_ms=[-1]),
    ],
)
async def test_an_unsound_frame_ends_the_stream_and_changes_nothing(frame: object) -> None:
    async with running(1) as fleet:
        node = fleet.nodes[0]
        await node.news.put(frame)  # type: ignore[arg-type]
        await fleet.until(lambda: fleet.daemon.counters.stream_losses_total == 1)
        await fleet.until_ready(1)
        assert fleet.daemon.brain.totals()["copies"] == 0
        assert (await ask(fleet.port, infer())).status == 200


async def test_a_node_that_tells_of_more_users_than_its_share_is_noted_once_and_serves_on() -> None:
    async with running(2, SLOW_STREAM) as fleet:
        fleet.nodes[1].news.put_nowait(ResidencySnapshot(seq=5, user_keys=[5, 6], cached_tokens=[64, 64]))
        await fleet.until(lambda: fleet.daemon.sequence(1) == 5)
        with structlog.testing.capture_logs() as lines:
            for seq in (5, 6):
                fleet.nodes[0].news.put_nowait(ResidencySnapshot(seq=seq, user_keys=list(range(100, 700)), cached_tokens=[64] * 600))
            await fleet.until(lambda: fleet.daemon.sequence(0) == 6)
            await fleet.until(lambda: bool(lines))
        assert [(line["node"], line["log_level"]) for line in lines] == [("node-0", "warning")]
        assert fleet.daemon.brain.users_refused(0) == 2 * (600 - 512)
        assert fleet.daemon.brain.resident_tokens(5) == {"node-1": 64}
        assert fleet.daemon.brain.ready_count() == 2
        assert b"helm_router_users_refused_total 176.0" in (await ask(fleet.port, get(b"/metrics"))).body


async def test_a_silent_node_is_gone() -> None:
    async with running(1, FAST._replace(silence_seconds=0.1)) as fleet:
        held = asyncio.Event()
        original = fleet.nodes[0].respond

        async def silent(exchange: object, seen: Seen) -> None:
            await held.wait()
            await original(exchange, seen)  # type: ignore[arg-type]

        fleet.nodes[0].respond = silent  # type: ignore[method-assign, assignment]
        for connection in list(fleet.nodes[0].connections):
            for task in connection.tasks:
                task.cancel()  # the stream stays open and says nothing more
        await fleet.until_ready(0)
        held.set()
        await fleet.until_ready(1)


async def test_a_node_that_refuses_the_key_never_becomes_ready() -> None:
    async with running(1, key="another", ready=False) as fleet:
        await fleet.until(lambda: len(fleet.nodes[0].residency_requests) >= 3)
        assert fleet.daemon.brain.ready_count() == 0
        assert (await ask(fleet.port, infer())).status == 503
