"""The link to the control plane, against a small one on a real socket."""

import asyncio
import json
import random
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import WSCloseCode, web

from agents.runtime.link import EVENTS_MAX, PAUSE_SECONDS_MAX, Backoff, Link, Outbox, enrol_url
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import Ack, AgentFrame, EventFrame, Hello, Mode, NodeSpec, NodeTelemetry, SpecCommand
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, Parts, until

TOKEN = "one-time"
_DECODER = msgspec.msgpack.Decoder(AgentFrame)


class ControlPlane:
    """Enrols with one token, once; keeps every frame it hears; can hang up."""

    def __init__(self) -> None:
        self.enrolments: list[dict[str, Any]] = []
        self.credentials: set[str] = set()
        self.heard: list[AgentFrame] = []
        self.connections = 0
        self.socket: web.WebSocketResponse | None = None
        self.tokens = {TOKEN}
        self.news = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ControlPlane"]:
        app = web.Application()
        app.add_routes([web.post("/api/v1/enrol/", self._enrol), web.get("/agents/v1/link", self._link)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await self.hang_up()
            await runner.cleanup()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/agents/v1/link"

    async def _enrol(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["token"] not in self.tokens:
            return web.json_response({"title": "token was used"}, status=403)
        self.tokens.remove(body["token"])
        self.enrolments.append(body)
        credential = f"credential-{len(self.enrolments)}"
        self.credentials.add(credential)
        return web.json_response({"credential": credential}, status=201)

    async def _link(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.credentials:
            return web.Response(status=401)
        self.connections += 1
        self.socket = web.WebSocketResponse()
        await self.socket.prepare(request)
        async for message in self.socket:
            self.heard.append(_DECODER.decode(message.data))
            self.news.set()
        return self.socket

    async def send(self, content: bytes | str) -> None:
        assert self.socket is not None
        if isinstance(content, str):
            await self.socket.send_str(content)
        else:
            await self.socket.send_bytes(content)

    async def command(self, command_id: str, spec: NodeSpec) -> Ack:
        """Send a command and wait for its acknowledgement."""
        await self.send(msgspec.msgpack.encode(SpecCommand(command_id=command_id, spec=spec)))
        return await self.hear(lambda frame: isinstance(frame, Ack) and frame.command_id == command_id)

    async def hear(self, wanted: Callable[[AgentFrame], bool]) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for frame in self.heard:
                    if wanted(frame):
                        return frame
                self.news.clear()
                await self.news.wait()

    async def hang_up(self) -> None:
        if self.socket is not None:
            await self.socket.close(code=WSCloseCode.GOING_AWAY)
            self.socket = None


def make_link(parts: Parts, plane: ControlPlane, folder: Path, token: str | None = TOKEN) -> Link:
    token_file = folder / "token"
    if token is not None:
        token_file.write_text(f"{token}\n")
    return Link(
        control_url=plane.url,
        credential_file=folder / "credential",
        enrol_token_file=token_file,
        hello=lambda: Hello(
            name="node-0",
            wire_version=1,
            observed_generation=parts.node.desired.generation,
            profile="tiny",
            device="cpu",
            emulated=True,
            infer_url="http://127.0.0.1:1",
            started_unix_ns=1,
        ),
        telemetry=lambda: parts.engine.telemetry(count=True),
        obey=parts.engine.apply,
        generation=lambda: parts.node.desired.generation,
        chance=random.Random(1),
        telemetry_seconds=0.02,
    )


class Linked(Parts):
    plane: ControlPlane
    link: Link


@asynccontextmanager
async def linked(folder: Path, token: str | None = TOKEN) -> AsyncIterator[Linked]:
    async with Linked() as parts, ControlPlane().serving() as plane:
        parts.plane = plane
        parts.link = make_link(parts, plane, folder, token)
        task = asyncio.create_task(parts.link.run())
        try:
            yield parts
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_node_enrols_once_says_hello_first_and_reports(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        reports = [await node.plane.hear(lambda frame, seq=seq: isinstance(frame, NodeTelemetry) and frame.seq == seq) for seq in (1, 2, 3)]
        assert isinstance(node.plane.heard[0], Hello)
        assert [report.name for report in reports] == ["node-0"] * 3
        assert node.plane.enrolments == [{"token": TOKEN, "name": "node-0", "profile": "tiny", "infer_url": "http://127.0.0.1:1"}]
        assert (tmp_path / "credential").read_text() == "credential-1"
        assert stat.S_IMODE((tmp_path / "credential").stat().st_mode) == 0o600
        assert node.link.connected


async def test_a_stored_credential_is_used_instead_of_the_token(tmp_path: Path) -> None:
    (tmp_path / "credential").write_text("credential-9\n")
    async with linked(tmp_path) as node:
        node.plane.credentials.add("credential-9")
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        assert node.plane.enrolments == []


async def test_a_credential_the_control_plane_forgot_is_renewed_with_a_fresh_token(tmp_path: Path) -> None:
    (tmp_path / "credential").write_text("from a database that is gone")
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        assert (tmp_path / "credential").read_text() == "credential-1"


async def test_a_used_token_is_refused_and_the_node_lives_on(tmp_path: Path) -> None:
    async with linked(tmp_path, token="used before") as node:
        await until(lambda: node.link._backoff._ceiling_seconds >= 1.0)  # it was refused at least once
        assert node.plane.connections == 0
        assert not (tmp_path / "credential").exists()
        assert node.engine.telemetry().phase == "ready"


async def test_a_command_is_applied_and_acknowledged_with_its_generation(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        spec = NodeSpec(generation=4, mode=Mode.OVERRIDE, emb_ratio=0.7, reason="test", ttl_remaining_ms=60_000)
        ack = await node.plane.command("c1", spec)
        assert ack == Ack(command_id="c1", observed_generation=4, accepted=True)
        status = node.engine.telemetry()
        assert (status.mode, status.observed_generation, status.override_remaining_ms) == (Mode.OVERRIDE, 4, 60_000)


async def test_a_stale_command_is_refused_by_code_and_changes_nothing(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        await node.plane.command("c1", NodeSpec(generation=4, mode=Mode.PIN, emb_ratio=0.7, reason="test"))
        ack = await node.plane.command("c2", NodeSpec(generation=3))
        assert (ack.accepted, ack.error_code, ack.observed_generation) == (False, ErrorCode.STALE_GENERATION, 4)
        assert node.engine.telemetry().mode is Mode.PIN


async def test_a_command_outside_the_guard_rails_is_refused_by_code(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        ack = await node.plane.command("c1", NodeSpec(generation=1, mode=Mode.PIN, emb_ratio=0.99, reason="test"))
        assert (ack.accepted, ack.error_code) == (False, ErrorCode.OUTSIDE_GUARD_RAILS)
        assert "0.99" in ack.detail


async def test_frames_that_do_not_decode_are_counted_and_the_link_stays(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        for nonsense in (b"\xc1", b"", msgspec.msgpack.encode({"type": "spec"}), msgspec.msgpack.encode({"type": "reboot"}), "text"):
            await node.plane.send(nonsense)
        rails = {"emb_ratio_min": 0.9, "emb_ratio_max": 0.1}
        impossible = {"type": "spec", "command_id": "x", "spec": {"guard_rails": rails}}
        await node.plane.send(msgspec.msgpack.encode(impossible))
        ack = await node.plane.command("c1", NodeSpec(generation=1))
        assert ack.accepted
        assert node.link.frames_rejected_total == 6
        assert node.plane.connections == 1


async def test_a_lost_link_is_dialled_again_and_says_what_it_knows(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, Hello))
        await node.plane.command("c1", NodeSpec(generation=6))
        await node.plane.hang_up()
        again = await node.plane.hear(lambda frame: isinstance(frame, Hello) and frame.observed_generation == 6)
        assert again.name == "node-0"
        assert node.plane.connections == 2
        assert len(node.plane.enrolments) == 1


async def test_a_control_plane_that_was_away_hears_the_events_of_that_time(tmp_path: Path) -> None:
    async with Parts() as parts:
        plane = ControlPlane()
        async with plane.serving():
            pass  # a port that is free now
        link = make_link(parts, plane, tmp_path)
        task = asyncio.create_task(link.run())
        try:
            for number in range(3):
                link.outbox.event(EventFrame(kind="override_expired", at_unix_ns=number, detail={}))
            async with plane.serving():
                await plane.hear(lambda frame: isinstance(frame, EventFrame) and frame.at_unix_ns == 2)
                events = [frame.at_unix_ns for frame in plane.heard if isinstance(frame, EventFrame)]
                assert events == [0, 1, 2]
                assert isinstance(plane.heard[0], Hello)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def report(seq: int, parts: Parts) -> NodeTelemetry:
    return msgspec.structs.replace(parts.engine.telemetry(), seq=seq)


async def test_a_slow_wire_gets_the_newest_report_every_ack_and_events_in_order() -> None:
    async with Parts() as parts:
        outbox = Outbox()
        for seq in range(5):
            outbox.telemetry(report(seq, parts))
            outbox.event(EventFrame(kind="ratio_moved", at_unix_ns=seq, detail={}))
            outbox.ack(Ack(command_id=str(seq), observed_generation=seq, accepted=True))
        sent: list[AgentFrame] = []
        while (frame := outbox.peek()) is not None:
            sent.append(frame)
            outbox.sent(frame)
        assert [frame.command_id for frame in sent if isinstance(frame, Ack)] == ["0", "1", "2", "3", "4"]
        assert [frame.at_unix_ns for frame in sent if isinstance(frame, EventFrame)] == [0, 1, 2, 3, 4]
        assert [frame.seq for frame in sent if isinstance(frame, NodeTelemetry)] == [4]
        assert isinstance(sent[0], Ack)


async def test_a_report_that_is_replaced_while_its_elder_is_on_the_wire_is_sent_too() -> None:
    async with Parts() as parts:
        outbox = Outbox()
        outbox.telemetry(report(1, parts))
        first = await outbox.next()
        outbox.telemetry(report(2, parts))
        outbox.sent(first)
        second = await outbox.next()
        assert isinstance(second, NodeTelemetry)
        assert second.seq == 2


async def test_events_are_bounded_and_the_oldest_go_but_acks_are_not() -> None:
    outbox = Outbox()
    for number in range(EVENTS_MAX + 10):
        outbox.event(EventFrame(kind="ratio_moved", at_unix_ns=number, detail={}))
        outbox.ack(Ack(command_id=str(number), observed_generation=0, accepted=True))
    assert len(outbox._events) == EVENTS_MAX
    assert outbox._events[0].at_unix_ns == 10
    assert len(outbox._acks) == EVENTS_MAX + 10


def test_pauses_grow_with_jitter_to_a_ceiling_and_start_again() -> None:
    backoff = Backoff(random.Random(3))
    pauses = [backoff.pause_seconds() for _ in range(200)]
    assert pauses[0] <= 0.5
    assert all(0.25 <= pause <= PAUSE_SECONDS_MAX for pause in pauses)
    assert max(pauses) > 0.8 * PAUSE_SECONDS_MAX
    assert len(set(pauses)) == 200
    backoff.reset()
    assert backoff.pause_seconds() <= 0.5


@pytest.mark.parametrize(
    ("link", "enrol"),
    [
        ("ws://127.0.0.1:8700/agents/v1/link", "http://127.0.0.1:8700/api/v1/enrol/"),
        ("wss://helm.example/agents/v1/link?x=1", "https://helm.example/api/v1/enrol/"),
    ],
)
def test_enrolment_lies_beside_the_link(link: str, enrol: str) -> None:
    assert enrol_url(link) == enrol


async def test_obeying_may_refuse_with_any_code(tmp_path: Path) -> None:
    async with Parts() as parts:
        plane = ControlPlane()
        link = make_link(parts, plane, tmp_path)

        def refuse(_: NodeSpec) -> None:
            raise WireError(ErrorCode.INVALID_REQUEST, "no", "field")

        link._obey = refuse
        link._take(msgspec.msgpack.encode(SpecCommand(command_id="c", spec=NodeSpec())))
        ack = link.outbox.peek()
        assert isinstance(ack, Ack)
        assert (ack.accepted, ack.error_code, ack.detail) == (False, "invalid_request", "no")
        assert json.dumps(ack.error_code)


async def test_a_report_that_fails_does_not_end_the_link(tmp_path: Path) -> None:
    async with linked(tmp_path) as node:
        await node.plane.hear(lambda frame: isinstance(frame, NodeTelemetry))
        report_as_ever, calls = node.link._telemetry, iter([True])

        def stumble() -> NodeTelemetry:
            if next(calls, False):
                raise RuntimeError("a bug")
            return report_as_ever()

        node.link._telemetry = stumble
        await until(lambda: node.plane.connections == 2)
        await node.plane.command("c1", NodeSpec(generation=1))
