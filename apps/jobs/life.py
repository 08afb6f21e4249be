"""The life of a job: queued, claimed, alive, ended. Every change is a conditional one, so a job ends once, whoever gets there first."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import transaction
from django.utils import timezone

from apps.jobs.models import OPEN, Job
from apps.lib.problems import Missing
from apps.outbox.dispatch import enqueue

HEARTBEAT_SECONDS = 2.0
# A worker writes a sign of life every two seconds; ten missed ones are a lost worker, not a busy machine.
LOST_AFTER = timedelta(seconds=20)
# A queued job whose message the broker lost (a Redis without its log) is sent again.
SEND_AGAIN_AFTER = timedelta(seconds=60)

Status = Job.Status
Row = TypeVar("Row", bound=Job)


class Jobs(Generic[Row]):
    """All jobs of one model. `topic_job` goes to the workers, `topic_progress` to the consoles; `ended` tells of an end."""

    def __init__(self, model: type[Row], word: str, topic_job: str, topic_progress: str, ended: Callable[[Row, datetime], None]) -> None:
        self._model = model
        self._word = word
        self._topic_job, self._topic_progress = topic_job, topic_progress
        self._ended = ended

    @property
    def _rows(self) -> Any:
        return self._model._default_manager

    def by_uid(self, uid: str) -> Row:
        """One job, or a 404."""
        try:
            row = self._rows.filter(uid=uuid.UUID(uid)).first()
        except ValueError:
            row = None
        if row is None:
            raise Missing(f"unknown_{self._word}", f"There is no such {self._word}.")
        return row

    def queue(self, row: Row, now: datetime) -> None:
        """Hand a new row to the workers, in the caller's transaction."""
        enqueue(self._topic_job, row.uid.hex, {"uid": str(row.uid)}, now)
        self.tell(row, now)

    def tell(self, row: Row, now: datetime) -> None:
        """Consoles hear how far it is."""
        enqueue(self._topic_progress, row.uid.hex, {"uid": str(row.uid)}, now)

    def request_cancel(self, row: Row, now: datetime) -> bool:
        """At once while queued, at the worker's next step while running; False when it was asked for, or had ended, before."""
        asked = self._rows.filter(pk=row.pk, status__in=OPEN, cancel_requested=False).update(cancel_requested=True)
        queued = self._rows.filter(pk=row.pk, status=Status.QUEUED)
        if queued.update(status=Status.CANCELLED, finished_at=now, stage="cancelled"):
            self._tell_end(row.pk, now)
        return bool(asked)

    def claim(self, uid: str, now: datetime) -> Row | None:
        """A worker takes a queued job; `None` when another has it or it has ended."""
        row = self.by_uid(uid)
        queued = self._rows.filter(pk=row.pk, status=Status.QUEUED)
        taken = queued.update(status=Status.RUNNING, started_at=now, heartbeat_at=now, stage="starting")
        return self.by_uid(uid) if taken else None

    def heartbeat(self, pk: int, progress: float, eta_seconds: float | None, stage: str, now: datetime, **more: Any) -> bool:
        """A worker's sign of life; False when the job is not its any more or is to be cancelled."""
        with transaction.atomic():
            running = self._rows.filter(pk=pk, status=Status.RUNNING)
            alive = running.update(heartbeat_at=now, progress=progress, eta_seconds=eta_seconds, stage=stage[:64], **more)
            row = self._rows.get(pk=pk)
            if alive:
                self.tell(row, now)
        return bool(alive) and not row.cancel_requested

    def finish(self, pk: int, status: str, now: datetime, *, error: str = "", stage: str = "", **more: Any) -> bool:
        """Bring an open job to its end, told by `stage` where the status does not say all; False when it had ended already."""
        with transaction.atomic():
            row = self._rows.get(pk=pk)
            progress = 1.0 if status == Status.SUCCEEDED else row.progress
            ended = self._rows.filter(pk=pk, status__in=OPEN).update(
                status=status,
                finished_at=now,
                error=error[:500],
                progress=progress,
                eta_seconds=None,
                stage=(stage or status)[:64],
                **more,
            )
            if ended:
                self._tell_end(pk, now)
        return bool(ended)

    def reconcile(self, now: datetime | None = None) -> int:
        """End jobs whose worker is gone, and send queued ones again; returns how many were ended."""
        now = now or timezone.now()
        lost = self._rows.filter(status=Status.RUNNING, heartbeat_at__lt=now - LOST_AFTER).values_list("pk", flat=True)
        ended = sum(self.finish(pk, Status.FAILED, now, error="The worker running this was lost.") for pk in list(lost))
        waiting = self._rows.filter(status=Status.QUEUED, created_at__lt=now - SEND_AGAIN_AFTER, heartbeat_at__isnull=True)
        stale = waiting | self._rows.filter(status=Status.QUEUED, heartbeat_at__lt=now - SEND_AGAIN_AFTER)
        for row in list(stale):
            with transaction.atomic():
                self._rows.filter(pk=row.pk).update(heartbeat_at=now)
                enqueue(self._topic_job, row.uid.hex, {"uid": str(row.uid)}, now)
        return ended

    def _tell_end(self, pk: int, now: datetime) -> None:
        row = self._rows.get(pk=pk)
        self._ended(row, now)
        self.tell(row, now)
