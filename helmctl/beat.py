"""Beat's scheduler: the one whose schedule is rows that operators edit, which says that it lives."""

from typing import Any

from django_celery_beat.schedulers import DatabaseScheduler

from helmctl.alive import fall_silent, say_alive


class LivingScheduler(DatabaseScheduler):
    """Beat's scheduler, which says that it lives after each turn unless the last task could not be sent."""

    _sends = True

    def apply_async(self, *arguments: Any, **named: Any) -> Any:
        """Send a due task, remembering whether that worked."""
        self._sends = False
        result = super().apply_async(*arguments, **named)
        self._sends = True
        return result

    def tick(self, *arguments: Any, **named: Any) -> float:
        """One turn; the seconds until the next."""
        seconds: float = super().tick(*arguments, **named)
        if self._sends:
            say_alive("beat")
        return seconds

    def close(self) -> None:
        """Store when things ran last; the end."""
        super().close()
        fall_silent("beat")
