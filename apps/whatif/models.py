"""What-if runs: what was asked, how far it is, what came out."""

from django.db import models

from apps.jobs.models import Job


class WhatIf(Job):
    """One question to the simulator."""

    scenario = models.JSONField()
    result = models.JSONField(null=True)

    class Meta:
        indexes = [models.Index(fields=["status", "heartbeat_at"], name="whatif_open")]
