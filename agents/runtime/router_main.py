"""`python -m agents.runtime.router_main --fleet FILE`: the router as a process."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from agents.profiles import load_profile
from agents.router.router import Router, RouterConfig
from agents.router.state import POLICIES
from agents.router.warm import warm_up
from agents.runtime.router.daemon import RouterDaemon
from agents.wire.messages import FleetFile


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="helm-router", description=__doc__)
    parser.add_argument("--fleet", type=Path, required=True, help="the fleet file")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="joint", help="how to choose a node")
    parser.add_argument("--seed", type=int, default=None, help="seed of ties and jitter; random when left out")
    return parser.parse_args(argv)


def _read_fleet(path: Path) -> FleetFile:
    try:
        fleet = msgspec.json.decode(path.read_bytes(), type=FleetFile)
        bytes.fromhex(fleet.cluster_salt_hex)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise SystemExit(_complaint(f"{path}: {error}")) from error
    return fleet


def _complaint(sentence: str) -> int:
    print(f"helm-router: {sentence}", file=sys.stderr)
    return 2


async def serve(fleet: FleetFile, policy: str, seed: int) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    names = [node.name for node in fleet.nodes]
    router = Router(names, RouterConfig(policy=policy), seed)
    daemon = RouterDaemon(fleet, load_profile(fleet.profile), router, seed=seed)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await daemon.start(fleet.router.host, fleet.router.port)
    except OSError as error:
        await daemon.close()
        return _complaint(f"cannot listen on {fleet.router.host}:{fleet.router.port}: {error.strerror or error}")
    await stop.wait()
    await daemon.drain()
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    options = _arguments(sys.argv[1:] if argv is None else argv)
    fleet = _read_fleet(options.fleet)
    warm_up()
    gc.collect()
    gc.freeze()  # what start-up left is for life: collections need not walk it again
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(8), "little")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(fleet, options.policy, seed))


if __name__ == "__main__":
    raise SystemExit(main())
