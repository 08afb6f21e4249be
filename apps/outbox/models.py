"""Facts to be sent, and answers to be replayed."""

from django.db import models


class OutboxMessage(models.Model):
    """One fact that must reach somebody outside the database. `key` groups facts of which only the newest matters."""

    class State(models.TextChoices):
        """`pending` and `sent` are open; the others are the end."""

        PENDING = "pending"
        SENT = "sent"
        DONE = "done"
        SUPERSEDED = "superseded"
        REFUSED = "refused"

    topic = models.CharField(max_length=32)
    key = models.CharField(max_length=64, blank=True)
    payload = models.JSONField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["state", "due_at"], name="outbox_open"), models.Index(fields=["topic", "key"], name="outbox_key")]


class IdempotencyKey(models.Model):
    """One `Idempotency-Key` of one user on one route: what was asked, and what was answered."""

    user_name = models.CharField(max_length=150)
    route = models.CharField(max_length=64)
    key = models.CharField(max_length=128)
    request_digest = models.CharField(max_length=64)
    status_code = models.PositiveSmallIntegerField(null=True)
    response = models.JSONField(null=True)
    headers = models.JSONField(default=dict)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user_name", "route", "key"], name="idempotency_once")]
