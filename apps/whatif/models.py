"""What-if runs: what was asked, how far it is, what came out."""

import uuid

from django.db import models


class WhatIf(models.Model):
    """One question to the simulator. The database is the only truth about its state."""

    class Status(models.TextChoices):
        """`queued` and `running` are open; the others are the end."""

        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.QUEUED)
    scenario = models.JSONField()
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)  # the worker's sign of life
    cancel_requested = models.BooleanField(default=False)
    progress = models.FloatField(default=0.0)
    eta_seconds = models.FloatField(null=True)
    stage = models.CharField(max_length=64, blank=True)
    result = models.JSONField(null=True)
    error = models.CharField(max_length=500, blank=True)

    class Meta:
        indexes = [models.Index(fields=["status", "heartbeat_at"], name="whatif_open")]
