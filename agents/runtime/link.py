"""The node's link to the control plane: it dials out, says hello, obeys commands, reports.

The node lives without it. A lost link is dialled again with jittered, growing pauses; commands are
fenced by their generation in the brain; acknowledgements wait for the next connection if need be.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec
import structlog

from agents.runtime.files import write_private
from agents.wire.errors import WireError
from agents.wire.messages import (
    WIRE_VERSION,
    Ack,
    AgentFrame,
    ControlFrame,
    DecisionRecord,
    EventFrame,
    Hello,
    NodeSpec,
    NodeTelemetry,
)

TELEMETRY_SECONDS = 1.0
PAUSE_SECONDS_MIN = 0.5
PAUSE_SECONDS_MAX = 15.0  # a control plane that comes back sees its whole fleet within this
DECISIONS_MAX = 256  # eight minutes at one in two seconds; the node's own ring has them longer
EVENTS_MAX = 1_024  # alerts are not dropped for lack of a minute's link; days of them are
HEARTBEAT_SECONDS = 5.0  # a dead peer is noticed within about twice this
CONNECT_SECONDS_MAX = 10.0
FRAME_BYTES_MAX = 1 << 20  # a command is a few hundred bytes
STEADY_SECONDS = 10.0  # a connection that held so long starts the pauses from the beginning again

log = structlog.get_logger(__name__)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ControlFrame)


class EnrolmentRefusedError(Exception):
    """The control plane did not accept the token or the credential."""


class Outbox:
    """What waits for the wire: acknowledgements first and never dropped, telemetry last and newest only."""

    def __init__(self) -> None:
        self._acks: deque[Ack] = deque()
        self._events: deque[EventFrame] = deque(maxlen=EVENTS_MAX)
        self._decisions: deque[DecisionRecord] = deque(maxlen=DECISIONS_MAX)
        self._telemetry: NodeTelemetry | None = None
        self._filled = asyncio.Event()

    def ack(self, ack: Ack) -> None:
        """Queue an answer to a command."""
        self._acks.append(ack)
        self._filled.set()

    def event(self, event: EventFrame) -> None:
        """Queue an event; the oldest goes when there are too many."""
        self._events.append(event)
        self._filled.set()

    def decision(self, record: DecisionRecord) -> None:
        """Queue a decision; the oldest goes when there are too many."""
        self._decisions.append(record)
        self._filled.set()

    def telemetry(self, telemetry: NodeTelemetry) -> None:
        """Offer a report; one that was not sent yet is replaced."""
        self._telemetry = telemetry
        self._filled.set()

    def peek(self) -> AgentFrame | None:
        """The next frame to send, left in place until `sent` says that it went."""
        for waiting in (self._acks, self._events, self._decisions):
            if waiting:
                return waiting[0]
        return self._telemetry

    def sent(self, frame: AgentFrame) -> None:
        """Take out a frame that went; it may have been displaced meanwhile."""
        for waiting in (self._acks, self._events, self._decisions):
            if waiting and waiting[0] is frame:
                waiting.popleft()
                return
        if self._telemetry is frame:
            self._telemetry = None

    async def next(self) -> AgentFrame:
        """Wait for a frame to send."""
        while (frame := self.peek()) is None:
            self._filled.clear()
            await self._filled.wait()
        return frame


class Backoff:
    """Pauses between attempts: doubling, capped, with full jitter above a floor."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._ceiling_seconds = PAUSE_SECONDS_MIN

    def pause_seconds(self) -> float:
        """How long to wait before the next attempt."""
        pause = self._chance.uniform(PAUSE_SECONDS_MIN / 2, self._ceiling_seconds)
        self._ceiling_seconds = min(2 * self._ceiling_seconds, PAUSE_SECONDS_MAX)
        return pause

    def reset(self) -> None:
        """The last attempt led somewhere."""
        self._ceiling_seconds = PAUSE_SECONDS_MIN


def enrol_url(control_url: str) -> str:
    """Where to enrol, beside the link: `ws://h:p/agents/v1/link` -> `http://h:p/api/v1/enrol/`."""
    parts = urlsplit(control_url)
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    return urlunsplit((scheme, parts.netloc, "/api/v1/enrol/", "", ""))


class Link:
    """One node's link. `hello` and `telemetry` are asked when needed, `obey` applies a command or raises `WireError`."""

    def __init__(
        self,
        *,
        control_url: str,
        credential_file: Path,
        enrol_token_file: Path | None,
        hello: Callable[[], Hello],
        telemetry: Callable[[], NodeTelemetry],
        obey: Callable[[NodeSpec], None],
        generation: Callable[[], int],
        chance: random.Random,
        telemetry_seconds: float = TELEMETRY_SECONDS,
    ) -> None:
        self.outbox = Outbox()
        self.connected = False
        self.frames_rejected_total = 0
        self._control_url = control_url
        self._credential_file = credential_file
        self._enrol_token_file = enrol_token_file
        self._hello = hello
        self._telemetry = telemetry
        self._obey = obey
        self._generation = generation
        self._backoff = Backoff(chance)
        self._telemetry_seconds = telemetry_seconds

    async def run(self) -> None:
        """Keep the link up for ever; ends by cancellation only."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._connect(session)
                except (aiohttp.ClientError, OSError, EnrolmentRefusedError, msgspec.DecodeError) as error:
                    log.warning("link_down", error=str(error) or type(error).__name__)
                except Exception:  # a bug in a report must not leave the node out of reach for ever
                    log.exception("link_failed")
                if asyncio.get_running_loop().time() - began >= STEADY_SECONDS:
                    self._backoff.reset()
                await asyncio.sleep(self._backoff.pause_seconds())

    # --- enrolment ------------------------------------------------------------------------

    async def _credential(self, session: aiohttp.ClientSession) -> str:
        """The stored credential, or a new one for the one-time token."""
        try:
            stored = self._credential_file.read_text("utf-8").strip()
        except FileNotFoundError:
            stored = ""
        return stored or await self._enrol(session)

    async def _enrol(self, session: aiohttp.ClientSession) -> str:
        if self._enrol_token_file is None or not self._enrol_token_file.exists():
            raise EnrolmentRefusedError("no credential and no enrolment token")
        token = self._enrol_token_file.read_text("utf-8").strip()
        hello = self._hello()
        request = {"token": token, "name": hello.name, "profile": hello.profile, "infer_url": hello.infer_url}
        limit = aiohttp.ClientTimeout(total=CONNECT_SECONDS_MAX)
        async with session.post(enrol_url(self._control_url), json=request, timeout=limit) as response:
            body = await response.content.read(FRAME_BYTES_MAX)
            if response.status not in (200, 201):
                raise EnrolmentRefusedError(f"enrolment was refused with status {response.status}")
        credential = msgspec.json.decode(body, type=_Enrolled).credential
        write_private(self._credential_file, credential.encode())
        log.info("enrolled", url=self._control_url)
        return credential

    # --- one connection -------------------------------------------------------------------

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {await self._credential(session)}"}
        try:
            socket = await session.ws_connect(
                self._control_url, headers=headers, heartbeat=HEARTBEAT_SECONDS, max_msg_size=FRAME_BYTES_MAX, autoping=True
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                await self._renew(session)
            raise
        async with socket:
            await socket.send_bytes(_ENCODER.encode(self._hello()))
            self.connected = True
            log.info("link_up", url=self._control_url)
            try:
                await self._converse(socket)
            finally:
                self.connected = False

    async def _renew(self, session: aiohttp.ClientSession) -> None:
        """The control plane knows this credential no longer: enrol again if there is a fresh token."""
        if self._enrol_token_file is not None and self._enrol_token_file.exists():
            await self._enrol(session)

    async def _converse(self, socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        """Send and report until the other side ends the connection or one of the tasks fails."""
        helpers = [asyncio.create_task(self._send(socket)), asyncio.create_task(self._report())]
        reading = asyncio.create_task(self._receive(socket))
        try:
            done, _ = await asyncio.wait([reading, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (reading, *helpers):
                task.cancel()
            await asyncio.gather(reading, *helpers, return_exceptions=True)

    async def _send(self, socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        while True:
            frame = await self.outbox.next()
            await socket.send_bytes(_ENCODER.encode(frame))
            self.outbox.sent(frame)

    async def _report(self) -> None:
        while True:
            self.outbox.telemetry(self._telemetry())
            await asyncio.sleep(self._telemetry_seconds)

    async def _receive(self, socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self._take(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                self._reject("a text frame")

    def _take(self, data: bytes) -> None:
        """One frame of the control plane. What does not decode is counted and passed over."""
        try:
            command = _DECODER.decode(data)
        except (msgspec.DecodeError, ValueError) as error:
            self._reject(str(error))
            return
        try:
            self._obey(command.spec)
        except WireError as error:
            refused = Ack(
                command_id=command.command_id,
                observed_generation=self._generation(),
                accepted=False,
                error_code=error.code.value,
                detail=error.detail,
            )
            self.outbox.ack(refused)
        else:
            self.outbox.ack(Ack(command_id=command.command_id, observed_generation=self._generation(), accepted=True))

    def _reject(self, why: str) -> None:
        self.frames_rejected_total += 1
        log.warning("frame_rejected", why=why, total=self.frames_rejected_total)


class _Enrolled(msgspec.Struct, frozen=True):
    credential: str


__all__ = ["WIRE_VERSION", "Backoff", "EnrolmentRefusedError", "Link", "Outbox", "enrol_url"]
