"""Live, not simulated: what routing and allocation bring on four real CPU nodes, against one ratio for all and against user hashing.

Each run starts a fleet of its own, plays a seeded stream through the router and measures the part after the
warm-up, in which caches fill and, of the burst stream, the calm lies. Three ways are compared: `auto` (joint
routing, the nodes' own controller), `s0` (joint routing, every node pinned to one ratio) and `hash`
(consistent hashing, the nodes' own controller). They take turns as auto's neighbours, S P H, H P S, so that a
machine that drifts favours nobody. Every run pairs with the same block's auto.

HELM_BENCH_LIVE_WARM_SECONDS (120: the burst begins there), HELM_BENCH_LIVE_RATE (requests/s), HELM_BENCH_LIVE_S0
(ratio) and HELM_BENCH_LIVE_NODES change a trial; the bench's runs are its blocks.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from agents.profiles import Profile, load_profile
from agents.runtime.load.client import INFER_PATH, encode_request
from agents.sim.scenario import Scenario
from agents.sim.scenario import run as simulate
from agents.workloads.demo import DemoParameters, synthetic_workload
from agents.workloads.request import Request
from helmctl.bench.fleet import BenchError, BenchFleet, bench_fleet
from helmctl.bench.http_load import Connection, connect
from helmctl.bench.report import Result, Say, ratio_of, result_of

PROFILE = "cpu-demo"
REGIMES = ("trend", "burst")
CONNECTIONS = 64  # requests out at once, as the load generator's
FAILED_RATIO_MAX = 0.01  # more refusals than this and the latencies are of another load


class Way(NamedTuple):
    """One of the compared ways: the router's policy, and whether nodes are pinned."""

    name: str
    policy: str
    pinned: bool


AUTO, S0, HASH = Way("auto", "joint", False), Way("s0", "joint", True), Way("hash", "consistent-hash", False)


class Trial(NamedTuple):
    """Sizes of every run of a bench."""

    seconds: float
    warm_seconds: float
    rate: float
    s0_ratio: float
    nodes: int


class Figures(NamedTuple):
    """Milliseconds of one run's measured part; `controller` is what moved its nodes."""

    p99: float
    mean: float
    controller: str = ""


def measure(runs: int, say: Say, seconds: float = 90.0) -> Sequence[Result]:
    """`runs` blocks of three runs of `seconds` per regime; ratios of auto over the others, and what the simulator says of the same."""
    profile, trial = load_profile(PROFILE), _trial(seconds)
    results: list[Result] = []
    ratios: dict[str, list[tuple[float, float]]] = {}
    for regime in REGIMES:
        found = _blocks(regime, runs, profile, trial, say)
        results += [result_of(f"live_p99_ms_{regime}_{way}", [one.p99 for one in figures], "ms") for way, figures in found.items()]
        for name, pairs in _pairs(found).items():
            ratios.setdefault(name, []).extend(pairs)
            results.append(ratio_of(f"{name}_{regime}", pairs))
    overall = [ratio_of(name, pairs) for name, pairs in ratios.items()]
    return [*overall, *results]


def _blocks(regime: str, runs: int, profile: Profile, trial: Trial, say: Say) -> dict[str, list[Figures]]:
    """Figures by way, live ones under its name and simulated ones under `predicted_` and its name."""
    found: dict[str, list[Figures]] = {}
    for block in range(runs):
        for way in (S0, AUTO, HASH) if block % 2 == 0 else (HASH, AUTO, S0):
            live = _live_run(regime, block + 1, way, profile, trial)
            found.setdefault(way.name, []).append(live)
            say(f"{regime} {way.name:4} P99 {live.p99:.1f} ms, mean {live.mean:.1f} ms")
            told = _predicted(regime, block + 1, way, live.controller, trial, say)
            if told is not None:
                found.setdefault(f"predicted_{way.name}", []).append(told)
    return found


def _pairs(found: dict[str, list[Figures]]) -> dict[str, list[tuple[float, float]]]:
    """Auto and the other, run by run of the same block."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for prefix, label in (("", "live"), ("predicted_", "predicted_live")):
        auto, s0, hashed = (found.get(f"{prefix}{way.name}", []) for way in (AUTO, S0, HASH))
        if not (len(auto) == len(s0) == len(hashed) > 0):
            continue
        pairs[f"{label}_p99_ratio_vs_s0"] = [(a.p99, b.p99) for a, b in zip(auto, s0, strict=True)]
        pairs[f"{label}_mean_ratio_vs_s0"] = [(a.mean, b.mean) for a, b in zip(auto, s0, strict=True)]
        pairs[f"{label}_p99_ratio_vs_hash"] = [(a.p99, b.p99) for a, b in zip(auto, hashed, strict=True)]
    return pairs


# --- one live run -------------------------------------------------------------------------


def _live_run(regime: str, seed: int, way: Way, profile: Profile, trial: Trial) -> Figures:
    with bench_fleet(trial.nodes, PROFILE) as fleet:
        fleet.start_nodes()
        fleet.start_router(way.policy)
        fleet.wait_ready(*fleet.file.nodes, fleet.file.router)
        if way.pinned:
            _pin(fleet, trial.s0_ratio)
        took_ms = uvloop.run(_play(fleet, regime, seed, profile, trial))
        controller = str(msgspec.json.decode(fleet.call(fleet.file.nodes[0].name, "/v1/status"))["controller"])
    return Figures(float(np.quantile(took_ms, 0.99)), float(took_ms.mean()), controller)


def _pin(fleet: BenchFleet, ratio: float) -> None:
    body = msgspec.json.encode({"mode": "pin", "emb_ratio": ratio, "reason": "bench"})
    for node in fleet.file.nodes:
        fleet.call(node.name, "/v1/control", body, "PUT")


async def _play(fleet: BenchFleet, regime: str, seed: int, profile: Profile, trial: Trial) -> NDArray[np.float64]:
    """Milliseconds of the answers after the warm-up, timed from when each request was due."""
    workload = synthetic_workload(regime, seed, trial.rate, True, DemoParameters.for_profile(profile))
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in await connect(fleet.file.router.host, fleet.file.router.port, CONNECTIONS):
        idle.put_nowait(connection)
    took_ms: list[float] = []
    refused: Counter[int] = Counter()

    async def ask(connection: Connection, request: bytes, due_ns: int, counts: bool) -> None:
        status = await connection.status_of(request)
        idle.put_nowait(connection)
        if counts and status == 200:
            took_ms.append((time.monotonic_ns() - due_ns) / 1e6)
        elif counts:
            refused[status] += 1

    begin_ns = time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        for request in workload.requests():
            if request.at_ns > (trial.warm_seconds + trial.seconds) * 1e9:
                break
            body, due_ns = _request(request), begin_ns + request.at_ns
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            group.create_task(ask(await idle.get(), body, due_ns, request.at_ns >= trial.warm_seconds * 1e9))
    if refused.total() > FAILED_RATIO_MAX * len(took_ms) or not took_ms:
        raise BenchError(f"{len(took_ms)} requests were answered, refused were {dict(refused)}: too many for this machine")
    return np.array(took_ms)


def _request(request: Request) -> bytes:
    body = encode_request(request)
    return b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n%s" % (INFER_PATH.encode(), len(body), body)


# --- what the simulator says of the same run ----------------------------------------------


def _predicted(regime: str, seed: int, way: Way, controller: str, trial: Trial, say: Say) -> Figures | None:
    """The same stream, fleet and way under the simulator's clock; `None` when it does not know the controller."""
    try:
        scenario = Scenario(
            profile=PROFILE,
            workload=regime,
            nodes=trial.nodes,
            method=f"static-{trial.s0_ratio:.2f}" if way.pinned else controller,
            router=way.policy,
            seed=seed,
            duration_seconds=trial.warm_seconds + trial.seconds,
            warmup_seconds=trial.warm_seconds,
            rate_per_second=trial.rate,
        )
        result = simulate(scenario)
    except ValueError as error:
        say(f"no prediction: {error}")
        return None
    cell = {} if result is None else result.cell
    if cell.get("latency_ms_p99") is None or cell.get("latency_ms_mean") is None:
        return None
    return Figures(float(cell["latency_ms_p99"]), float(cell["latency_ms_mean"]))


def _trial(seconds: float) -> Trial:
    return Trial(
        seconds=seconds,
        warm_seconds=_number("WARM_SECONDS", 120.0),
        rate=_number("RATE", 40.0),
        s0_ratio=_number("S0", load_profile(PROFILE).emb_ratio_start),
        nodes=int(_number("NODES", 4.0)),
    )


def _number(name: str, default: float) -> float:
    text = os.environ.get(f"HELM_BENCH_LIVE_{name}", str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 < value < 1e6:
        raise BenchError(f"HELM_BENCH_LIVE_{name}: {text!r} is not a number above zero")
    return value
