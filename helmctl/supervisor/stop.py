"""Stop what runs, from another terminal."""

import os
import signal
import time

from helmctl.supervisor.children import stop_leftovers
from helmctl.supervisor.lock import holder_pid
from helmctl.supervisor.state import StateFolder

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 45.0  # above the sum of what the stop orders may take


def stop_running(state: StateFolder, patience_seconds: float = PATIENCE_SECONDS) -> list[str]:
    """Ask the supervisor to stop and wait for it; end what a killed one left. Lines to print; none when nothing ran."""
    lines = []
    pid = holder_pid(state.lock_file)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        lines.append(f"Stopped the system (pid {pid})." if _wait_gone(state, patience_seconds) else _kill(pid, state))
    lines += [f"Stopped {name}, left over from a run that was killed." for name in stop_leftovers(state.children_file)]
    state.lock_file.unlink(missing_ok=True)
    return lines


def _wait_gone(state: StateFolder, patience_seconds: float) -> bool:
    deadline_seconds = time.monotonic() + patience_seconds
    while time.monotonic() < deadline_seconds:
        if holder_pid(state.lock_file) is None:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _kill(pid: int, state: StateFolder) -> str:
    os.kill(pid, signal.SIGKILL)
    _wait_gone(state, 5.0)
    return f"Killed the supervisor (pid {pid}), which did not stop in time."
