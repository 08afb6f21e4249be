"""Is a node there? Decided at read time from the last frame's age, by our own clock (pure)."""

from datetime import datetime

from agents.wire.messages import Phase

# Frames come every second and are stored within one more; three and a half allow one to be lost without a false
# alarm, and leave a second and a half for the news to reach a console within five.
OFFLINE_AFTER_SECONDS = 3.5


def age_seconds(received_at: datetime | None, now: datetime) -> float | None:
    """How old the last frame is; `None` when there never was one."""
    return None if received_at is None else max(0.0, (now - received_at).total_seconds())


def phase_of(linked: bool, received_at: datetime | None, said: str | None, now: datetime) -> Phase:
    """What others may believe: the node's own word while it is fresh and its link stands, else offline."""
    age = age_seconds(received_at, now)
    if not linked or age is None or age > OFFLINE_AFTER_SECONDS:
        return Phase.OFFLINE
    return Phase(said) if said else Phase.READY
