"""Rows of a batch: each looked up once, counted by table, and histories that list only a sample of theirs."""

import numpy as np
import pytest

from agents.caches.policy import cache_policy
from agents.node import booking
from agents.pool.ledger import Ledger
from agents.pool.state import TABLE_SHIFT, Counter, PoolState, allocate, lay_out_tables

ROWS_PER_PAGE = 4
POLICY = cache_policy("none", ROWS_PER_PAGE)


def book(state: PoolState, rows: list[int], room: int = 64) -> tuple[list[int], list[int], list[int]]:
    """One request with these candidates; (distinct rows, their slots, slots that keep the missing)."""
    none, zero, start = np.empty(0, np.int64), np.zeros(1, np.int64), np.zeros(2, np.int64)
    distinct, offsets = np.empty(room, np.int64), np.empty(2, np.int64)
    slots, index, missing, kept = np.empty((4, room), np.int32)
    unique, misses = booking.book_rows(
        state, POLICY, ROWS_PER_PAGE, none, start, zero, np.array(rows, np.int64), np.array([0, len(rows)]), zero,
        booking.new_scratch(room), distinct, slots, index, offsets, missing, kept,
    )  # fmt: skip
    assert distinct[index[: len(rows)]].tolist() == rows
    assert (slots[missing[:misses]] == -1).all()
    return distinct[:unique].tolist(), slots[:unique].tolist(), kept[:misses].tolist()


def test_a_row_named_twice_is_looked_up_once_whether_it_is_there_or_not() -> None:
    state = allocate(4, ROWS_PER_PAGE, 2)
    distinct, slots, kept = book(state, [7, 8, 7, 7, 8])
    assert (distinct, slots, len(kept)) == ([7, 8], [-1, -1], 2)
    distinct, slots, kept = book(state, [8, 7, 9, 8, 9])
    assert (sorted(distinct), len(kept)) == ([7, 8, 9], 1)
    assert state.counters[[Counter.EMB_LOOKUPS, Counter.EMB_HITS, Counter.EMB_INSERTS]].tolist() == [5, 2, 3]
    Ledger(state, ROWS_PER_PAGE).check()


def test_a_batch_bigger_than_the_cache_keeps_what_fits_and_never_evicts_its_own() -> None:
    state = allocate(3, ROWS_PER_PAGE, 1)
    book(state, [50, 51])
    distinct, slots, kept = book(state, [50, 1, 2, 3, 4, 5, 6])
    assert slots[distinct.index(50)] >= 0
    assert sorted(slot >= 0 for slot in kept) == [False] * 3 + [True] * 3
    assert sorted(state.slots["row"][:4].tolist()) == [1, 2, 3, 50]
    Ledger(state, ROWS_PER_PAGE).check()


def test_look_ups_are_counted_by_embedding_table() -> None:
    state = allocate(4, ROWS_PER_PAGE, 2)
    book(state, [1, 2, (3 << TABLE_SHIFT) + 1])
    book(state, [1, (3 << TABLE_SHIFT) + 1, (3 << TABLE_SHIFT) + 2])
    assert state.tables["lookups"].nonzero()[0].tolist() == [0, 3]
    assert [state.tables[name][[0, 3]].tolist() for name in ("lookups", "hits")] == [[3, 3], [1, 1]]


def test_tables_begin_where_they_are_said_to_and_counting_begins_anew() -> None:
    state = allocate(4, ROWS_PER_PAGE, 2)
    book(state, [1, 7])
    lay_out_tables(state, (0, 5, 8))
    book(state, [4, 5, 7, 8, 1])
    assert state.tables["lookups"].tolist() == [2, 2, 1] + [0] * 13
    assert state.tables["hits"].tolist() == [1, 1, 0] + [0] * 13


def test_more_tables_than_places_share_the_last_place() -> None:
    state = allocate(4, ROWS_PER_PAGE, 2)
    lay_out_tables(state, range(0, 200, 10))
    book(state, [0, 9, 10, 159, 160, 195])
    assert state.tables["lookups"].tolist() == [2, 1] + [0] * 13 + [3]


@pytest.mark.parametrize(
    ("listed", "tokens", "cached", "first"),
    [(10, 10, 0, 0), (10, 10, 7, 7), (3, 10, 0, 0), (3, 10, 5, 2), (3, 10, 9, 3), (0, 10, 5, 0), (0, 0, 0, 0)],
)
def test_a_sampled_history_is_new_from_its_share_beyond_the_prefix(listed: int, tokens: int, cached: int, first: int) -> None:
    assert booking.first_new_row(100, 100 + listed, tokens, cached) == 100 + first


def test_thousands_of_random_batches_leave_index_and_slots_in_agreement() -> None:
    state = allocate(12, ROWS_PER_PAGE, 10)
    chance = np.random.default_rng(4)
    for _ in range(400):
        book(state, (chance.zipf(1.2, 30) % 90).tolist())
    Ledger(state, ROWS_PER_PAGE).check()
    assert state.counters[Counter.EMB_EVICTED_PRESSURE] > 1_000
