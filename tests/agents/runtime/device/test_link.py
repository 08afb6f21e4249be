import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runtime.device.link import SLEEP_SECONDS_MIN, Link


class FakeTime:
    """A clock that moves only when somebody sleeps; every sleep ends `late`.

    `meanwhile` runs once inside the next sleep, as another thread would; a `frozen` clock stands
    still through sleeps, which leaves what was booked on the lane in the future.
    """

    def __init__(self, late: float = 0.0) -> None:
        self.now = 100.0
        self.late = late
        self.frozen = False
        self.sleeps: list[float] = []
        self.meanwhile: Callable[[], None] | None = None

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        if self.frozen:
            return
        self.sleeps.append(seconds)
        end = self.now + seconds + self.late
        other, self.meanwhile = self.meanwhile, None
        if other is not None:
            other()
        self.now = max(self.now, end)


def make_link(time: FakeTime, rate: float = 1e6, background: float = 1e5, chunk_bytes: int = 1000) -> Link:
    return Link(rate, background, chunk_bytes, clock=time.clock, sleep=time.sleep)


def test_a_transfer_waits_for_its_bytes() -> None:
    time = FakeTime()
    make_link(time).foreground(5000)
    assert time.now == pytest.approx(100.005)


def test_work_since_the_start_counts_towards_the_wait() -> None:
    time = FakeTime()
    link = make_link(time)
    started = time.now
    time.now += 0.002
    link.foreground(5000, started)
    assert time.now == pytest.approx(100.005)


def test_a_transfer_that_the_host_was_slower_for_does_not_wait_and_earns_nothing() -> None:
    time = FakeTime()
    link = make_link(time)
    started = time.now
    time.now += 0.050
    link.foreground(5000, started)
    assert time.sleeps == []
    link.foreground(5000)
    assert time.sleeps == [pytest.approx(0.005)]


def test_late_wake_ups_are_made_good_so_that_the_rate_is_right() -> None:
    time = FakeTime(late=70e-6)
    link = make_link(time)
    for _ in range(1000):
        link.foreground(500)
    assert time.now - 100.0 == pytest.approx(0.5, abs=1e-3)


def test_late_wake_ups_are_made_good_when_transfers_are_far_apart() -> None:
    time = FakeTime(late=70e-6)
    link = make_link(time)
    waited = 0.0
    for _ in range(1000):
        time.now += 0.010
        before = time.now
        link.foreground(500)
        waited += time.now - before
    assert waited == pytest.approx(0.5, abs=1e-3)


def test_a_stall_of_the_host_is_credited_only_in_part() -> None:
    time = FakeTime()
    link = make_link(time)
    time.late = 0.5
    link.foreground(5000)
    time.late = 0.0
    link.foreground(5000)
    assert time.sleeps == [pytest.approx(0.005), pytest.approx(0.004)]


def test_waits_too_short_to_sleep_add_up() -> None:
    time = FakeTime()
    link = make_link(time)
    for _ in range(100):
        link.foreground(10)  # 10 us each
        time.now += 1.0
    assert all(sleep > SLEEP_SECONDS_MIN for sleep in time.sleeps)
    assert sum(time.sleeps) == pytest.approx(100 * 10e-6, abs=SLEEP_SECONDS_MIN)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 0.02)), min_size=1, max_size=60), st.floats(0, 2e-4))
def test_the_total_wait_is_that_of_the_bytes_whatever_the_timer_does(transfers: list[tuple[int, float]], late: float) -> None:
    time = FakeTime(late)
    link = make_link(time)
    waited = 0.0
    for size_bytes, pause in transfers:
        time.now += pause
        before = time.now
        link.foreground(size_bytes)
        waited += time.now - before
    ideal = sum(size_bytes for size_bytes, _ in transfers) / 1e6
    assert ideal - SLEEP_SECONDS_MIN - 1e-9 <= waited <= ideal + late + 1e-9


def test_background_goes_at_its_own_rate_in_the_long_run() -> None:
    time = FakeTime()
    link = make_link(time)
    link.background(100_000)
    assert time.now - 100.0 == pytest.approx(1.0, abs=0.03)


def test_late_wake_ups_do_not_slow_background_down() -> None:
    time = FakeTime(late=1e-3)
    link = make_link(time)
    link.background(100_000)
    assert time.now - 100.0 == pytest.approx(1.0, abs=0.03)


def test_an_idle_bucket_saves_up_two_chunks_and_no_more() -> None:
    time = FakeTime()
    link = make_link(time)
    time.now += 1000.0
    begun = time.now
    link.background(3000)
    assert time.now - begun == pytest.approx(3e-3)  # two saved, one due at once, at the rate of the lane
    link.background(1000)
    assert time.now - begun == pytest.approx(0.010 + 1e-3)


def test_a_chunk_waits_until_the_foreground_is_through() -> None:
    time = FakeTime()
    link = make_link(time)
    time.frozen = True
    link.foreground(5000)
    time.frozen = False
    link.background(1000)
    assert time.sleeps == [pytest.approx(0.005), pytest.approx(0.001)]
    assert link.counters().throttled_seconds_total == pytest.approx(0.005)


def test_the_foreground_stands_behind_one_chunk_at_most_and_the_next_chunk_behind_the_foreground() -> None:
    time = FakeTime()
    link = make_link(time, background=1e6)  # the bucket never holds anything back
    foreground_seconds: list[float] = []

    def fetch() -> None:
        begun = time.now
        link.foreground(5000)
        foreground_seconds.append(time.now - begun)

    time.meanwhile = fetch
    link.background(10_000)
    assert foreground_seconds == [pytest.approx(0.001 + 0.005)]
    assert time.now - 100.0 == pytest.approx(0.010 + 0.005)


def test_time_held_back_by_the_bucket_is_counted_as_throttled() -> None:
    time = FakeTime()
    link = make_link(time)
    link.background(10_000)
    carried = 10_000 / 1e6
    assert link.counters().throttled_seconds_total == pytest.approx(time.now - 100.0 - carried)
    assert link.counters().throttled_seconds_total > 0.05


def test_transfers_of_two_threads_share_one_lane() -> None:
    time = FakeTime()
    link = make_link(time)
    time.meanwhile = lambda: link.foreground(3000)
    link.foreground(5000)
    assert time.now - 100.0 == pytest.approx(0.008)


def test_counters_add_up_by_direction() -> None:
    time = FakeTime()
    link = make_link(time)
    for size_bytes in itertools.repeat(700, 3):
        link.foreground(size_bytes)
    link.background(2500)
    counters = link.counters()
    assert (counters.foreground_bytes_total, counters.background_bytes_total) == (2100, 2500)
