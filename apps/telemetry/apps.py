"""Django's registration of this app."""

from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    """Where its rows live."""

    name = "apps.telemetry"
    label = "telemetry"
