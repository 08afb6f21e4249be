"""Says aloud that the host is saturated, so that its queue for cores is not sold as HELM's latency."""

from collections.abc import Callable
from pathlib import Path

from helmctl.supervisor.view import read_load

QUIET_NS = 60_000_000_000  # a saturated minute is one line


class SaturationWatch:
    """Called now and then; returns a line when the load generator measured a saturated host, at most once a minute."""

    def __init__(self, load_file: Path, clock_unix_ns: Callable[[], int]) -> None:
        self._load_file = load_file
        self._clock_unix_ns = clock_unix_ns
        self._quiet_until_ns = 0

    def __call__(self) -> str | None:
        """One line, or None."""
        now_ns = self._clock_unix_ns()
        status = read_load(self._load_file, now_ns)
        if now_ns < self._quiet_until_ns or status is None or not status.get("saturated"):
            return None
        self._quiet_until_ns = now_ns + QUIET_NS
        return str(status["message"])
