"""What every long piece of work has: who asked, how far it is, how it ended."""

import uuid

from django.db import models


class Job(models.Model):
    """One piece of work in a worker. The database is the only truth about its state."""

    class Status(models.TextChoices):
        """`queued` and `running` are open; the others are the end."""

        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.QUEUED)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)  # the worker's sign of life
    cancel_requested = models.BooleanField(default=False)
    progress = models.FloatField(default=0.0)
    eta_seconds = models.FloatField(null=True)
    stage = models.CharField(max_length=64, blank=True)
    error = models.CharField(max_length=500, blank=True)

    class Meta:
        abstract = True


OPEN = (Job.Status.QUEUED, Job.Status.RUNNING)
