import numpy as np
import pytest

from agents.workloads.log_statistics import facts_of, fit_zipf_mandelbrot, matches, regime_of
from agents.workloads.trace import Log

DAY = 86_400


def log_of(users: list[int], items: list[int], seconds: list[int]) -> Log:
    times = np.array(seconds, np.int64) * 1_000_000_000
    return Log(np.array(users), np.array(items), times, max(users) + 1, np.arange(max(items) + 1), [], 0, [])


@pytest.mark.parametrize(("exponent", "shift"), [(0.88, 31.0), (1.1, 550.0), (0.8, 0.0)])
def test_the_skew_that_made_the_counts_is_found(exponent: float, shift: float) -> None:
    weights = (np.arange(1, 20_001) + shift) ** -exponent
    counts = np.random.default_rng(1).multinomial(5_000_000, weights / weights.sum())
    found, moved, error = fit_zipf_mandelbrot(np.sort(counts)[::-1])
    assert found == pytest.approx(exponent, abs=0.06)
    assert moved == pytest.approx(shift, rel=0.35, abs=1.0)
    assert error < 0.01


def test_visits_and_revisits_are_told_apart_by_half_an_hour() -> None:
    facts = facts_of(log_of([0, 0, 0, 1, 0], [0, 1, 2, 0, 1], [0, 60, 120, 200, 120 + 7200]))
    assert facts.in_visit_ratio == pytest.approx(2 / 3)
    assert facts.events_per_visit == pytest.approx(3.0)
    assert facts.revisit_hours_p50 == pytest.approx(2.0)


def test_a_clock_of_days_shows_neither_visits_nor_hours() -> None:
    facts = facts_of(log_of([0, 1, 0, 1], [0, 1, 1, 0], [0, DAY, 3 * DAY, 9 * DAY]))
    assert facts.clock_seconds == DAY
    assert np.isnan([facts.in_visit_ratio, facts.hour_peak_ratio, facts.burst_peak_ratio]).all()
    assert facts.revisit_ln_mu == pytest.approx((np.log(3 * DAY) + np.log(8 * DAY)) / 2)


def test_returning_next_day_is_counted_per_user_and_day() -> None:
    facts = facts_of(log_of([0, 1, 0, 2], [0, 0, 0, 0], [0, 10, DAY, 3 * DAY]))
    assert facts.returned_next_day_ratio == pytest.approx(1 / 3)  # user 0 on day 0; not user 1; not user 0 on day 1


def test_bursts_are_seen_in_windows_that_bring_enough_events() -> None:
    calm = list(range(0, 60_000, 2))
    stormy = sorted([*calm, *(30_000 + i // 10 for i in range(6_000))])
    for seconds, regime in ((calm, "steady"), (stormy, "burst")):
        count = len(seconds)
        facts = facts_of(log_of([i % 50 for i in range(count)], [i % 30 for i in range(count)], seconds))
        assert facts.window_seconds >= 60.0
        assert regime_of(facts) == regime


def test_the_nearest_generator_is_the_one_whose_figures_the_log_has() -> None:
    chance = np.random.default_rng(2)
    weights = (np.arange(1, 1001) + 31.0) ** -0.88
    events = 22_000
    users = chance.integers(0, 2_300, events).tolist()
    items = chance.choice(1000, events, p=weights / weights.sum()).tolist()
    days = np.sort(chance.integers(0, 900, events)) * DAY
    nearest = matches(facts_of(log_of(users, items, days.tolist())))
    assert nearest[0].generator == "amazon-video-games"
    assert nearest[0].distance < nearest[1].distance < nearest[2].distance


def test_a_log_of_one_event_has_facts_too() -> None:
    facts = facts_of(log_of([0], [0], [5]))
    assert (facts.users, facts.items, facts.events) == (1, 1, 1)
    assert np.isnan(facts.item_exponent)
