"""A run of a live fleet with everything kept that a simulator needs to run it again: requests, times, routes, journals."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import uvloop

from agents.runtime.load.client import INFER_PATH, encode_request
from agents.sim.replay import Served, replay_file
from agents.sim.validation.run import LiveNode, LiveRun
from agents.workloads.journal import SUFFIX, read_header
from agents.workloads.request import Request, Workload
from helmctl.bench.fleet import BenchError, BenchFleet, bench_fleet
from helmctl.bench.http_load import Connection, connect

CONNECTIONS = 64
_NODE = re.compile(rb"\r\nx-helm-node: ([^\r]+)", re.IGNORECASE)
_STAGES = re.compile(rb"\r\nserver-timing: ([^\r]+)", re.IGNORECASE)
_DURATION = re.compile(rb"dur=([0-9.]+)")


def record(workload: Workload, seconds: float, nodes: int, profile: str, say: Callable[[str], None]) -> LiveRun:
    """Start a fleet, play the stream's first `seconds`, end the fleet, replay its journals. `BenchError` when it does not serve."""
    with bench_fleet(nodes, profile) as fleet:
        journals = fleet.folder / "journals"
        fleet.start_nodes(journals)
        fleet.start_router()
        say(f"starting {nodes} nodes")
        fleet.wait_ready(*fleet.file.nodes, fleet.file.router)
        say(f"{seconds:.0f} s of {workload.name}")
        run = uvloop.run(_play(fleet, workload, seconds))
        names = [address.name for address in fleet.file.nodes]
        fleet.stop([fleet.file.router.name, *names])
        say("replaying journals")
        return run._replace(nodes=[_replayed(name, journals / name) for name in names])


def _replayed(name: str, folder: Path) -> LiveNode:
    served: list[Served] = []
    path = next((path for path in sorted(folder.rglob(f"*{SUFFIX}")) if path.is_file()), None)
    if path is None:
        raise BenchError(f"{name} left no journal")
    return LiveNode(name, read_header(path).config["controller"], replay_file(path, served=served), served)


async def _play(fleet: BenchFleet, workload: Workload, seconds: float) -> LiveRun:
    """Send every request when it is due, whatever became of those before."""
    numbers = {address.name.encode(): index for index, address in enumerate(fleet.file.nodes)}
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in await connect(fleet.file.router.host, fleet.file.router.port, CONNECTIONS):
        idle.put_nowait(connection)
    rows: list[list[float]] = []

    async def ask(connection: Connection, request: bytes, row: list[float], sent_ns: int) -> None:
        status = await connection.status_of(request)
        took_ms, head = (time.monotonic_ns() - sent_ns) / 1e6, connection.head
        idle.put_nowait(connection)
        if status == 200:
            row[1:] = took_ms, _inside_ms(head), numbers[_first(_NODE, head)]

    psutil.cpu_percent()  # the next call tells of the time since
    begin_ns, late_ms = time.monotonic_ns(), []
    async with asyncio.TaskGroup() as group:
        for request in workload.requests():
            if request.at_ns > seconds * 1e9:
                break
            body, due_ns = _http(request), begin_ns + request.at_ns
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            connection, sent_ns = await idle.get(), time.monotonic_ns()
            late_ms.append((sent_ns - due_ns) / 1e6)
            rows.append([float(sent_ns - begin_ns), np.nan, np.nan, -1.0])
            group.create_task(ask(connection, body, rows[-1], sent_ns))
    table = np.array(rows)
    return LiveRun(
        sent_ns=table[:, 0].astype(np.int64),
        latency_ms=table[:, 1],
        inside_ms=table[:, 2],
        node=table[:, 3].astype(np.int64),
        begin_ns=begin_ns,
        nodes=[],
        late_ms_p99=float(np.percentile(late_ms, 99)),
        host_cpu_ratio=psutil.cpu_percent() / 100.0,
    )


def _http(request: Request) -> bytes:
    body = encode_request(request)
    return b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n%s" % (INFER_PATH.encode(), len(body), body)


def _first(pattern: re.Pattern[bytes], head: bytes) -> bytes:
    found = pattern.search(head)
    return b"" if found is None else found[1]


def _inside_ms(head: bytes) -> float:
    return sum(float(part) for part in _DURATION.findall(_first(_STAGES, head)))
