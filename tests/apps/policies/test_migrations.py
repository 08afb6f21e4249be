"""A database from before a constraint is brought over it, whatever stands in it."""

import pytest
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

BEFORE, AFTER = [("policies", "0002_trainingrun")], [("policies", "0003_one_open_training_run")]


@pytest.mark.django_db(transaction=True)
def test_of_two_training_runs_left_open_the_newest_stays_so_and_the_other_says_why_it_ended() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate(BEFORE)
    try:
        apps = executor.loader.project_state(BEFORE).apps
        fields = {"digest": "a" * 64, "name": "mine", "number": 1, "variant": "helm", "source": "shipped", "card": "{}", "weights": b""}
        parent = apps.get_model("policies", "PolicyVersion").objects.create(**fields, created_by="anna", created_at=timezone.now())
        runs = apps.get_model("policies", "TrainingRun").objects
        for hour, status in enumerate(("running", "queued", "succeeded")):
            created = timezone.now().replace(hour=hour)
            runs.create(parent=parent, options={}, status=status, created_by=status, created_at=created)
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    runs = executor.loader.project_state(AFTER).apps.get_model("policies", "TrainingRun").objects
    assert {run.created_by: (run.status, run.error) for run in runs.all()} == {
        "running": ("failed", "another run was open at the same time"),
        "queued": ("queued", ""),
        "succeeded": ("succeeded", ""),
    }
    with pytest.raises(IntegrityError):
        runs.create(parent_id=parent.pk, options={}, status="queued", created_by="anna", created_at=timezone.now())
