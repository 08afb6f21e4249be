"""`python -m agents.runtime.node_main --fleet FILE --name NAME`: one node until SIGTERM or SIGINT.

Exit codes: 0 after a drain, 1 when the node broke, 2 when it cannot be started like this. What can
be refused is refused before torch is loaded: a wrong name or a taken port is told at once.
"""

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Sequence

import uvloop

from agents.runtime.config import NodeSettings, SettingsError, bind, parse_node_settings
from agents.runtime.logs import log_to_stderr
from agents.runtime.memory import give_back, keep_small, keep_what_is_alive

EXIT_BROKEN = 1
EXIT_REFUSED = 2


async def serve(settings: NodeSettings, bound: socket.socket) -> int:
    """Run one node; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)  # before the imports: a signal meanwhile is obeyed after them
    from agents.runtime.node_daemon import NodeDaemon, make_device

    daemon = NodeDaemon(settings, await asyncio.to_thread(make_device, settings))
    await daemon.start(bound)
    give_back()
    keep_what_is_alive()
    daemon.engine.broken.add_done_callback(lambda _: stop.set())
    keeper = asyncio.create_task(keep_small(lambda: daemon.engine.requests_total))
    await stop.wait()
    keeper.cancel()
    broken = daemon.engine.broken.done()
    await daemon.stop()
    return EXIT_BROKEN if broken else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a node; one clear line and 2 when that is not possible."""
    log_to_stderr()
    try:
        settings = parse_node_settings(sys.argv[1:] if arguments is None else arguments)
        try:
            with bind(settings.host, settings.port) as bound:
                return uvloop.run(serve(settings, bound))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise SettingsError(f"{settings.host}:{settings.port} is taken") from error
    except SettingsError as error:
        sys.stderr.write(f"HELM node: {error}\n")
        return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
