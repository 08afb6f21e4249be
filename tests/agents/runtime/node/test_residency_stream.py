"""The stream in which a node tells routers what it holds: whole, what was missed, who was seen, how loaded it is."""

import asyncio
import struct

import aiohttp
import msgspec
import pytest

from agents.runtime import residency_stream
from agents.wire.ids import user_key
from agents.wire.messages import NodeLoad, Phase, ResidencyDelta, ResidencyFrame, ResidencySnapshot, UsersSeen
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, settle, until
from tests.agents.runtime.node.serving import INFER, KEY, SALT, answer, infer_body, served


class Follower:
    """Reads frames of a residency stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self._decoder = msgspec.msgpack.Decoder(ResidencyFrame)

    async def frame(self) -> ResidencyFrame:
        async with asyncio.timeout(PATIENCE_SECONDS):
            (length,) = struct.unpack(">I", await self._content.readexactly(4))
            return self._decoder.decode(await self._content.readexactly(length))

    async def news(self) -> ResidencySnapshot | ResidencyDelta:
        while isinstance(frame := await self.frame(), NodeLoad | UsersSeen):
            pass
        return frame


async def test_the_stream_begins_with_a_snapshot_and_goes_on_with_changes() -> None:
    async with served() as node:
        async with node.client.post(INFER, json=infer_body(user="a")):
            pass
        async with node.client.get("/v1/residency", headers=KEY) as response:
            follower = Follower(response)
            first = await follower.frame()
            assert isinstance(first, ResidencySnapshot)
            assert (first.user_keys, first.cached_tokens) == ([user_key("a", SALT)], [8])
            assert await follower.frame() == UsersSeen(user_keys=[user_key("a", SALT)], ages_ms=[0])
            assert isinstance(await follower.frame(), NodeLoad)
            async with node.client.post(INFER, json=infer_body(user="b")):
                pass
            delta = await follower.news()
            assert isinstance(delta, ResidencyDelta)
            assert delta.seq_first == first.seq + 1
            assert (delta.user_keys, delta.cached_tokens) == ([user_key("b", SALT)], [8])


async def test_a_reader_that_was_away_gets_what_it_missed() -> None:
    async with served() as node:
        async with node.client.post(INFER, json=infer_body(user="a")):
            seq = node.engine.residency_since(-1).seq
        async with node.client.post(INFER, json=infer_body(user="b")):
            pass
        async with node.client.get(f"/v1/residency?from={seq}", headers=KEY) as response:
            delta = await Follower(response).frame()
            assert isinstance(delta, ResidencyDelta)
            assert (delta.seq_first, delta.user_keys) == (seq + 1, [user_key("b", SALT)])


async def test_a_number_from_another_life_of_the_node_gets_a_snapshot() -> None:
    async with served() as node:
        async with node.client.post(INFER, json=infer_body(user="a")):
            pass
        for query in ("from=1&instance=life-0", "from=1000000"):
            async with node.client.get(f"/v1/residency?{query}", headers=KEY) as response:
                assert response.headers["x-helm-instance"] == "life-1"
                assert isinstance(await Follower(response).frame(), ResidencySnapshot)


async def test_load_comes_regularly_and_says_when_the_node_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_stream, "LOAD_SECONDS", 0.01)
    async with served() as node, node.client.get("/v1/residency?from=0", headers=KEY) as response:
        follower = Follower(response)
        for _ in range(3):
            frame = await follower.frame()
            assert isinstance(frame, NodeLoad)
            assert frame.phase is Phase.READY
        await node.engine.drain(1.0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while isinstance(frame := await follower.frame(), NodeLoad) and frame.phase is Phase.READY:
                pass
        assert frame.phase is Phase.DRAINING


async def test_a_reader_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_stream, "DRAIN_SECONDS_MAX", 0.1)
    async with served() as node:

        async def stuck(_: bytes) -> None:
            await asyncio.sleep(PATIENCE_SECONDS)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(residency_stream.stream_residency(node.engine, -1, stuck), PATIENCE_SECONDS / 2)
        assert node.engine.residency_watchers == set()


async def test_readers_that_go_leave_no_watcher_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_stream, "LOAD_SECONDS", 0.01)
    async with served() as node:
        async with node.client.get("/v1/residency", headers=KEY) as response:
            await Follower(response).frame()
            assert len(node.engine.residency_watchers) == 1
        await until(lambda: not node.engine.residency_watchers)


async def test_a_node_that_stops_ends_its_streams_at_once() -> None:
    async with served() as node:
        async with node.client.get("/v1/residency", headers=KEY) as response:
            await Follower(response).frame()
            await node.listener.close()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await response.content.read()  # with its last chunk; a stream that is cut raises here
        assert node.engine.residency_watchers == set()


async def test_the_number_of_readers_is_bounded() -> None:
    async with served() as node:
        streams = [await node.client.get("/v1/residency", headers=KEY) for _ in range(16)]
        async with node.client.get("/v1/residency", headers=KEY) as response:
            assert response.status == 429
        for stream in streams:
            stream.close()
        await settle()


@pytest.mark.parametrize("start", ["x", "-2", "1.5", "9" * 30])
async def test_a_place_that_is_no_number_is_refused(start: str) -> None:
    async with served() as node, node.client.get(f"/v1/residency?from={start}", headers=KEY) as response:
        assert (response.status, (await answer(response))["field"]) == (400, "from")
