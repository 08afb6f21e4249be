"""Django's registration of the project itself."""

from django.apps import AppConfig


class HelmctlConfig(AppConfig):
    """Makes the Celery app the default one in every process that sets Django up, so that apps can send tasks."""

    name = "helmctl"

    def ready(self) -> None:
        """Load the Celery app."""
        import helmctl.celery  # noqa: F401
