"""What every test with real processes needs: a free port, and waiting for a fact instead of for a time."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
PATIENCE_SECONDS = 60.0  # a busy machine is slow, not broken
LOOK_AGAIN_SECONDS = 0.05  # between two looks; how long a test takes, never whether it passes


def until(what: str, look: Callable[[], Answer], seconds: float = PATIENCE_SECONDS) -> Answer:
    """Look until the answer is true and return it; says what it waited for when it never is."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}")
        time.sleep(LOOK_AGAIN_SECONDS)
    return answer


def free_ports(count: int) -> list[int]:
    """Distinct ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def free_port() -> int:
    """A port nobody listened on a moment ago."""
    return free_ports(1)[0]
