"""`python -m agents.runtime.router_main --fleet FILE`: the router until SIGTERM or SIGINT.

Exit codes: 0 after a drain, 2 when it cannot be started like this.
"""

import argparse
import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from agents.profiles import Profile
from agents.router.router import Router, RouterConfig
from agents.router.state import POLICIES
from agents.router.warm import warm_up
from agents.runtime.config import SettingsError, fleet_profile, read_fleet_file, salt_of
from agents.runtime.logs import log_to_stderr
from agents.runtime.memory import keep_what_is_alive
from agents.runtime.router.daemon import RouterDaemon
from agents.runtime.router.limits import Limits
from agents.runtime.router.recording import RecordingRouter
from agents.wire.messages import FleetFile

EXIT_REFUSED = 2
MILLISECONDS_MAX = 60_000.0
STANDING_BY = "standing_by"

log = structlog.get_logger("router")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="agents.runtime.router_main", description="One HELM router.")
    parser.add_argument("--fleet", type=Path, required=True, help="path of fleet.json")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="joint", help="how to choose a node")
    parser.add_argument("--seed", type=int, default=None, help="of ties and jitter; left out, every router draws differently")
    parser.add_argument(
        "--failure-mode",
        choices=("FailOpen", "FailClose"),
        default="FailClose",
        help="whether to send blindly when no node is known to be ready",
    )
    parser.add_argument("--hedge-after-ms", type=_milliseconds, default=0.0, help="ask one more node when an answer takes longer; 0: never")
    parser.add_argument("--journal", type=Path, default=None, help="folder to record this run in")
    parser.add_argument("--standby", action="store_true", help="load everything and wait for a line on the standard input before serving")
    return parser.parse_args(arguments)


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= MILLISECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and {MILLISECONDS_MAX:.0f}")
    return value


def read_fleet(path: Path) -> tuple[FleetFile, Profile]:
    """The fleet and its profile; `SettingsError` in one sentence."""
    fleet = read_fleet_file(path)
    salt_of(fleet)
    profile = fleet_profile(path, fleet)
    if not fleet.nodes:
        raise SettingsError(f"{path}: the fleet has no nodes")
    return fleet, profile


def make_router(fleet: FleetFile, profile: Profile, options: argparse.Namespace) -> Router:
    """The routing core, recorded if asked for."""
    names = [node.name for node in fleet.nodes]
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(7), "little")
    config = RouterConfig(policy=options.policy, busy_ms=profile.slo_ms)
    if options.journal is None:
        return Router(names, config, seed)
    try:
        return RecordingRouter(names, config, seed, options.journal, fleet.router.name, time.time_ns())
    except OSError as error:
        raise SettingsError(f"{options.journal}: {error.strerror}") from error


async def serve(fleet: FleetFile, profile: Profile, router: Router, limits: Limits) -> int:
    """Run one router; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = RouterDaemon(fleet, profile, router, limits, seed=int.from_bytes(os.urandom(7), "little"))
    try:
        await daemon.start(fleet.router.host, fleet.router.port)
    except OSError as error:
        await daemon.close()
        what = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        return refuse(f"cannot listen on {fleet.router.host}:{fleet.router.port}: {what}")
    keep_what_is_alive()
    await stop.wait()
    await daemon.drain()
    return 0


def called_up() -> bool:
    """Load what a router needs and wait until one is; False when whoever would say so is gone."""
    warm_up()
    log.info(STANDING_BY)
    return bool(sys.stdin.readline())


def refuse(sentence: str) -> int:
    """One line for the terminal, and the exit code for it."""
    print(f"router: {sentence}", file=sys.stderr)
    return EXIT_REFUSED


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a router; one clear line and 2 when that is not possible."""
    log_to_stderr()
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.standby and not called_up():
        return 0
    try:
        fleet, profile = read_fleet(options.fleet)
        warm_up()
        router = make_router(fleet, profile, options)
    except SettingsError as error:
        return refuse(str(error))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            limits = Limits(fail_open=options.failure_mode == "FailOpen", hedge_seconds=options.hedge_after_ms / 1e3)
            return runner.run(serve(fleet, profile, router, limits))
    finally:
        if isinstance(router, RecordingRouter):
            router.journal.close()


if __name__ == "__main__":
    raise SystemExit(main())
