"""One supervisor per state folder: a lock that dies with its holder.

The kernel drops the lock when the holder ends however it ends, so a lock that can be taken is never stale
and a lock that cannot be taken names a living process: pids that were given out again cannot mislead.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from helmctl.supervisor.refusal import Refusal


class InstanceLock:
    """Context manager that holds the lock; entering it while another process does raises `Refusal`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        descriptor = _take(self._path)
        if descriptor is None:
            raise Refusal(f"HELM already runs here (pid {holder_pid(self._path) or 'unknown'}); stop it with: helmctl down")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._path.unlink(missing_ok=True)  # while it is held, so that nobody else's file can be meant
        os.close(self._descriptor)


def holder_pid(path: Path) -> int | None:
    """Pid of the living holder, or None when nobody holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode().strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)


def _take(path: Path) -> int | None:
    """Descriptor of the locked file; None when another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_file_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # the last holder removed this file between our open and our lock: take the new one


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
