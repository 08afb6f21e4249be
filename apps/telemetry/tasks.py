"""Celery shells around roll-ups and retention."""

from celery import shared_task
from django.utils import timezone

from apps.outbox import dispatch, idempotency
from apps.telemetry import rollups


@shared_task(name="telemetry.roll_up")
def roll_up() -> int:
    """Bring coarser resolutions up to date."""
    return rollups.roll_up(timezone.now())


@shared_task(name="telemetry.prune")
def prune() -> int:
    """Drop what retention no longer keeps."""
    now = timezone.now()
    return rollups.prune(now) + dispatch.prune(now) + idempotency.prune(now)
