"""Django's registration of this app."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PoliciesConfig(AppConfig):
    """Policy versions, their rollout and training runs."""

    name = "apps.policies"
    label = "policies"

    def ready(self) -> None:
        """The policies that come with the product stand in the registry as soon as it has tables."""
        post_migrate.connect(_register_shipped, sender=self, dispatch_uid="policies that come with the product")


def _register_shipped(**_: Any) -> None:
    from apps.policies.shipped import register_shipped

    register_shipped()
