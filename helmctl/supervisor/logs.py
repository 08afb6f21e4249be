"""Log files that stay small: a process appends, the supervisor moves a full file aside."""

import shutil
from pathlib import Path
from typing import BinaryIO

LOG_BYTES_MAX = 8 * 2**20  # two of them per process: a week of a talkative node without filling a disk


def open_log(path: Path) -> BinaryIO:
    """Open for appending, so that the process goes on writing at the start of a file that was emptied."""
    return path.open("ab", buffering=0)


def rotate(path: Path, bytes_max: int = LOG_BYTES_MAX) -> bool:
    """Copy a full log to `NAME.log.1` and empty it; the process that writes it needs to know nothing."""
    if not path.exists() or path.stat().st_size <= bytes_max:
        return False
    shutil.copyfile(path, path.with_suffix(path.suffix + ".1"))
    with path.open("r+b") as file:
        file.truncate(0)
    return True


def tail(path: Path, lines: int = 5, bytes_max: int = 8192) -> list[str]:
    """The last lines, for the message about a process that would not start."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - bytes_max))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]
