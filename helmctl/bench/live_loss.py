"""Live: a node is killed under load and comes back. No request may be lost, and ten seconds later the fleet is as before.

Compared are ten seconds before the kill, ten seconds from the tenth second after it, and as long after the node is
back: P99 and answers a second as ratios, and the busiest node's picks over the mean.

In the calm before, the router is asked how old what it knows of each node is. At the end it is killed, twice: a standby takes
over, as under the supervisor, and then a new process is started. The next router is useful when it says that it is ready, and
exact when it has applied what every node holds; both are counted from the old one's end.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import uvloop

from agents.profiles import Profile, load_profile
from agents.wire.messages import Phase
from helmctl.bench.fleet import BenchError, BenchFleet, bench_fleet
from helmctl.bench.live_play import Played, find_pace, play
from helmctl.bench.report import Result, Say, ratio_of, result_of

PROFILE = "cpu-demo"
NODES = 4
PACES = (40.0, 20.0, 10.0, 5.0)  # requests/s: four emulated nodes of a quiet machine, and of ever busier ones
LOST = "node-1"
SETTLE, CALM, RECOVERY, WINDOW = 20.0, 10.0, 10.0, 10.0  # seconds
READY_SECONDS_MAX = 60.0
POLL_SECONDS = 0.02
STALENESS_SECONDS = 0.23  # between two looks at it: in no step with the reports, which come every fifth of a second
HEADROOM_RATIO = 0.6  # of the pace that four nodes carry: three must be able to carry it too


class Loss(NamedTuple):
    """One run: the stream, when the node died and when it was ready again, and picks per node at the windows' edges."""

    played: Played
    killed: float
    ready: float
    balance_without: float
    balance_again: float
    staleness_ms: list[float]  # of every node at every look


class Replaced(NamedTuple):
    """Seconds from a router's death until the next could be used, and until that knew everything."""

    useful: float
    exact: float


class Losses(NamedTuple):
    """One fleet: a node lost under load, then its router, twice."""

    node: Loss
    router_taken_over: Replaced  # by a standby
    router_restarted: Replaced  # by a process that starts


def measure(runs: int, say: Say) -> Sequence[Result]:
    """`runs` kills, each of a fleet of its own."""
    profile = load_profile(PROFILE)
    found = [_loss(profile, run + 1, say) for run in range(runs)]
    losses = [one.node for one in found]
    taken_over, restarts = [one.router_taken_over for one in found], [one.router_restarted for one in found]
    stale_ms = [age for loss in losses for age in loss.staleness_ms]
    pairs = [(_before(loss), _after(loss, loss.killed), _after(loss, loss.ready)) for loss in losses]
    return [
        result_of("node_loss_refused", [float(loss.played.refused.total()) for loss in losses], "requests"),
        ratio_of("node_loss_p99_ratio", [(without[0], before[0]) for before, without, _ in pairs]),
        ratio_of("node_loss_throughput_ratio", [(without[1], before[1]) for before, without, _ in pairs]),
        result_of("node_loss_peak_to_mean", [loss.balance_without for loss in losses], "ratio"),
        ratio_of("node_back_p99_ratio", [(again[0], before[0]) for before, _, again in pairs]),
        result_of("node_back_peak_to_mean", [loss.balance_again for loss in losses], "ratio"),
        result_of("router_staleness_ms", stale_ms, "ms", p99=float(np.quantile(stale_ms, 0.99))),
        result_of("router_takeover_useful_seconds", [restart.useful for restart in taken_over], "s"),
        result_of("router_takeover_exact_seconds", [restart.exact for restart in taken_over], "s"),
        result_of("router_restart_useful_seconds", [restart.useful for restart in restarts], "s"),
        result_of("router_restart_exact_seconds", [restart.exact for restart in restarts], "s"),
    ]


def _loss(profile: Profile, seed: int, say: Say) -> Losses:
    with bench_fleet(NODES, PROFILE) as fleet:
        fleet.start_nodes()
        fleet.start_router()
        fleet.wait_ready(*fleet.file.nodes, fleet.file.router)
        loss = uvloop.run(_lose(fleet, profile, seed, say))
        say(f"killed at {loss.killed:.0f} s, ready again at {loss.ready:.0f} s, {loss.played.refused.total()} refused")
        fleet.start_standby()
        return Losses(loss, _replace(fleet, fleet.call_up), _replace(fleet, fleet.start_router))


def _replace(fleet: BenchFleet, another: Callable[[], None]) -> Replaced:
    """Kill the router and bring up another."""
    held = _view(fleet)["router"]["copies_known"]
    fleet.kill("router")
    began = time.monotonic()
    another()
    fleet.wait_ready(fleet.file.router)
    useful = time.monotonic() - began
    _wait_for(lambda: _view(fleet)["router"]["copies_known"] >= held and all(node["synced"] for node in _view(fleet)["nodes"]))
    return Replaced(useful, time.monotonic() - began)


def _wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise BenchError("the restarted router does not learn what the nodes hold")
        time.sleep(POLL_SECONDS)


def _view(fleet: BenchFleet) -> dict[str, Any]:
    return dict(msgspec.json.decode(fleet.call("router", "/v1/fleet")))


async def _lose(fleet: BenchFleet, profile: Profile, seed: int, say: Say) -> Loss:
    rate = HEADROOM_RATIO * await find_pace(fleet, profile, PACES)
    say(f"{rate:.0f} requests/s")
    seconds = CALM + READY_SECONDS_MAX + 2 * (RECOVERY + WINDOW)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    enough = asyncio.Event()
    playing = loop.create_task(play(fleet, "steady", seed, profile, rate, seconds, SETTLE, enough))
    await asyncio.sleep(SETTLE)
    staleness_ms = await _staleness(fleet, begin + SETTLE + CALM)
    await asyncio.to_thread(fleet.kill, LOST)
    killed = loop.time() - begin
    without = await _balance(fleet)
    fleet.start_node(LOST)
    while loop.time() - begin < killed + READY_SECONDS_MAX and LOST not in await asyncio.to_thread(_ready, fleet):  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    ready = loop.time() - begin
    again = await _balance(fleet)
    enough.set()
    return Loss(await playing, killed, ready, without, again, staleness_ms)


async def _staleness(fleet: BenchFleet, until: float) -> list[float]:
    """Ages of the router's knowledge of its nodes, looked at until a moment of the loop's clock."""
    ages_ms: list[float] = []
    while asyncio.get_running_loop().time() < until:
        nodes = (await asyncio.to_thread(_view, fleet))["nodes"]
        ages_ms += [node["staleness_ms"] for node in nodes if node["staleness_ms"] is not None]
        await asyncio.sleep(STALENESS_SECONDS)
    return ages_ms


async def _balance(fleet: BenchFleet) -> float:
    """The busiest ready node's picks over the mean, in a window that begins when recovery should be over."""
    await asyncio.sleep(RECOVERY)
    before = await asyncio.to_thread(_ready, fleet)
    await asyncio.sleep(WINDOW)
    after = await asyncio.to_thread(_ready, fleet)
    picks = np.array([after[name] - before[name] for name in after if name in before])
    return float(picks.max() / picks.mean())


def _ready(fleet: BenchFleet) -> dict[str, int]:
    """Picks so far of each ready node."""
    return {node["name"]: int(node["picks_total"]) for node in _view(fleet)["nodes"] if node["phase"] == Phase.READY}


def _before(loss: Loss) -> tuple[float, float]:
    return _figures(loss.played, loss.killed - CALM)


def _after(loss: Loss, since: float) -> tuple[float, float]:
    return _figures(loss.played, since + RECOVERY)


def _figures(played: Played, first: float) -> tuple[float, float]:
    """P99 in ms and answers a second of one window."""
    took_ms = played.between(first, first + WINDOW)
    return float(np.quantile(took_ms, 0.99)), len(took_ms) / WINDOW
