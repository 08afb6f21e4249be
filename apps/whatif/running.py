"""Carrying out one what-if: three simulations in a row, a sign of life beside them, one end."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from django.db import connection
from django.utils import timezone

from apps.whatif import actions
from apps.whatif.lifecycle import Status
from apps.whatif.models import WhatIf
from apps.whatif.scenarios import Run, runs

logger = logging.getLogger(__name__)


class Cancelled(Exception):
    """Somebody asked for the end."""


class Outcome(NamedTuple):
    """One simulation's answer: a cell of figures and series over time."""

    cell: dict[str, Any]
    series: dict[str, list[Any]]


Simulate = Callable[[dict[str, Any], Run, Callable[[float], None], Callable[[], bool]], Outcome]


class Pulse:
    """Writes progress and a sign of life every two seconds from its own thread, and learns of a cancellation."""

    def __init__(self, pk: int) -> None:
        self._pk = pk
        self._started = time.monotonic()
        self.progress, self.stage = 0.0, "starting"
        self.stop_wanted = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"whatif-{pk}-pulse", daemon=True)

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=30)

    @property
    def eta_seconds(self) -> float | None:
        """How long it still takes, if it goes on as so far."""
        if self.progress < 0.02:  # too early to tell
            return None
        spent = time.monotonic() - self._started
        return spent * (1.0 - self.progress) / self.progress

    def _beat(self) -> None:
        try:
            self._write()
            while not self._done.wait(actions.HEARTBEAT_SECONDS):
                self._write()
        finally:
            connection.close()

    def _write(self) -> None:
        try:
            if not actions.heartbeat(self._pk, self.progress, self.eta_seconds, self.stage, timezone.now()):
                self.stop_wanted = True
        except Exception:
            logger.warning("what-if %s could not write its sign of life", self._pk, exc_info=True)


def carry_out(row: WhatIf, simulate: Simulate) -> None:
    """Run a claimed what-if to its end, whatever happens in between."""
    try:
        with Pulse(row.pk) as pulse:
            result = {"runs": [_one(row, index, run, pulse, simulate) for index, run in enumerate(runs(row.scenario))]}
        actions.finish(row.pk, Status.SUCCEEDED, timezone.now(), result=result)
    except Cancelled:
        actions.finish(row.pk, Status.CANCELLED, timezone.now())
    except BaseException as error:
        logger.exception("what-if %s failed", row.uid)
        actions.finish(row.pk, Status.FAILED, timezone.now(), error=f"{type(error).__name__}: {error}")
        if not isinstance(error, Exception):
            raise


def _one(row: WhatIf, index: int, run: Run, pulse: Pulse, simulate: Simulate) -> dict[str, Any]:
    total = len(runs(row.scenario))
    pulse.stage = run.label

    def progress(share: float) -> None:
        pulse.progress = (index + min(max(share, 0.0), 1.0)) / total

    progress(0.0)
    outcome = simulate(row.scenario, run, progress, lambda: pulse.stop_wanted)
    if pulse.stop_wanted:
        raise Cancelled
    progress(1.0)
    return {"label": run.label, "method": run.method, "cell": outcome.cell, "series": outcome.series}
