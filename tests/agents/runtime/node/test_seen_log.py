"""Whom a node served, told once to each reader."""

from agents.runtime.seen_log import SeenLog
from agents.wire.messages import UsersSeen

MS = 1_000_000


def test_a_reader_is_told_of_each_user_once_with_its_latest_age() -> None:
    log = SeenLog()
    log.add([7, 0, 8, 7], 10 * MS)
    number, told = log.since(0, 30 * MS)
    assert told == UsersSeen(user_keys=[7, 8], ages_ms=[20, 20])
    assert log.since(number, 40 * MS) == (number, None)
    log.add([8], 50 * MS)
    assert log.since(number, 50 * MS) == (number + 1, UsersSeen(user_keys=[8], ages_ms=[0]))


def test_a_reader_that_is_too_slow_misses_the_oldest() -> None:
    log = SeenLog(kept=3)
    log.add([1, 2, 3, 4, 5], 0)
    number, told = log.since(0, 0)
    assert told is not None
    assert (number, told.user_keys) == (5, [3, 4, 5])
