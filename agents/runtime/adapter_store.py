"""What a node's residual adapter has learned, on disk, so that a restart does not begin from nothing."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from agents.runtime.files import write_private
from agents.wire.messages import DecisionRecord

SAVE_PERIOD_NS = 60_000_000_000  # it learns from ten-second samples: a minute's loss is nothing
log = structlog.get_logger()


class AdapterStore:
    """Keeps one file. A damaged or foreign file is left out with a line in the log; a full disk stops nothing."""

    def __init__(self, path: Path, state: Callable[[], dict[str, float]], restore: Callable[[dict[str, float]], bool]) -> None:
        self._path = path
        self._state = state
        self._restore = restore
        self._saved_ns = 0
        self._waiting: dict[str, float] = {}  # a saved state that nobody could take yet

    def load(self) -> None:
        """Give a saved state back to the adapter, or keep it for one that comes later."""
        try:
            self._waiting = msgspec.json.decode(self._path.read_bytes(), type=dict[str, float])
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, OSError) as error:
            log.error("adapter_not_restored", error=str(error))
            return
        self.offer()

    def offer(self) -> None:
        """Try again with what nobody could take yet, if now somebody learns here."""
        if self._waiting and self._state():
            log.info("adapter_restored", taken=self._restore(self._waiting))
            self._waiting = {}

    def noted(self, record: DecisionRecord) -> None:
        """After a decision: save when the last time is a minute ago."""
        if record.at_unix_ns - self._saved_ns >= SAVE_PERIOD_NS:
            self._saved_ns = record.at_unix_ns
            self.save()

    def save(self) -> None:
        """Replace the file atomically, if there is anything to save: where nobody learns now, what was learned before stays."""
        state = self._state()
        if not state:
            return
        try:
            write_private(self._path, msgspec.json.encode(state))
        except OSError as error:
            log.error("adapter_not_saved", error=str(error))
