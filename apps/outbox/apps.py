"""Django's registration of this app."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """Where its rows live."""

    name = "apps.outbox"
    label = "outbox"
