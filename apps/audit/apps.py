"""Django's registration of this app."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Where its rows live."""

    name = "apps.audit"
    label = "audit"
