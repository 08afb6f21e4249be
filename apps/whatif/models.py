"""What-if runs: what was asked, how far it is, what came out; and the simulations that a run is made of."""

from django.db import models

from apps.jobs.models import Job


class WhatIf(Job):
    """One question to the simulator."""

    scenario = models.JSONField()
    result = models.JSONField(null=True)

    class Meta:
        indexes = [models.Index(fields=["status", "heartbeat_at"], name="whatif_open")]


class Piece(Job):
    """One simulation of a run, for whichever worker is free. A run has few at a time; they go when it has its result."""

    whatif = models.ForeignKey(WhatIf, on_delete=models.CASCADE, related_name="pieces")
    index = models.PositiveIntegerField()  # in the run's list of questions
    outcome = models.JSONField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["whatif", "index"], name="whatif_piece_once")]
        indexes = [models.Index(fields=["status", "heartbeat_at"], name="whatif_piece_open")]
