"""Queue ahead, reservations, learning."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router.router import Router
from tests.agents.router.nodes import MS, SECOND, load, router


def ahead(fleet: Router, now_ns: int, index: int = 0) -> float:
    return fleet.node_view(index, now_ns).queued_ms


def test_a_pick_adds_its_service_to_the_queue_and_its_end_takes_it_off() -> None:
    one = router(1)
    first = one.pick(0, 1, 256, 10)
    second = one.pick(0, 2, 256, 10)
    assert second.predicted_ms == pytest.approx(first.service_ms + second.service_ms)
    assert ahead(one, 0) == pytest.approx(first.service_ms + second.service_ms)
    one.completed(MS, first.reservation, None)
    assert ahead(one, MS) == pytest.approx(second.service_ms)


def test_a_report_contains_what_was_picked_before_it() -> None:
    one = router(1)
    choice = one.pick(0, 1, 256, 10)
    one.node_load(0, MS, load(queued_ms=40.0))
    assert ahead(one, MS) == 40.0
    one.completed(MS, choice.reservation, None)
    assert ahead(one, MS) == pytest.approx(40.0 - choice.service_ms)


def test_a_queue_drains_while_nobody_reports() -> None:
    one = router(1)
    one.node_load(0, 0, load(queued_ms=40.0))
    assert [ahead(one, t * MS) for t in (0, 15, 40, 100)] == [40.0, 25.0, 0.0, 0.0]


def test_ending_is_idempotent_and_frees_nobody_elses_booking() -> None:
    one = router(1, reservations_max=2)
    first = one.pick(0, 1, 256, 10)
    assert one.completed(0, first.reservation, None)
    assert not one.completed(0, first.reservation, None)
    second = one.pick(0, 2, 256, 10)
    assert not one.completed(0, first.reservation, None)
    assert one.totals()["reservations"] == 1
    assert one.completed(0, second.reservation, None)
    for handle in (-1, 10**12, second.reservation):
        assert not one.completed(0, handle, None)


def test_a_full_reservation_table_still_picks_and_counts() -> None:
    one = router(1, reservations_max=2)
    handles = [one.pick(0, key, 256, 10).reservation for key in (1, 2, 3)]
    assert handles[2] == -1
    assert one.totals()["without_reservation"] == 1
    assert one.node_view(0, 0).in_flight == 2


def test_lost_reservations_are_reaped_after_their_ttl_only() -> None:
    one = router(1, reservation_ttl_ns=10 * SECOND)
    one.pick(0, 1, 256, 10)
    kept = one.pick(5 * SECOND, 2, 256, 10)
    assert one.reap(10 * SECOND) == 0
    assert one.reap(12 * SECOND) == 1
    assert one.totals()["reservations_expired"] == 1
    assert one.node_view(0, 0).in_flight == 1
    assert one.completed(12 * SECOND, kept.reservation, None)
    assert one.node_view(0, 0).reserved_ms == 0.0


def test_a_gone_nodes_reservations_end_with_their_requests() -> None:
    two = router(2)
    choice = two.pick(0, 1, 256, 10)
    two.node_gone(choice.node_index)
    assert two.totals()["reservations"] == 1
    two.completed(0, choice.reservation, None, failed=True)
    view = two.node_view(choice.node_index, 0)
    assert (view.in_flight, view.failures_total, view.reserved_ms) == (0, 1, 0.0)


def test_slow_answers_raise_the_prediction_towards_what_is_observed() -> None:
    one = router(1, learning_rate=0.1)
    for i in range(200):
        one.node_load(0, i * MS, load())
        choice = one.pick(i * MS, 0, 256, 10)
        one.completed(i * MS, choice.reservation, 25.0)
    assert choice.predicted_ms == pytest.approx(25.0, rel=0.01)


def test_the_correction_is_bounded_and_moves_slowly() -> None:
    one = router(1)
    choice = one.pick(0, 0, 256, 10)
    one.completed(0, choice.reservation, 1e9)
    assert one.node_view(0, 0).correction == pytest.approx(math.exp(0.02 * math.log(4.0)))
    for _ in range(2_000):
        one.completed(0, one.pick(0, 0, 256, 10).reservation, 1e9)
    assert one.node_view(0, 0).correction == pytest.approx(4.0)


@pytest.mark.parametrize("latency", [None, math.nan, math.inf, -1.0])
def test_what_is_no_latency_teaches_nothing(latency: float | None) -> None:
    one = router(1)
    one.completed(0, one.pick(0, 0, 256, 10).reservation, latency)
    assert one.node_view(0, 0).correction == 1.0


def test_a_tiny_request_is_not_predicted_below_the_fastest_answer_seen() -> None:
    one = router(1, learning_rate=0.0)
    for i in range(16):
        one.node_load(0, i * SECOND, load())
        choice = one.pick(i * SECOND, 0, 256, 100)
        assert choice.predicted_ms == choice.service_ms > 5.0
        one.completed(i * SECOND, choice.reservation, 6.0 + i)
    one.node_load(0, 16 * SECOND, load())
    assert one.pick(16 * SECOND, 0, 0, 0).service_ms == pytest.approx(6.0, rel=0.02)


def test_one_slow_start_is_no_floor_and_neither_is_an_answer_that_waited() -> None:
    one = router(1, learning_rate=0.0)
    for i in range(40):
        one.node_load(0, i * SECOND, load(queued_ms=30.0))
        one.completed(i * SECOND, one.pick(i * SECOND, 0, 256, 100).reservation, 36.0)
    one.node_load(0, 40 * SECOND, load())
    choice = one.pick(40 * SECOND, 0, 0, 0)
    assert choice.service_ms == 2.0
    one.completed(40 * SECOND, choice.reservation, 5_000.0)
    assert one.pick(41 * SECOND, 0, 0, 0).service_ms == 2.0


def test_failures_teach_nothing_about_latency() -> None:
    one = router(1)
    one.completed(0, one.pick(0, 0, 256, 10).reservation, 500.0, failed=True)
    assert one.node_view(0, 0).correction == 1.0


def test_an_avoided_node_is_forgiven() -> None:
    one = router(1)
    for _ in range(500):
        one.completed(0, one.pick(0, 0, 256, 10).reservation, 1e9)
    for i in range(300):
        one.node_load(0, i, load())
    assert one.node_view(0, 0).correction < 1.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=60))
def test_counts_match_a_plain_list_of_what_is_open(steps: list[tuple[int, int]]) -> None:
    two = router(2, reservations_max=8, reservation_ttl_ns=5)
    reference: dict[int, tuple[int, float]] = {}
    for now, (verb, which) in enumerate(steps):
        if verb == 0:
            choice = two.pick(now, which, 64 * which, 10)
            if choice.reservation >= 0:
                reference[choice.reservation] = (choice.node_index, choice.service_ms)
        elif verb == 1 and reference:
            handle = sorted(reference)[which % len(reference)]
            assert two.completed(now, handle, None)
            del reference[handle]
        elif verb == 2:
            two.node_load(which % 2, now, load(queued_ms=float(which)))
        elif verb == 3:
            before = len(reference)
            reference = {h: r for h, r in reference.items() if two.state.reservations[h & 0xFFFFF]["at_ns"] >= now - 5}
            assert two.reap(now) == before - len(reference)
        assert two.totals()["reservations"] == len(reference)
        for node in range(2):
            mine = [service for index, service in reference.values() if index == node]
            view = two.node_view(node, now)
            assert view.in_flight == len(mine)
            assert view.reserved_ms == pytest.approx(sum(mine), abs=1e-6)
