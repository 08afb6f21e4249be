"""Memory that a daemon does not need any more, given back to the system: after its start, and whenever nobody asks.

Loading compiled kernels walks through the compiler's library, and its code stays counted as resident. That code is
a clean copy of a file: the system may drop it at once and reads it again should a kernel ever be compiled later.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

COMPILER_LIBRARY = "libllvmlite.so"
SILENCE_SECONDS = 5.0  # without a request, after which buffers of the last ones are no use to anybody
_MAPS = Path("/proc/self/maps")
_DONT_NEED = 4  # MADV_DONTNEED of Linux
_YOUNG_OBJECTS, _GENERATIONS = 20_000, 20  # between collections: some hundred requests

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


async def keep_small(served: Callable[[], int], give: Callable[[], None] | None = None, silence_seconds: float = SILENCE_SECONDS) -> None:
    """Give memory back once in every silence, for ever; `served` counts what breaks one. `give` is `give_back` by default."""
    given_at = None
    while True:
        before = served()
        await asyncio.sleep(silence_seconds)
        if before == served() != given_at:
            given_at = before
            await asyncio.to_thread(give or give_back)


def keep_what_is_alive() -> None:
    """Spare collections what started the process, and make them rarer; call once everything is loaded and warm.

    A full collection would walk torch and numba in the middle of somebody's request, and one after every 700 new objects costs
    a batch some 4 % of the engine's work, though next to nothing in it is cyclic. What is, waits for a few MB at most.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _GENERATIONS, _GENERATIONS)


def give_back() -> None:
    """Collect garbage, return free heap, drop the compiler's code. What cannot be had is left."""
    gc.collect()
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(ctypes.c_size_t(0))
        for code in list(code_of(COMPILER_LIBRARY, _MAPS.read_text("utf-8").splitlines())):
            libc.madvise(ctypes.c_void_p(code.start), ctypes.c_size_t(code.size_bytes), ctypes.c_int(_DONT_NEED))
    except (OSError, AttributeError) as error:  # not Linux, or not its C library
        log.info("memory_kept", reason=str(error))
