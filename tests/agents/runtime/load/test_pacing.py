import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.load.pacing import PaceControl, PaceInputs, PaceLimits, StreamClock

CALM = PaceInputs(cpu_ratio=0.3, latency_ms_p99=40.0, refused=0, lag_ms=1.0)
LIMITS = PaceLimits(pace_min=0.5, pace_max=1.0, latency_ms_max=120.0)


def control(pace: float = 0.8, adaptive: bool = True) -> PaceControl:
    return PaceControl(pace, LIMITS, adaptive)


def test_with_room_the_pace_climbs_by_two_percent_a_second_up_to_its_ceiling() -> None:
    pace = control()
    assert pace.step(CALM) == pytest.approx(0.816)
    assert pace.step(CALM) == pytest.approx(0.832)
    for _ in range(20):
        pace.step(CALM)
    assert pace.pace == 1.0
    assert pace.reason == "ceiling"


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (CALM._replace(cpu_ratio=0.95), "host cpu"),
        (CALM._replace(latency_ms_p99=121.0), "latency"),
        (CALM._replace(refused=1), "refused by the fleet"),
        (CALM._replace(lag_ms=300.0), "generator late"),
    ],
)
def test_each_sign_of_overload_slows_the_stream_at_once_and_is_named(inputs: PaceInputs, reason: str) -> None:
    pace = control()
    assert pace.step(inputs) == pytest.approx(0.8 * 0.85)
    assert pace.reason == reason


def test_one_overload_is_not_punished_twice() -> None:
    pace = control()
    slow = CALM._replace(latency_ms_p99=500.0)
    paces = [pace.step(slow) for _ in range(4)]
    assert paces[0] == paces[1] == paces[2] == pytest.approx(0.68)
    assert paces[3] == pytest.approx(0.68 * 0.85)


def test_the_pace_never_falls_below_its_floor() -> None:
    pace = control()
    for _ in range(50):
        pace.step(CALM._replace(cpu_ratio=1.0))
    assert pace.pace == 0.5


def test_a_fleet_that_refuses_is_asked_for_less_than_the_floor_and_the_pace_comes_back() -> None:
    pace = control()
    for _ in range(80):
        pace.step(CALM._replace(refused=5))
    assert pace.pace == LIMITS.pace_refused_min
    assert pace.step(CALM._replace(cpu_ratio=1.0)) == LIMITS.pace_refused_min  # another overload does not lift it to the floor
    for _ in range(80):
        pace.step(CALM)
    assert pace.pace == 1.0


def test_one_second_of_a_busy_cpu_among_calm_ones_is_forgiven() -> None:
    pace = control()
    for _ in range(5):
        pace.step(CALM)
    before = pace.pace
    assert pace.step(CALM._replace(cpu_ratio=0.95)) >= before


def test_near_the_cpu_target_the_pace_neither_climbs_nor_falls() -> None:
    pace = control()
    assert {pace.step(CALM._replace(cpu_ratio=0.68)) for _ in range(10)} == {0.8}


def test_what_was_not_measured_slows_nothing() -> None:
    pace = control()
    assert pace.step(PaceInputs(math.nan, math.nan, 0, 0.0)) > 0.8


def test_a_fixed_pace_stays_whatever_happens() -> None:
    pace = control(adaptive=False)
    assert pace.step(PaceInputs(1.0, 9_999.0, 50, 9_999.0)) == 0.8
    assert pace.reason == "fixed"


def test_the_stream_runs_at_its_pace() -> None:
    clock = StreamClock(1_000, pace=2.0)
    assert clock.due_ns(0) == 1_000
    assert clock.due_ns(600) == 1_300


def test_a_new_pace_counts_from_now() -> None:
    clock = StreamClock(0, pace=1.0)
    clock.set_pace(100, 0.5)
    assert clock.due_ns(100) == 100
    assert clock.due_ns(150) == 200


def test_a_forgiven_delay_moves_everything_after_it() -> None:
    clock = StreamClock(0, pace=1.0)
    clock.forgive(40)
    assert clock.due_ns(10) == 50


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0.1, 10.0)), max_size=20))
def test_changes_of_pace_never_reorder_requests(changes: list[tuple[int, float]]) -> None:
    clock, now = StreamClock(0, pace=1.0), 0
    for step, pace in changes:
        now += step
        clock.set_pace(now, pace)
        due = [clock.due_ns(stream) for stream in (0, 10**8, 10**9, 10**10)]
        assert due == sorted(due)
