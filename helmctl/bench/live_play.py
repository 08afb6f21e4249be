"""A seeded stream played through a live fleet's router, request by request as each is due."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.profiles import Profile
from agents.runtime.load.client import INFER_PATH, encode_request
from agents.runtime.load.host import HostCpu
from agents.workloads.demo import DemoParameters, synthetic_workload
from agents.workloads.request import Request
from helmctl.bench.fleet import BenchError, BenchFleet
from helmctl.bench.http_load import Connection, connect

CONNECTIONS = 64  # requests out at once, as the load generator's
REFUSED_RATIO_MAX = 0.01  # more refusals than this and the latencies are of another load
PACE_SECONDS = 20.0
_NUMBER = re.compile(r"\d+")
_OK = 200


class Played(NamedTuple):
    """What became of a stream's requests."""

    due_seconds: NDArray[np.float64]  # [answered] since the stream's begin
    took_ms: NDArray[np.float64]  # [answered] from when each was due
    refused: Counter[str]  # by status and sentence, numbers left out
    host_busy: NDArray[np.float64]  # [seconds] share of the machine's cores that was busy, 0..1, this process included

    def between(self, first: float, end: float) -> NDArray[np.float64]:
        """Milliseconds of the answers to requests that were due in these seconds."""
        return np.asarray(self.took_ms[(self.due_seconds >= first) & (self.due_seconds < end)])

    def require_answered(self) -> None:
        """`BenchError` when too many were refused, with what was said."""
        if self.refused.total() > REFUSED_RATIO_MAX * len(self.took_ms) or not len(self.took_ms):
            told = ", ".join(f"{count} x {said}" for said, count in self.refused.most_common(3))
            raise BenchError(f"{len(self.took_ms)} requests were answered, {self.refused.total()} refused: {told or 'none came'}")


async def play(
    fleet: BenchFleet,
    regime: str,
    seed: int,
    profile: Profile,
    rate: float,
    seconds: float,
    settle: float = 0.0,
    enough: asyncio.Event | None = None,
) -> Played:
    """`seconds` of the stream after `settle` seconds of it, or until `enough`; what happens while it settles is not counted."""
    workload = synthetic_workload(regime, seed, rate, True, DemoParameters.for_profile(profile))
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    connections = await connect(fleet.file.router.host, fleet.file.router.port, CONNECTIONS)
    for connection in connections:
        idle.put_nowait(connection)
    answered: list[tuple[float, float]] = []
    refused: Counter[str] = Counter()
    busy: list[float] = []
    begin = time.monotonic()

    async def ask(connection: Connection, request: bytes, due_seconds: float) -> None:
        status = await connection.status_of(request)
        took_ms = (time.monotonic() - begin - due_seconds) * 1e3
        if due_seconds >= settle and status == _OK:
            answered.append((due_seconds, took_ms))
        elif due_seconds >= settle:
            refused[f"{status} {_said(connection.body)}"] += 1
        idle.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch_host(begin + settle, busy))
        for request in workload.requests():
            due_seconds = request.at_ns / 1e9
            if due_seconds > settle + seconds or (enough is not None and enough.is_set()):
                break
            body = _bytes_of(request)
            await asyncio.sleep(max(0.0, begin + due_seconds - time.monotonic()))
            group.create_task(ask(await idle.get(), body, due_seconds))
        watch.cancel()
    for connection in connections:
        connection.close()
    found = np.array(answered).reshape(-1, 2)
    return Played(found[:, 0], found[:, 1], refused, np.array(busy))


async def find_pace(fleet: BenchFleet, profile: Profile, paces: Sequence[float]) -> float:
    """The fastest of `paces` (falling) at which a steady stream is answered within the SLO, none refused; `BenchError` if none is.

    Nodes compute for real, so what a fleet can do depends on what else the machine does.
    """
    for rate in paces:
        played = await play(fleet, "steady", 1, profile, rate, PACE_SECONDS / 2, settle=PACE_SECONDS / 2)
        if not played.refused and len(played.took_ms) and np.quantile(played.took_ms, 0.99) <= profile.slo_ms:
            return rate
    raise BenchError(f"not even {paces[-1]:.0f} requests/s are answered within {profile.slo_ms:.0f} ms: this machine is too busy")


async def _watch_host(first_seconds: float, busy: list[float]) -> None:
    """Append every second's share from `first_seconds` of the monotonic clock on, until cancelled."""
    await asyncio.sleep(max(0.0, first_seconds - time.monotonic()))
    host = HostCpu()
    host.read(time.monotonic_ns())
    while True:
        await asyncio.sleep(1.0)
        busy.append(host.read(time.monotonic_ns()))


def _said(body: bytes) -> str:
    try:
        return _NUMBER.sub("N", str(msgspec.json.decode(body)["error"]))
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


def _bytes_of(request: Request) -> bytes:
    body = encode_request(request)
    return b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n%s" % (INFER_PATH.encode(), len(body), body)
