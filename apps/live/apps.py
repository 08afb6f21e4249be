"""Django's registration of this app."""

from django.apps import AppConfig


class LiveConfig(AppConfig):
    """The agents' link and the operators' stream."""

    name = "apps.live"
    label = "live"

    def ready(self) -> None:
        """Give the outbox its ways out."""
        from apps.live.handlers import register_all

        register_all()
