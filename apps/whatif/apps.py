"""Django's registration of this app."""

from django.apps import AppConfig


class WhatifConfig(AppConfig):
    """Scenarios, runs and their results."""

    name = "apps.whatif"
    label = "whatif"

    def ready(self) -> None:
        """Give the outbox its way to the workers."""
        from apps.jobs.queueing import sender
        from apps.outbox.dispatch import register
        from apps.whatif.actions import TOPIC_JOB
        from apps.whatif.pieces import TOPIC_PIECE

        register(TOPIC_JOB, sender("whatif.run"))
        register(TOPIC_PIECE, sender("whatif.piece"))
