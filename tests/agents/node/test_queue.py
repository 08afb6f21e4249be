"""The waiting room: order, bounds, one request per user, and when a batch is closed."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.node.queue import RequestQueue

NOBODY_BUSY: NDArray[np.uint64] = np.zeros(0, np.uint64)


def queue_of(*requests: tuple[int, int, int, int], capacity: int = 8) -> RequestQueue:
    """Requests as (id, user, deadline, work), arriving one nanosecond after another."""
    queue = RequestQueue(capacity)
    for arrival, (request_id, user, deadline, work) in enumerate(requests):
        assert queue.offer(request_id, user, arrival, deadline, work)
    return queue


def test_an_idle_device_takes_what_is_there() -> None:
    queue = queue_of((1, 10, 100, 1))
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [1]
    assert len(queue) == 0


def test_a_busy_device_waits_for_a_full_batch() -> None:
    queue = queue_of((1, 10, 100, 1), (2, 11, 100, 1))
    assert queue.close(0, 3, NOBODY_BUSY, device_idle=False) == []
    assert len(queue) == 2
    queue.offer(3, 12, 3, 100, 1)
    assert queue.close(0, 3, NOBODY_BUSY, device_idle=False) == [1, 2, 3]


def test_the_earliest_deadline_leaves_first_and_arrival_breaks_ties() -> None:
    queue = queue_of((1, 10, 300, 1), (2, 11, 100, 1), (3, 12, 100, 1), (4, 13, 200, 1))
    assert queue.close(0, 3, NOBODY_BUSY, device_idle=True) == [2, 3, 4]
    assert queue.close(0, 3, NOBODY_BUSY, device_idle=True) == [1]


def test_a_second_request_of_a_user_waits_for_the_next_batch() -> None:
    queue = queue_of((1, 10, 100, 1), (2, 10, 100, 1), (3, 11, 100, 1))
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [1, 3]
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [2]


def test_a_user_being_served_now_is_passed_over() -> None:
    queue = queue_of((1, 10, 100, 1), (2, 11, 100, 1))
    assert queue.close(0, 4, np.array([10], np.uint64), device_idle=True) == [2]
    assert queue.close(0, 4, np.array([10], np.uint64), device_idle=True) == []
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [1]


def test_requests_of_nobody_share_a_batch() -> None:
    queue = queue_of((1, 0, 100, 1), (2, 0, 100, 1))
    assert queue.close(0, 4, np.array([0], np.uint64), device_idle=True) == [1, 2]


def test_a_batch_stops_before_it_makes_its_most_urgent_request_late() -> None:
    queue = queue_of((1, 10, 100, 60), (2, 11, 500, 40), (3, 12, 500, 1))
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [1, 2]
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [3]


def test_a_request_that_is_late_anyway_does_not_hold_the_others_back() -> None:
    queue = queue_of((1, 10, 100, 200), (2, 11, 500, 40))
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [1, 2]


def test_a_batch_cut_short_by_a_deadline_counts_as_full_for_a_busy_device() -> None:
    queue = queue_of((1, 10, 100, 100), (2, 11, 500, 1))
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=False) == [1]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    queue = queue_of((1, 10, 100, 1), (2, 11, 100, 1), capacity=2)
    assert not queue.offer(3, 12, 2, 100, 1)
    assert len(queue) == 2
    assert queue.queued_ns == 2


def test_expired_requests_are_named_and_leave() -> None:
    queue = queue_of((1, 10, 100, 5), (2, 11, 50, 5), (3, 12, 60, 5))
    assert queue.expire(60) == [2, 3]
    assert queue.queued_ns == 5
    assert queue.expire(60) == []


def test_a_dropped_request_is_gone_and_a_second_drop_says_so() -> None:
    queue = queue_of((1, 10, 100, 1), (2, 11, 100, 1))
    assert queue.drop(1)
    assert not queue.drop(1)
    assert queue.close(0, 4, NOBODY_BUSY, device_idle=True) == [2]


def test_a_queue_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        RequestQueue(0)


class Waiting(NamedTuple):
    """One waiting request of the slow reference."""

    request_id: int
    user: int
    deadline: int
    work: int


def reference_batch(waiting: list[Waiting], now: int, batch_max: int, busy: set[int], idle: bool) -> list[int]:
    """The closing rule, written as plainly as it can be."""
    taken: list[Waiting] = []
    cut = False
    for request in sorted(waiting, key=lambda one: one.deadline):  # stable: arrival breaks ties
        if request.user and (request.user in busy or request.user in {other.user for other in taken}):
            continue
        if len(taken) == batch_max:
            break
        work = sum(other.work for other in taken)
        if taken and now + work <= taken[0].deadline < now + work + request.work:
            cut = True
            break
        taken.append(request)
    if not idle and len(taken) < batch_max and not cut:
        return []
    return [request.request_id for request in taken]


@settings(max_examples=200, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.integers(0, 30)), max_size=12),
    now=st.integers(0, 40),
    batch_max=st.integers(1, 5),
    busy=st.sets(st.integers(1, 4), max_size=2),
    idle=st.booleans(),
)
def test_batches_equal_the_slow_reference_until_the_queue_is_empty(
    requests: list[tuple[int, int, int]], now: int, batch_max: int, busy: set[int], idle: bool
) -> None:
    queue = RequestQueue(12)
    waiting = [Waiting(number, *request) for number, request in enumerate(requests)]
    for arrival, one in enumerate(waiting):
        assert queue.offer(one.request_id, one.user, arrival, one.deadline, one.work)
    busy_keys = np.array(sorted(busy), np.uint64)
    while True:
        expected = reference_batch(waiting, now, batch_max, busy, idle)
        assert queue.close(now, batch_max, busy_keys, idle) == expected
        waiting = [one for one in waiting if one.request_id not in expected]
        assert len(queue) == len(waiting)
        assert queue.queued_ns == sum(one.work for one in waiting)
        if not expected:
            break
