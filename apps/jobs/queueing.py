"""Handing a job to the workers."""

from collections.abc import Callable

from celery import current_app

from apps.outbox.models import OutboxMessage


def sender(task: str) -> Callable[[OutboxMessage], bool]:
    """An outbox handler that puts `task` on Celery's queue; raises when the broker is away, and the outbox tries again."""

    def send(message: OutboxMessage) -> bool:
        current_app.send_task(task, args=[message.payload["uid"]], retry=False)
        return True

    return send
