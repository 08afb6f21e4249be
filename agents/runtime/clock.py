"""Time for the real-time body: monotonic inside, unix on the wire. Read once per turn and passed on."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a body's time comes from; tests give one they can move."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds; only differences mean anything."""
        ...

    def unix_ns(self) -> int:
        """Wall clock, for the wire and for what must outlive a restart."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        """Unix nanoseconds."""
        return time.time_ns()
