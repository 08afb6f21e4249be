"""A sign of life beside the work, and one end whatever happens in between."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.jobs.life import HEARTBEAT_SECONDS
from apps.jobs.models import Job

logger = logging.getLogger(__name__)
Heartbeat = Callable[..., bool]
Finish = Callable[..., bool]


class Cancelled(Exception):
    """Somebody asked for the end."""


class Pulse:
    """Writes progress and a sign of life every two seconds from its own thread, and learns of a cancellation."""

    def __init__(self, pk: int, heartbeat: Heartbeat) -> None:
        self._pk = pk
        self._heartbeat = heartbeat
        self._started = time.monotonic()
        self.progress, self.stage = 0.0, "starting"
        self.more: dict[str, Any] = {}  # further columns to write beside
        self.stop_wanted = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"job-{pk}-pulse", daemon=True)

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
            while not self._done.wait(HEARTBEAT_SECONDS):
                self._write()
        finally:
            connection.close()

    def _write(self) -> None:
        try:
            if not self._heartbeat(self._pk, self.progress, self.eta_seconds, self.stage, timezone.now(), **self.more):
                self.stop_wanted = True
        except Exception:
            logger.warning("job %s could not write its sign of life", self._pk, exc_info=True)


@contextmanager
def ending(row: Job, finish: Callable[[int, str, datetime], bool]) -> Iterator[None]:
    """Whatever breaks inside, the job ends: cancelled, or failed with the error's own words."""
    try:
        yield
    except Cancelled:
        finish(row.pk, Job.Status.CANCELLED, timezone.now())
    except BaseException as error:
        logger.exception("job %s failed", row.uid)
        finish(row.pk, Job.Status.FAILED, timezone.now(), error=f"{type(error).__name__}: {error}")  # type: ignore[call-arg]
        if not isinstance(error, Exception):
            raise
