import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.workloads.regimes import Keyframe, Schedule, Traffic


def ramp() -> Schedule:
    """Rate 1 at 0 s, 2 at 10 s, 2 at 20 s; hot share 0.1 to 0.3; one row of drift a second."""
    calm = Traffic(hot_request_ratio=0.1, hot_rows_drift_per_second=1.0)
    busy = Traffic(rate_factor=2.0, hot_request_ratio=0.3, hot_rows_drift_per_second=1.0)
    return Schedule([Keyframe(0.0, calm), Keyframe(10.0, busy), Keyframe(20.0, busy)])


def test_between_two_keyframes_every_parameter_moves_linearly() -> None:
    moment = ramp().at(5.0)
    assert moment.rate_factor == pytest.approx(1.5)


def test_the_integral_of_a_ramp_is_its_trapezoid() -> None:
    schedule = ramp()
    assert schedule.all.total(10.0) == pytest.approx(15.0)
    assert schedule.all.total(20.0) == pytest.approx(35.0)


def test_hot_cold_and_regular_intensities_add_up_to_the_rate() -> None:
    schedule = ramp()
    parts = (schedule.hot, schedule.cold, schedule.regular)
    assert sum(part.total(17.0) for part in parts) == pytest.approx(schedule.all.total(17.0))


def test_the_cycle_repeats_while_drift_goes_on() -> None:
    schedule = ramp()
    assert schedule.at(25.0).rate_factor == schedule.at(5.0).rate_factor
    assert schedule.at(25.0).row_offset - schedule.at(5.0).row_offset == 20
    assert schedule.all.total(40.0) == pytest.approx(70.0)


def test_before_the_beginning_the_first_value_holds() -> None:
    schedule = ramp()
    assert schedule.all.total(-3.0) == pytest.approx(-3.0)
    assert schedule.all.when(-3.0) == pytest.approx(-3.0)


@given(st.floats(min_value=-50.0, max_value=200.0))
def test_when_inverts_total(seconds: float) -> None:
    schedule = ramp()
    assert schedule.all.when(schedule.all.total(seconds)) == pytest.approx(seconds, abs=1e-6)


def test_an_intensity_that_is_always_zero_never_reaches_anything() -> None:
    silent = Traffic(rate_factor=0.0)
    schedule = Schedule([Keyframe(0.0, silent), Keyframe(10.0, silent)])
    assert math.isinf(schedule.all.when(0.1))


def test_nothing_becomes_due_inside_a_silence() -> None:
    loud, silent = Traffic(), Traffic(rate_factor=0.0)
    schedule = Schedule([Keyframe(0.0, loud), Keyframe(10.0, loud), Keyframe(10.05, silent), Keyframe(20.0, silent)])
    times = [schedule.all.when(total / 10.0) for total in range(1, 300)]
    assert all(at % 20.0 <= 10.06 for at in times)


@pytest.mark.parametrize("times", [[0.0], [1.0, 2.0], [0.0, 5.0, 5.0], [0.0, 5.0, 4.0]])
def test_keyframes_out_of_order_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="keyframes"):
        Schedule([Keyframe(at, Traffic()) for at in times])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate_factor", -1.0),
        ("rate_factor", math.nan),
        ("hot_request_ratio", 1.1),
        ("cold_request_ratio", math.inf),
        ("hot_row_ratio", 2.0),
        ("hot_users", 0.0),
        ("hot_rows", 0.0),
        ("history_tokens_low", 1.0),
        ("history_tokens_high", 10.0),
    ],
)
def test_impossible_traffic_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Traffic(**{field: value})


def test_hot_and_cold_shares_must_leave_no_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="together"):
        Traffic(hot_request_ratio=0.6, cold_request_ratio=0.6)
