"""Live, not simulated: what routing and allocation bring on four CPU nodes, against one ratio for all and against user hashing.

Each run starts a fleet of its own, plays a seeded stream through the router and measures the part after the warm-up,
in which caches fill and a whole cycle of the stream goes by: of the trend the next rise is measured, of the burst
stream as much calm as burst around the begin of the next burst. Three ways are compared: `auto` (joint routing, the
nodes' own controller), `s0` (joint routing, every node pinned to one ratio) and `hash` (consistent hashing, the nodes'
own controller). They take turns as auto's neighbours, s0 auto hash, hash auto s0, so that a machine that drifts favours
nobody. Every run pairs with the same block's auto.

Nodes are of the paced profile: all that they do is real, but compute ends when an accelerator of its own for each
would have ended. Four nodes that share two cores are else one queue for these, whichever node a request is sent to.
How busy the machine was in the mean, and in the busiest tenth of its seconds, stands beside: where that comes near to
1, it is the machine that is compared, whatever the way.

HELM_BENCH_LIVE_WARM_SECONDS (of every regime), HELM_BENCH_LIVE_RATE (requests/s; found for the machine when left out),
HELM_BENCH_LIVE_REGIMES ("trend,burst"), HELM_BENCH_LIVE_AGAINST ("s0,hash"), HELM_BENCH_LIVE_PROFILE (cpu-paced),
HELM_BENCH_LIVE_S0 (ratio) and HELM_BENCH_LIVE_NODES change a trial; the bench's runs are its blocks.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import uvloop

from agents.profiles import load_profile, profile_reference
from agents.sim.scenario import Scenario
from agents.sim.scenario import run as simulate
from agents.workloads.demo import DemoParameters, keyframes
from helmctl.bench.fleet import BenchError, BenchFleet, bench_fleet
from helmctl.bench.live_play import find_pace, play
from helmctl.bench.report import Result, Say, ratio_of, result_of

PROFILE = "cpu-paced"
REGIMES = ("trend", "burst")
PACES = (40.0, 20.0, 10.0)  # requests/s: half of what four paced nodes can do, and less where a machine is too busy
START_SECONDS = 20.0  # of a run: processes, models, the pool


class Way(NamedTuple):
    """One of the compared ways: the router's policy, and whether nodes are pinned."""

    name: str
    policy: str
    pinned: bool


AUTO, S0, HASH = Way("auto", "joint", False), Way("s0", "joint", True), Way("hash", "consistent-hash", False)
WAYS = (S0, AUTO, HASH)


class Trial(NamedTuple):
    """Sizes of every run of a bench."""

    profile: str
    regimes: tuple[str, ...]
    seconds: float
    warm_seconds: dict[str, float]  # by regime
    ways: tuple[Way, ...]
    rate: float
    s0_ratio: float
    nodes: int


class Figures(NamedTuple):
    """Milliseconds of one run's measured part; `controller` is what moved its nodes, `host_busy` the seconds' shares."""

    p99: float
    mean: float
    controller: str = ""
    host_busy: tuple[float, ...] = ()


def measure(runs: int, say: Say, seconds: float = 90.0) -> Sequence[Result]:
    """`runs` blocks of a run of `seconds` per way and regime; ratios of auto over the others, and what the simulator says of the same."""
    trial = _trial(seconds)
    trial = trial._replace(rate=trial.rate or _pace(trial))
    count = runs * len(trial.ways)
    minutes = count * sum(START_SECONDS + trial.warm_seconds[regime] + trial.seconds for regime in trial.regimes) / 60.0
    say(f"{trial.rate:.0f} requests/s, {count} runs a regime, about {minutes:.0f} minutes and the simulator's part")
    results: list[Result] = []
    ratios: dict[str, list[tuple[float, float]]] = {}
    for regime in trial.regimes:
        found = _blocks(regime, runs, trial, say)
        for way, figures in found.items():
            results += _of_one_way(f"{regime}_{way}", figures)
        for name, pairs in _pairs(found).items():
            ratios.setdefault(name, []).extend(pairs)
            results.append(ratio_of(f"{name}_{regime}", pairs))
    overall = [ratio_of(name, pairs) for name, pairs in ratios.items()]
    return [*overall, *results, result_of("live_requests_per_second", [trial.rate], "1/s")]


def _of_one_way(name: str, figures: list[Figures]) -> list[Result]:
    results = [result_of(f"live_p99_ms_{name}", [one.p99 for one in figures], "ms")]
    shares = [np.array(one.host_busy) for one in figures if one.host_busy]  # the simulator has no host
    if shares:
        results.append(result_of(f"live_host_busy_{name}", [float(seconds.mean()) for seconds in shares], "share"))
        results.append(result_of(f"live_host_busy_p90_{name}", [float(np.quantile(seconds, 0.9)) for seconds in shares], "share"))
    return results


def _blocks(regime: str, runs: int, trial: Trial, say: Say) -> dict[str, list[Figures]]:
    """Figures by way, live ones under its name and simulated ones under `predicted_` and its name."""
    found: dict[str, list[Figures]] = {}
    for block in range(runs):
        for way in trial.ways if block % 2 == 0 else trial.ways[::-1]:
            live = _live_run(regime, block + 1, way, trial)
            found.setdefault(way.name, []).append(live)
            say(f"{regime} {way.name:4} P99 {live.p99:.1f} ms, mean {live.mean:.1f} ms, host {np.mean(live.host_busy or np.nan):.0%} busy")
            told = _predicted(regime, block + 1, way, live.controller, trial, say)
            if told is not None:
                found.setdefault(f"predicted_{way.name}", []).append(told)
    return found


def _pairs(found: dict[str, list[Figures]]) -> dict[str, list[tuple[float, float]]]:
    """Auto and the other, run by run of the same block."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for prefix, label in (("", "live"), ("predicted_", "predicted_live")):
        auto, s0, hashed = (found.get(f"{prefix}{way.name}", []) for way in (AUTO, S0, HASH))
        if len(auto) == len(s0) > 0:
            pairs[f"{label}_p99_ratio_vs_s0"] = [(a.p99, b.p99) for a, b in zip(auto, s0, strict=True)]
            pairs[f"{label}_mean_ratio_vs_s0"] = [(a.mean, b.mean) for a, b in zip(auto, s0, strict=True)]
        if len(auto) == len(hashed) > 0:
            pairs[f"{label}_p99_ratio_vs_hash"] = [(a.p99, b.p99) for a, b in zip(auto, hashed, strict=True)]
    return pairs


def _pace(trial: Trial) -> float:
    """What this machine's fleet carries of a steady stream."""
    with bench_fleet(trial.nodes, trial.profile) as fleet:
        fleet.start_nodes()
        fleet.start_router()
        fleet.wait_ready(*fleet.file.nodes, fleet.file.router)
        return uvloop.run(find_pace(fleet, load_profile(trial.profile), PACES))


# --- one live run -------------------------------------------------------------------------


def _live_run(regime: str, seed: int, way: Way, trial: Trial) -> Figures:
    profile, warm_seconds = load_profile(trial.profile), trial.warm_seconds[regime]
    with bench_fleet(trial.nodes, trial.profile) as fleet:
        fleet.start_nodes()
        fleet.start_router(way.policy)
        fleet.wait_ready(*fleet.file.nodes, fleet.file.router)
        if way.pinned:
            _pin(fleet, trial.s0_ratio)
        played = uvloop.run(play(fleet, regime, seed, profile, trial.rate, trial.seconds, settle=warm_seconds))
        played.require_answered()
        controller = str(msgspec.json.decode(fleet.call(fleet.file.nodes[0].name, "/v1/status"))["controller"])
    return Figures(float(np.quantile(played.took_ms, 0.99)), float(played.took_ms.mean()), controller, tuple(played.host_busy))


def _pin(fleet: BenchFleet, ratio: float) -> None:
    body = msgspec.json.encode({"mode": "pin", "emb_ratio": ratio, "reason": "bench"})
    for node in fleet.file.nodes:
        fleet.call(node.name, "/v1/control", body, "PUT")


# --- what the simulator says of the same run ----------------------------------------------


def _predicted(regime: str, seed: int, way: Way, controller: str, trial: Trial, say: Say) -> Figures | None:
    """The same stream, fleet and way under the simulator's clock; `None` when it does not know the controller."""
    try:
        scenario = Scenario(
            profile=trial.profile,
            workload=regime,
            nodes=trial.nodes,
            method=f"static-{trial.s0_ratio:.2f}" if way.pinned else controller,
            router=way.policy,
            seed=seed,
            duration_seconds=trial.warm_seconds[regime] + trial.seconds,
            warmup_seconds=trial.warm_seconds[regime],
            rate_per_second=trial.rate,
            settled=False,  # as the live nodes begin: empty
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
    name = profile_reference(os.environ.get("HELM_BENCH_LIVE_PROFILE", PROFILE))
    try:
        profile = load_profile(name)
    except ValueError as error:
        raise BenchError(f"HELM_BENCH_LIVE_PROFILE: {error}") from error
    return Trial(
        profile=name,
        regimes=_chosen("REGIMES", "regimes", REGIMES),
        seconds=seconds,
        warm_seconds={regime: _number("WARM_SECONDS", _warm_seconds(regime, seconds)) for regime in REGIMES},
        ways=_ways(),
        rate=_number("RATE", 0.0),
        s0_ratio=_number("S0", profile.emb_ratio_start),
        nodes=int(_number("NODES", 4.0)),
    )


def _warm_seconds(regime: str, seconds: float) -> float:
    """A cycle of the stream; of the burst stream on, until half of what is measured is left before the second burst."""
    parameters = DemoParameters()
    cycle = keyframes(regime, parameters)[-1].at_seconds
    return cycle if regime == "trend" else cycle + max(0.0, parameters.steady_seconds - seconds / 2)


def _ways() -> tuple[Way, ...]:
    against = _chosen("AGAINST", "ways", (S0.name, HASH.name))
    return tuple(way for way in WAYS if way is AUTO or way.name in against)


def _chosen(name: str, kind: str, all_of: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(os.environ.get(f"HELM_BENCH_LIVE_{name}", ",".join(all_of)).split(","))
    if not set(named) <= set(all_of) or len(set(named)) < len(named):
        raise BenchError(f"HELM_BENCH_LIVE_{name}: {','.join(named)!r} names other {kind} than {' and '.join(all_of)}, or one twice")
    return named


def _number(name: str, default: float) -> float:
    text = os.environ.get(f"HELM_BENCH_LIVE_{name}", str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (0.0 < value < 1e6 or value == default):
        raise BenchError(f"HELM_BENCH_LIVE_{name}: {text!r} is not a number above zero")
    return value
