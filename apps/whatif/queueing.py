"""Handing a run to the workers."""

from celery import current_app

from apps.outbox.models import OutboxMessage


def send_job(message: OutboxMessage) -> bool:
    """Put the job on Celery's queue; raises when the broker is away, and the outbox tries again."""
    current_app.send_task("whatif.run", args=[message.payload["uid"]], retry=False)
    return True
