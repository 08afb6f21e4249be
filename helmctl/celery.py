"""Celery: the queue and the clock of background work."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "helmctl.settings")

from celery import Celery
from celery.signals import heartbeat_sent, worker_shutdown
from django.conf import settings

from helmctl.alive import fall_silent, say_alive

app = Celery("helm", set_as_current=True)
app.set_default()
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    # Results live in the database next to their job; Celery's own result store would be a second truth.
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    # Publishing must not hang a request while the broker is away: the outbox tries again.
    broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2, "visibility_timeout": 6 * 3600},
    task_publish_retry=False,
    timezone="UTC",
    beat_scheduler="helmctl.beat:LivingScheduler",
    result_expires=None,
    beat_schedule={
        "roll up telemetry": {"task": "telemetry.roll_up", "schedule": 10.0, "options": {"expire_seconds": 10}},
        "drop what retention no longer keeps": {"task": "telemetry.prune", "schedule": 60.0, "options": {"expire_seconds": 60}},
        "end what-ifs whose worker is gone": {"task": "whatif.reconcile", "schedule": 5.0, "options": {"expire_seconds": 5}},
        "end training whose worker is gone": {"task": "policies.reconcile", "schedule": 5.0, "options": {"expire_seconds": 5}},
    },
)
app.autodiscover_tasks(["apps.telemetry", "apps.whatif", "apps.policies"])


@heartbeat_sent.connect
def _worker_lives(**_: object) -> None:
    """Every two seconds, from the loop that takes tasks."""
    say_alive("worker")


@worker_shutdown.connect
def _worker_ends(**_: object) -> None:
    fall_silent("worker")
