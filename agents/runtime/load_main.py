"""The load generator's process: `python -m agents.runtime.load_main --fleet .helm/fleet.json --workload demo --seed 1`."""

import argparse
import asyncio
import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvloop

from agents.profiles import Profile, load_profile
from agents.runtime.load.generator import LoadGenerator, LoadSettings, NotReady, say
from agents.runtime.load.pacing import PaceControl, PaceLimits
from agents.wire.messages import FleetFile
from agents.workloads.demo import REGIMES, DemoParameters, synthetic_workload
from agents.workloads.replay import RATE_DEFAULT, Pace, ReplayRules, open_trace
from agents.workloads.request import Workload
from agents.workloads.trace import Columns

TRACE_PACE_MAX = 10.0  # a trace without a speed may climb to ten times its first rate, if machine and SLO hold
PACE_MIN = 0.5  # below half the asked rate a run would not be the run that was asked for; it says so instead


class Usage(Exception):
    """An option that cannot be followed; one line for the person who gave it."""


class _Parser(argparse.ArgumentParser):
    """argparse, with a refusal of one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise Usage(message)


def parser() -> argparse.ArgumentParser:
    """The options; documented once, here."""
    options = _Parser(prog="load", description="Send a workload or a log to the fleet's router as fast as machine and SLO hold.")
    options.add_argument("--fleet", type=Path, required=True, help="fleet.json of the running fleet")
    options.add_argument("--workload", choices=REGIMES, help="a synthetic stream (default: demo)")
    options.add_argument("--seed", type=_whole, default=1, help="of the stream; the same seed sends the same requests")
    options.add_argument("--trace", type=Path, help="a log (.parquet, .csv, .npz) with user, item, ts, or a recorded trace")
    options.add_argument("--columns", default="user,item,ts", help="names of the log's user, item and time columns")
    options.add_argument("--ts-unit", choices=("auto", "s", "ms", "us", "ns"), default="auto", help="unit of the log's time")
    options.add_argument("--items", choices=("auto", "dense", "hash"), default="auto", help="how a log's items become table rows")
    options.add_argument("--speed", type=_speed, help="log seconds per second (default: auto, as fast as machine and SLO hold)")
    options.add_argument("--rate", type=_positive, help=f"mean requests/s of the stream (default {RATE_DEFAULT:g})")
    options.add_argument("--rate-min", type=_positive, help="floor of the adaptive rate (default: half the rate)")
    options.add_argument("--rate-max", type=_positive, help="ceiling of the adaptive rate (default: the rate; ten times it for a log)")
    options.add_argument("--adaptive", action=argparse.BooleanOptionalAction, default=True, help="adapt to host CPU and SLO")
    options.add_argument("--fixed", dest="adaptive", action="store_false", help="the same as --no-adaptive")
    options.add_argument("--duration", type=_positive, default=math.inf, help="seconds (default: until stopped)")
    options.add_argument("--loop", action=argparse.BooleanOptionalAction, default=True, help="begin again at the stream's end")
    options.add_argument("--once", dest="loop", action="store_false", help="the same as --no-loop")
    options.add_argument("--concurrency", type=_count, default=64, help="requests out at once")
    options.add_argument("--wait", type=_positive, default=60.0, help="seconds to wait for the router to be ready")
    options.add_argument("--status", type=Path, help="status file (default: load.json beside the fleet file)")
    options.add_argument("--json", action="store_true", help="print the summary as JSON")
    return options


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number > 0")
    return value


def _speed(text: str) -> float | None:
    return None if text == "auto" else _positive(text)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 0")
    return int(text)


def _count(text: str) -> int:
    value = _whole(text)
    if not 1 <= value <= 4_096:
        raise argparse.ArgumentTypeError(f"{text} is not in 1..4096")
    return value


def read_fleet(path: Path) -> FleetFile:
    """The fleet file; `Usage` if it is missing or not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetFile)
    except OSError as error:
        raise Usage(f"--fleet: {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise Usage(f"--fleet: {path} is not a fleet file: {error}") from None


def build_workload(options: argparse.Namespace, profile: Profile) -> tuple[Workload, list[str]]:
    """The stream that was asked for, and notes on how it was made."""
    if options.trace is None:
        if options.speed is not None:
            raise Usage("--speed: only a log has one, give --trace too")
        name = options.workload or "demo"
        rate = options.rate or RATE_DEFAULT
        return synthetic_workload(name, options.seed, rate, options.loop, DemoParameters.for_profile(profile)), []
    if options.workload is not None:
        raise Usage("--workload and --trace: give one of them")
    names = [name.strip() for name in options.columns.split(",")]
    if len(names) != 3 or not all(names):
        raise Usage("--columns: three names are needed: user,item,ts")
    rules = msgspec.structs.replace(ReplayRules.for_profile(profile), items=options.items)
    pace = Pace(speed=options.speed, rate_per_second=options.rate)
    return open_trace(options.trace, rules, pace, options.seed, Columns(names[0], names[1], names[2], options.ts_unit), options.loop)


def build_control(options: argparse.Namespace, profile: Profile) -> PaceControl:
    """The pace and its bounds: 1 is the stream's own rate."""
    rate = options.rate or RATE_DEFAULT
    climbs = options.trace is not None and options.speed is None
    ceiling = options.rate_max / rate if options.rate_max else (TRACE_PACE_MAX if climbs else 1.0)
    floor = options.rate_min / rate if options.rate_min else min(PACE_MIN, ceiling)
    if floor > ceiling:
        raise Usage("--rate-min is above --rate-max")
    limits = PaceLimits(pace_min=floor, pace_max=ceiling, pace_refused_min=floor / 10, latency_ms_max=profile.slo_ms)
    return PaceControl(min(1.0, ceiling), limits, options.adaptive)


def human(summary: dict[str, Any]) -> str:
    """The summary for a person: one line for the run, one for each node."""
    lines = [
        f"{summary['requests']} requests in {summary['duration_seconds']:.0f} s, {summary['requests_per_second'] or 0:.1f} answered/s, "
        f"P50 {_figure(summary['latency_ms_p50'])} ms, P99 {_figure(summary['latency_ms_p99'])} ms, "
        f"failures {summary['failures']}, shed {summary['shed']}"
    ]
    lines += [f"  failed: {count} x {reason}" for reason, count in summary["failures_by_reason"].items()]
    if summary["saturated_seconds"]:
        calm = _figure(summary["latency_ms_p99_unsaturated"])
        lines.append(f"  the host was saturated for {summary['saturated_seconds']} s: P99 without them {calm} ms")
    for name, node in summary["nodes"].items():
        lines.append(
            f"  {name}: {node['requests']} requests, emb_ratio {_figure(node.get('emb_ratio'))}, "
            f"EMB hits {_figure(node.get('emb_hit_ratio'))}, KV hits {_figure(node.get('kv_hit_ratio'))}"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


async def _run(generator: LoadGenerator) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, generator.stop)
    return await generator.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a run, 1 when the router never became ready, 2 for an option that cannot be followed."""
    try:
        options = parser().parse_args(arguments)
        fleet = read_fleet(options.fleet)
        profile = load_profile(fleet.profile)
        workload, notes = build_workload(options, profile)
        control = build_control(options, profile)
    except (Usage, ValueError) as error:
        say(" ".join(str(error).split()))
        return 2
    for note in notes:
        say(note)
    settings = LoadSettings(
        seed=options.seed,
        duration_seconds=options.duration,
        concurrency=options.concurrency,
        ready_seconds=options.wait,
        status_path=options.status or options.fleet.parent / "load.json",
    )
    generator = LoadGenerator(fleet, workload, settings, control, say)
    try:
        summary = uvloop.run(_run(generator))
    except NotReady as error:
        say(str(error))
        return 1
    print(json.dumps({**summary, "notes": notes}) if options.json else human(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
