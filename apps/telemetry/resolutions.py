"""Four resolutions, how long each is kept, and which one answers which range (pure)."""

from typing import NamedTuple


class Resolution(NamedTuple):
    """A bucket width, how long its points are kept, and the finer one it is made from."""

    seconds: int
    keep_seconds: int
    made_from_seconds: int


class Window(NamedTuple):
    """How a range is answered: how far back, from which resolution, every how many seconds for the fleet."""

    span_seconds: int
    resolution_seconds: int
    fleet_step_seconds: int


RESOLUTIONS = [
    Resolution(1, 3600, 0),
    Resolution(10, 24 * 3600, 1),
    Resolution(60, 14 * 24 * 3600, 10),
    Resolution(600, 366 * 24 * 3600, 60),
]
WINDOWS = {
    "15m": Window(900, 1, 5),
    "1h": Window(3600, 10, 10),
    "6h": Window(6 * 3600, 60, 60),
    "24h": Window(24 * 3600, 60, 600),
    "7d": Window(7 * 24 * 3600, 600, 600),
}


def bucket_start(at_seconds: int, resolution_seconds: int) -> int:
    """Unix time at which the bucket of `at_seconds` begins."""
    return at_seconds - at_seconds % resolution_seconds
