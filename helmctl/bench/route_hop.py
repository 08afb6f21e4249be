"""What the router's process adds to a call, and how many it carries on one core.

The router runs on a core of its own; the nodes (which compute nothing) and the client share another, which may be
the busier of the two. Requests per core-second therefore count the router's CPU time alone, its share of the
kernel's work included. The hop is what a routed call takes beyond a direct one in the same run: two more passes
through the loopback, and two changes of core that a direct call between client and node does not make.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import uvloop

from agents.runtime.load.client import INFER_PATH, encode_request
from agents.workloads.request import Request
from helmctl.bench.fleet import BenchFleet, bench_fleet
from helmctl.bench.http_load import closed_loop, connect, open_loop
from helmctl.bench.report import Result, Say, result_of

USERS = 64
CONNECTIONS, CONNECTIONS_MANY = 32, 256
SMALL_BYTES, LARGE_BYTES = 3_000, 80_000
LOAD_RATIO = 0.5  # of the router's capacity, where its hop is measured
_EVENT_BYTES, _CANDIDATE_BYTES = 20, 7  # of JSON: a history event is item, action and time


def measure(runs: int, say: Say, seconds: float = 3.0) -> Sequence[Result]:
    """Capacity at two sizes and two numbers of connections, then the hop at half of it."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with bench_fleet(2, "cpu-demo") as fleet, _staying_on(cores[-1]):
        for address in fleet.file.nodes:
            fleet.start(address.name, "helmctl.bench.echo_node", "--fleet", str(fleet.path), "--name", address.name, core=cores[-1])
        fleet.start_router(core=cores[0])
        fleet.wait_ready(*fleet.file.nodes, fleet.file.router)
        return uvloop.run(_measure(fleet, runs, say, seconds))


@contextmanager
def _staying_on(core: int) -> Iterator[None]:
    """This process keeps off the router's core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _measure(fleet: BenchFleet, runs: int, say: Say, seconds: float) -> list[Result]:
    small, large = _requests(SMALL_BYTES), _requests(LARGE_BYTES)
    say(f"capacity with {CONNECTIONS} connections, {len(small[0])} and {len(large[0])} bytes")
    few = [await _rate(fleet, CONNECTIONS, small, seconds) for _ in range(runs)]
    heavy = [await _rate(fleet, CONNECTIONS, large, seconds) for _ in range(runs)]
    say(f"capacity with {CONNECTIONS_MANY} connections")
    many = [await _rate(fleet, CONNECTIONS_MANY, small, seconds) for _ in range(runs)]
    capacity = float(np.median([rate for rate, _ in few]))
    say(f"hop at {LOAD_RATIO:.0%} of {capacity:.0f} requests/s")
    hops = [await _hop(fleet, small, capacity, run, seconds) for run in range(runs)]
    return [
        result_of("proxy_requests_per_second", [rate for rate, _ in few], "1/s"),
        result_of("proxy_requests_per_core_second", [of_core for _, of_core in few], "1/s"),
        result_of("proxy_requests_per_second_80kb", [rate for rate, _ in heavy], "1/s"),
        result_of("proxy_requests_per_second_256_connections", [rate for rate, _ in many], "1/s"),
        result_of("hop_added_ms", [middle for middle, _ in hops], "ms", p99=float(np.median([tail for _, tail in hops]))),
    ]


async def _rate(fleet: BenchFleet, count: int, requests: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Requests per second of wall time and of the router's CPU time: the client may be the slower of the two."""
    address = fleet.file.router
    connections = await connect(address.host, address.port, count)
    before = fleet.cpu_seconds("router")
    rate = await closed_loop(connections, requests, seconds)
    used = fleet.cpu_seconds("router") - before
    for connection in connections:
        connection.close()
    return rate, rate * seconds / max(used, 1e-9)


async def _hop(fleet: BenchFleet, requests: Sequence[bytes], capacity: float, seed: int, seconds: float) -> tuple[float, float]:
    """Median and 99th percentile of routed calls minus those of direct ones."""
    took = []
    gc.collect()
    gc.freeze()  # the client's own collections are no part of the hop
    for address in (fleet.file.router, fleet.file.nodes[0]):
        connections = await connect(address.host, address.port, CONNECTIONS_MANY)
        took.append(await open_loop(connections, requests, LOAD_RATIO * capacity, seconds, seed))
        for connection in connections:
            connection.close()
    routed, direct = took
    return tuple(float(np.quantile(routed, q) - np.quantile(direct, q)) for q in (0.5, 0.99))  # type: ignore[return-value]


def _requests(size_bytes: int) -> list[bytes]:
    """Whole inference requests of about this size, of different users."""
    return [_request(user, size_bytes) for user in range(USERS)]


def _request(user: int, size_bytes: int) -> bytes:
    """Half of the bytes are history, half candidates."""
    events, candidates = size_bytes // 2 // _EVENT_BYTES, size_bytes // 2 // _CANDIDATE_BYTES
    history = np.arange(100_000, 100_000 + events)
    body = encode_request(
        Request(
            at_ns=0,
            user=user,
            history_items=history,
            history_actions=np.ones(events, dtype=np.int64),
            history_ts=np.arange(1_700_000_000, 1_700_000_000 + events),
            candidates=np.arange(100_000, 100_000 + candidates),
        )
    )
    head = f"POST {INFER_PATH} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
