"""What happens beside the host's requests: ticks, refills and the link to the control plane, on one thread."""

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from agents.profiles import Profile
from agents.runtime.clock import Clock
from agents.runtime.hosted.pool import HostedPool
from agents.runtime.link import Link
from agents.runtime.refill import RefillFeeder
from agents.wire.messages import DecisionRecord, Hello

START_SECONDS_MAX = 30.0

log = structlog.get_logger(__name__)


class ControlPlane(NamedTuple):
    """Where to report to and take commands from; as a node's own options of these names."""

    url: str  # ws://HOST:PORT/agents/v1/link
    credential_file: Path
    enrol_token_file: Path | None = None


class Life:
    """A daemon thread with a loop of its own; the host needs none."""

    def __init__(
        self,
        pool: HostedPool,
        profile: Profile,
        tick_ns: int,
        clock: Clock,
        control: ControlPlane | None,
        hello: Callable[[], Hello],
    ) -> None:
        self._pool = pool
        self._profile = profile
        self._tick_seconds = tick_ns / 1e9
        self._clock = clock
        self._control = control
        self._hello = hello
        self._refill: RefillFeeder | None = None
        self._link: Link | None = None
        self._stop: Callable[[], None] = lambda: None
        self._started = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="helm-caches", daemon=True)

    def start(self) -> None:
        """Begin to tick; returns when the loop runs."""
        self._thread.start()
        if not self._started.wait(START_SECONDS_MAX):
            raise RuntimeError("the caches' thread did not start")

    def close(self) -> None:
        """End ticks, refills and link."""
        self._stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            log.exception("hosted_caches_failed")
            self.failure = error
        finally:
            self._started.set()

    async def _live(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: _call(loop, stop.set)
        self._refill = RefillFeeder(self._profile, self._pool.stage, self._staged, loop)
        self._link = self._make_link()
        linked = asyncio.create_task(self._link.run()) if self._link is not None else None
        self._started.set()
        try:
            await self._tick_until(stop)
        finally:
            if linked is not None:
                linked.cancel()
                await asyncio.gather(linked, return_exceptions=True)
            await asyncio.to_thread(self._refill.close)

    async def _tick_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            wanted, records = self._pool.tick(self._backlog_bytes())
            if self._refill is not None:
                self._refill.want(wanted)
            for record in records:
                self._report(record)
            try:
                await asyncio.wait_for(stop.wait(), self._tick_seconds)
            except TimeoutError:
                continue

    def _report(self, record: DecisionRecord) -> None:
        if self._link is not None:
            self._link.outbox.decision(msgspec.structs.replace(record, at_unix_ns=self._clock.unix_ns()))

    def _staged(self, rows: NDArray[np.int64], staged: torch.Tensor, written: Callable[[], None]) -> None:
        self._pool.refill(rows, staged)
        written()

    def _backlog_bytes(self) -> int:
        return 0 if self._refill is None else self._refill.backlog_bytes

    def _make_link(self) -> Link | None:
        if self._control is None:
            return None
        return Link(
            control_url=self._control.url,
            credential_file=self._control.credential_file,
            enrol_token_file=self._control.enrol_token_file,
            hello=self._hello,
            telemetry=lambda: self._pool.telemetry(self._backlog_bytes()),
            obey=self._pool.obey,
            generation=lambda: self._pool.generation,
            chance=random.Random(self._clock.unix_ns()),  # noqa: S311 - jitter, not a secret
        )


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)
