"""Django's registration of this app."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PoliciesConfig(AppConfig):
    """Policy versions, their rollout and training runs."""

    name = "apps.policies"
    label = "policies"

    def ready(self) -> None:
        """Give the outbox its way to the workers; put what comes with the product into the registry as soon as it has tables."""
        from apps.jobs.queueing import sender
        from apps.outbox.dispatch import register
        from apps.policies.training_actions import TOPIC_JOB

        register(TOPIC_JOB, sender("policies.tune"))
        post_migrate.connect(_register_shipped, sender=self, dispatch_uid="policies that come with the product")


def _register_shipped(**_: Any) -> None:
    from apps.policies.shipped import register_shipped

    register_shipped()
