"""Celery shells around training. Torch and the simulator are imported inside the body: the web process must not load them."""

from typing import Any

from celery import shared_task
from django.utils import timezone

from apps.policies import training_actions as actions
from apps.policies.training import Answer, Question, Told, carry_out


@shared_task(name="policies.tune")
def tune(uid: str) -> None:
    """Carry out one training run; seeing it twice is harmless."""
    row = actions.JOBS.claim(uid, timezone.now())
    if row is not None:
        carry_out(row, fine_tune)


@shared_task(name="policies.tune_on_schedule")
def tune_on_schedule(options: dict[str, Any]) -> None:
    """What the operators' schedule asks for."""
    actions.start_on_schedule(options, timezone.now())


@shared_task(name="policies.reconcile")
def reconcile() -> int:
    """End runs whose worker is gone."""
    return actions.JOBS.reconcile()


def fine_tune(question: Question, told: Told) -> Answer | None:
    """Tune and compare in this process."""
    from agents.learning.tune import Report, TuneOptions
    from agents.learning.tune import tune as tune_policy

    report = Report(told.stage, lambda point: told.point(point._asdict()))
    done = tune_policy(question.parent, question.journals, TuneOptions(**question.options), report, told.cancelled)
    return None if done is None else Answer(done.file.weights, done.file.card, done.evaluation)
