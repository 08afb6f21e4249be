"""Users come and go, nodes restart, models change: what the router keeps stays bounded and true."""

import pytest

from tests.agents.router.churn import BOUNDS, NODES, USERS_HELD, Day
from tests.agents.router.nodes import SECOND

CHECK_EVERY = 500  # requests
DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0  # with as many requests: every node comes and goes many times, most of the time some are away


def lived(seed: int, seconds: float, requests_per_second: float) -> Day:
    """So long a life, checked as it goes."""
    day = Day(seed, requests_per_second)
    memory_bytes = day.router.memory_bytes
    for number in day.requests(seconds):
        if number % CHECK_EVERY == 0:
            day.holds()
            assert day.router.memory_bytes == memory_bytes
    day.settle()
    return day


def test_ten_minutes_of_churn_leaves_bounded_and_true_knowledge_and_no_booking() -> None:
    day = lived(seed=1, seconds=600.0, requests_per_second=10.0)
    assert day.counts["requests"] > 5_000
    assert min(day.counts[what] for what in ("gaps", "restarts", "drains")) > 0
    assert day.counts["nobody"] == 0
    day.agrees()
    day.holds()
    assert day.router.totals()["reservations"] == 0


@pytest.mark.verify
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seconds", "requests_per_second"), [(DAY_SECONDS, 5.0), (HOUR_SECONDS, 120.0)], ids=["a-day", "a-busy-hour"])
def test_a_day_of_churn_leaves_bounded_and_true_knowledge_and_no_booking(seconds: float, requests_per_second: float) -> None:
    day = lived(2, seconds, requests_per_second)
    assert day.counts["users"] > 10 * BOUNDS.users_max
    assert min(day.counts[what] for what in ("gaps", "restarts", "drains", "flips")) > 3
    day.agrees()
    assert day.router.totals()["reservations"] == 0
    assert day.stale_ns_max < 60 * SECOND  # a lost change is noticed with the node's next one


def test_a_resident_user_takes_no_more_than_a_hundred_bytes_per_node_that_holds_it() -> None:
    state = Day(seed=1, requests_per_second=1.0).router.state
    held = NODES * USERS_HELD
    assert (state.users.nbytes + state.copies.nbytes) / BOUNDS.copies_max <= 100
    assert state.users.itemsize * 2 + state.copies.itemsize <= 100
    assert held < BOUNDS.copies_max
