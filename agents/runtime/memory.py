"""Memory a daemon needed to start and does not need to serve, given back to the system.

Loading compiled kernels walks through the compiler's library, and its code stays counted as resident. That code is
a clean copy of a file: the system may drop it at once and reads it again should a kernel ever be compiled later.
"""

import ctypes
import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

COMPILER_LIBRARY = "libllvmlite.so"
_MAPS = Path("/proc/self/maps")
_DONT_NEED = 4  # MADV_DONTNEED of Linux

log = structlog.get_logger(__name__)


class Mapping(NamedTuple):
    """A piece of the address space."""

    start: int
    size_bytes: int


def code_of(library: str, maps: Iterable[str]) -> Iterator[Mapping]:
    """Where `/proc/PID/maps` has a library's code: executable, never written. Its data are private and stay."""
    for line in maps:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and Path(fields[5].strip()).name == library:
            start, _, stop = fields[0].partition("-")
            yield Mapping(int(start, 16), int(stop, 16) - int(start, 16))


def give_back() -> None:
    """After a start: collect garbage, return free heap, drop the compiler's code. What cannot be had is left."""
    gc.collect()
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(ctypes.c_size_t(0))
        for code in list(code_of(COMPILER_LIBRARY, _MAPS.read_text("utf-8").splitlines())):
            libc.madvise(ctypes.c_void_p(code.start), ctypes.c_size_t(code.size_bytes), ctypes.c_int(_DONT_NEED))
    except (OSError, AttributeError) as error:  # not Linux, or not its C library
        log.info("memory_kept", reason=str(error))
