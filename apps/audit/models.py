"""Append-only tables: who changed what and why (`AuditEntry`), and what happened (`Event`)."""

from typing import Any

from django.db import models


class AppendOnlyError(Exception):
    """Somebody tried to rewrite history."""


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """A query set that only reads and inserts. A database trigger guards against everything else."""

    def update(self, **kwargs: Any) -> int:
        """Always refused."""
        raise AppendOnlyError("entries are never changed")

    def delete(self) -> tuple[int, dict[str, int]]:
        """Always refused."""
        raise AppendOnlyError("entries are never deleted")


class AuditEntry(models.Model):
    """One state change by one person or by the system. Dry runs never appear here."""

    at = models.DateTimeField()
    actor = models.CharField(max_length=150)
    actor_kind = models.CharField(max_length=16)  # user, token, system
    action = models.CharField(max_length=48)
    target_kind = models.CharField(max_length=24)
    target = models.CharField(max_length=128)
    reason = models.CharField(max_length=200, blank=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    request_id = models.CharField(max_length=64, blank=True)

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["actor", "-id"], name="audit_actor"),
            models.Index(fields=["target", "-id"], name="audit_target"),
            models.Index(fields=["action", "-id"], name="audit_action"),
            models.Index(fields=["at"], name="audit_at"),
        ]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert only."""
        if self.pk is not None:
            raise AppendOnlyError("entries are never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Always refused."""
        raise AppendOnlyError("entries are never deleted")


class Event(models.Model):
    """Something worth a line in the feed; kinds are the catalogue in `agents.wire.events`."""

    class Severity(models.TextChoices):
        """How much attention it wants."""

        INFO = "info"
        WARNING = "warning"
        CRITICAL = "critical"

    at = models.DateTimeField()
    kind = models.CharField(max_length=48)
    severity = models.CharField(max_length=16, choices=Severity.choices, default=Severity.INFO)
    actor = models.CharField(max_length=150, blank=True)
    target = models.CharField(max_length=128, blank=True)
    text = models.CharField(max_length=300)
    detail = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["target", "-id"], name="event_target"),
            models.Index(fields=["kind", "-id"], name="event_kind"),
            models.Index(fields=["at"], name="event_at"),
        ]
