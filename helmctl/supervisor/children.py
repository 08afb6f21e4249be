"""The record of started processes. A supervisor that is killed leaves them running; its record lets the next command stop them.

A process is known by pid and start time together, so that a pid given out again is never touched.
"""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import psutil


def write_children(path: Path, pids: Mapping[str, int]) -> None:
    """Record the living processes by name."""
    rows = {name: [pid, started] for name, pid in pids.items() if (started := _start_time(pid)) is not None}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(rows))
    fresh.replace(path)


def living_children(path: Path) -> dict[str, int]:
    """Recorded processes that still run, by name."""
    try:
        rows = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {name: pid for name, (pid, started) in rows.items() if _start_time(pid) == started}


def stop_leftovers(path: Path, patience_seconds: float = 8.0) -> list[str]:
    """End what a killed supervisor left behind, each with its process group; return the names."""
    left = living_children(path)
    for number, seconds in ((signal.SIGTERM, patience_seconds), (signal.SIGKILL, 2.0)):
        for pid in living_children(path).values():
            signal_group(pid, number)
        deadline_seconds = time.monotonic() + seconds
        while living_children(path) and time.monotonic() < deadline_seconds:
            time.sleep(0.05)
    path.unlink(missing_ok=True)
    return sorted(left)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that `pid` leads; nothing when it is gone."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _start_time(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
