"""Breakers and the retry budget, told the time."""

import random

import pytest

from agents.runtime.router.guards import Breakers, Budget
from agents.runtime.router.limits import Limits

SECOND = 1_000_000_000
LIMITS = Limits(breaker_failures=3, breaker_open_seconds=1.0, breaker_open_seconds_max=4.0, retry_ratio=0.25, retry_burst=2.0)


class Middle(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def breakers() -> Breakers:
    return Breakers(2, LIMITS, Middle())


def opened_at(now_ns: int) -> Breakers:
    made = breakers()
    for _ in range(3):
        made.failed(0, now_ns)
    return made


def test_a_breaker_opens_at_the_third_failure_in_a_row() -> None:
    made = breakers()
    states = []
    for _ in range(3):
        made.failed(0, 0)
        states.append(bool(made.mask[0]))
    assert states == [False, False, True]
    assert not made.mask[1]


def test_a_good_answer_between_failures_starts_the_count_again() -> None:
    made = breakers()
    for _ in range(5):
        made.failed(0, 0)
        made.failed(0, 0)
        made.succeeded(0)
    assert not made.is_open(0)


def test_an_open_breaker_lets_one_trial_through_when_its_time_is_over() -> None:
    made = opened_at(0)
    made.sweep(SECOND - 1)
    assert made.mask[0]
    made.sweep(SECOND)
    assert not made.mask[0]
    made.picked(0)
    made.sweep(2 * SECOND)
    assert made.mask[0]
    made.succeeded(0)
    assert not made.mask[0]
    assert not made.is_open(0)


def test_failed_trials_double_the_wait_up_to_the_bound() -> None:
    made = opened_at(0)
    now, waits = 0, []
    for _ in range(4):
        start = now
        while made.mask[0]:
            now += SECOND // 2
            made.sweep(now)
        waits.append((now - start) / SECOND)
        made.failed(0, now, made.picked(0))
    assert waits == [1.0, 2.0, 4.0, 4.0]


def test_late_failures_of_requests_from_before_do_not_lengthen_the_wait() -> None:
    made = opened_at(0)
    for _ in range(10):
        made.failed(0, SECOND // 2)
    made.sweep(SECOND)
    assert not made.mask[0]


def test_a_trial_without_a_verdict_lets_another_try() -> None:
    made = opened_at(0)
    made.sweep(SECOND)
    made.released(0, made.picked(0))
    made.sweep(SECOND)
    assert not made.mask[0]
    assert made.is_open(0)


def test_a_request_from_before_does_not_end_the_trial() -> None:
    made = breakers()
    before = made.picked(0)
    for _ in range(3):
        made.failed(0, 0)
    made.sweep(SECOND)
    trial = made.picked(0)
    made.released(0, before)
    made.failed(0, SECOND, before)
    made.sweep(SECOND)
    assert made.mask[0]  # the trial is still under way
    made.released(0, trial)
    made.sweep(SECOND)
    assert not made.mask[0]  # and nobody lengthened the wait


def test_the_trial_of_an_earlier_opening_does_not_end_the_trial_of_a_later_one() -> None:
    made = opened_at(0)
    made.sweep(SECOND)
    earlier = made.picked(0)
    made.succeeded(0)
    for _ in range(3):
        made.failed(0, SECOND)
    made.sweep(2 * SECOND)
    later = made.picked(0)
    made.failed(0, 2 * SECOND, earlier)
    made.sweep(2 * SECOND)
    assert made.mask[0]
    made.failed(0, 2 * SECOND, later)
    made.sweep(3 * SECOND)
    assert made.mask[0]  # twice as long as before


def test_a_second_request_to_an_open_breaker_is_no_trial() -> None:
    made = opened_at(0)
    made.sweep(SECOND)
    trial, blind = made.picked(0), made.picked(0)
    made.released(0, blind)
    made.sweep(SECOND)
    assert made.mask[0]
    made.released(0, trial)
    made.sweep(SECOND)
    assert not made.mask[0]


def test_waits_are_jittered_so_that_routers_do_not_try_together() -> None:
    free_at = set()
    for seed in range(8):
        made = Breakers(1, LIMITS, random.Random(seed))
        for _ in range(3):
            made.failed(0, 0)
        free_at.add(next(ms for ms in range(700, 1_300) if not made.sweep(ms * 1_000_000) and not made.mask[0]))
    assert len(free_at) > 4
    assert min(free_at) >= 800
    assert max(free_at) <= 1_201


def test_the_budget_is_a_burst_and_then_a_share_of_requests() -> None:
    budget = Budget(LIMITS.retry_ratio, LIMITS.retry_burst)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    taken = 0
    for _ in range(100):
        budget.request()
        taken += budget.take()
    assert taken == pytest.approx(25, abs=1)


def test_a_quiet_hour_does_not_save_up_more_than_the_burst() -> None:
    budget = Budget(LIMITS.retry_ratio, LIMITS.retry_burst)
    for _ in range(10_000):
        budget.request()
    assert [budget.take() for _ in range(3)] == [True, True, False]
