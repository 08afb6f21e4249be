"""Django's registration of this app."""

from django.apps import AppConfig


class FleetConfig(AppConfig):
    """Where its rows live."""

    name = "apps.fleet"
    label = "fleet"
