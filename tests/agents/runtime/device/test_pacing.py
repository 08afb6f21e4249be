import pytest

from agents.runtime.device.pacing import BUCKET_CHUNKS, YIELD_SECONDS_MAX, SharedLink, TokenBucket


class FakeTime:
    """Time that passes only in sleeps; `arrival` is when the foreground copy in flight arrives."""

    def __init__(self) -> None:
        self.now = 100.0
        self.arrival = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def arrived(self) -> bool:
        return self.now >= self.arrival


def shared(time: FakeTime, background_bytes_per_second: float = 1e5) -> SharedLink:
    return SharedLink(background_bytes_per_second, 1000, lambda: time.now, time.sleep)


def test_a_bucket_saves_up_two_chunks_and_then_keeps_to_its_rate() -> None:
    bucket = TokenBucket(1e5, 1000)
    waits = [bucket.take(1000, 50.0) for _ in range(5)]
    assert [max(0.0, wait) for wait in waits] == pytest.approx([0.0, 0.0, 0.0, 0.01, 0.02])
    assert BUCKET_CHUNKS == 2


def test_background_chunks_are_paced_and_counted() -> None:
    time = FakeTime()
    link = shared(time)
    for _ in range(13):
        link.background(1000)
    assert time.now - 100.0 == pytest.approx(0.1)
    counters = link.counters()
    assert counters.background_bytes_total == 13_000
    assert counters.throttled_seconds_total == pytest.approx(0.1)


def test_a_chunk_starts_only_when_the_foreground_copy_has_arrived() -> None:
    time = FakeTime()
    link = shared(time, 1e9)
    time.arrival = time.now + 0.05
    with link.foreground(5000) as copies:
        copies.append(time.arrived)
    link.background(1000)
    assert time.now == pytest.approx(100.05, abs=2e-4)
    assert link.counters().foreground_bytes_total == 5000


def test_a_chunk_does_not_start_while_rows_are_looked_up_but_not_for_ever() -> None:
    time = FakeTime()
    link = shared(time, 1e9)
    with link.foreground(5000):
        link.background(1000)
    assert time.now == pytest.approx(100.0 + YIELD_SECONDS_MAX, abs=2e-4)


def test_a_look_up_that_fails_leaves_the_link_free() -> None:
    time = FakeTime()
    link = shared(time, 1e9)
    with pytest.raises(IndexError), link.foreground(5000):
        raise IndexError
    link.background(1000)
    assert time.now == 100.0
