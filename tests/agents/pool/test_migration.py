"""Pages change hands one owner at a time, and the books balance after every step."""

import numpy as np
import pytest

from agents.pool import migration
from agents.pool.ledger import Ledger, LedgerError
from agents.pool.state import Counter, Owner, PoolState, allocate

ROWS_PER_PAGE = 4


def test_a_new_pool_is_split_as_asked_and_balances() -> None:
    state = allocate(pages=11, rows_per_page=ROWS_PER_PAGE, emb_pages=4)
    ledger = Ledger(state, ROWS_PER_PAGE)
    assert ledger.shares() == (4, 7, 0, 0)
    assert ledger.emb_ratio == 4 / 11
    ledger.check()


@pytest.mark.parametrize("emb_pages", [0, 11, 12, -1])
def test_a_split_that_starves_a_cache_is_refused(emb_pages: int) -> None:
    with pytest.raises(ValueError, match="emb_pages"):
        allocate(pages=11, rows_per_page=ROWS_PER_PAGE, emb_pages=emb_pages)


@pytest.mark.parametrize(
    ("granted", "target", "allowance", "emb_to_kv", "kv_to_emb"),
    [(5, 5, 9, 0, 0), (5, 8, 9, 0, 3), (5, 8, 2, 0, 2), (8, 5, 9, 3, 0), (8, 5, 1, 1, 0), (8, 5, 0, 0, 0), (8, 5, -3, 0, 0)],
)
def test_a_step_heads_for_the_target_within_its_allowance(
    granted: int, target: int, allowance: int, emb_to_kv: int, kv_to_emb: int
) -> None:
    assert migration.migration_step(granted, target, allowance) == (emb_to_kv, kv_to_emb)


def test_a_plan_is_the_ordered_steps_to_the_target() -> None:
    assert migration.plan(5, 5, 1) == []
    assert migration.plan(5, 10, 2) == [(0, 2), (0, 2), (0, 1)]
    assert migration.plan(5, 3, 9) == [(2, 0)]
    with pytest.raises(ValueError, match="allowance_pages"):
        migration.plan(5, 3, 0)


def test_a_smaller_pool_gives_up_unused_pages_and_a_bigger_one_has_them_again() -> None:
    state = allocate(pages=6, rows_per_page=ROWS_PER_PAGE, emb_pages=4)
    ledger = Ledger(state, ROWS_PER_PAGE)
    assert [migration.withdraw_page(state) for _ in range(3)] == [4, 5, -1]
    assert (ledger.shares(), ledger.emb_ratio) == ((4, 0, 0, 2), 1.0)
    ledger.check()
    assert [migration.add_page(state) for _ in range(3)] == [5, 4, -1]
    assert (ledger.shares(), ledger.emb_ratio) == ((4, 2, 0, 0), 4 / 6)
    ledger.check()


def test_a_page_that_leaves_emb_belongs_to_nobody_until_its_copy_is_done() -> None:
    state = allocate(pages=6, rows_per_page=ROWS_PER_PAGE, emb_pages=3)
    ledger = Ledger(state, ROWS_PER_PAGE)
    migration.release_emb_page(state, 1)
    assert state.pages["owner"][1] == Owner.MIGRATING
    assert ledger.shares() == (2, 3, 1, 0)
    ledger.check()
    migration.grant_to_kv(state, 1)
    assert ledger.shares() == (2, 4, 0, 0)
    assert state.counters[Counter.KV_FREE_HEAD] == 1
    ledger.check()


def test_emb_grows_by_unused_kv_pages_only() -> None:
    state = allocate(pages=5, rows_per_page=ROWS_PER_PAGE, emb_pages=3)
    assert [migration.grant_to_emb(state) for _ in range(3)] == [3, 4, -1]
    assert Ledger(state, ROWS_PER_PAGE).shares() == (5, 0, 0, 0)
    Ledger(state, ROWS_PER_PAGE).check()


def _corrupt_owner(state: PoolState) -> None:
    state.pages["owner"][0] = Owner.KV


def _corrupt_list(state: PoolState) -> None:
    state.lists["emb_page"][1] = state.lists["emb_page"][0]


def _corrupt_row(state: PoolState) -> None:
    state.slots["row"][0] = 7


def _corrupt_free_list(state: PoolState) -> None:
    state.next_pages[int(state.counters[Counter.KV_FREE_HEAD])] = -1


@pytest.mark.parametrize("corrupt", [_corrupt_owner, _corrupt_list, _corrupt_row, _corrupt_free_list])
def test_the_ledger_notices_corruption(corrupt) -> None:  # noqa: ANN001
    state = allocate(pages=6, rows_per_page=ROWS_PER_PAGE, emb_pages=3)
    corrupt(state)
    with pytest.raises(LedgerError):
        Ledger(state, ROWS_PER_PAGE).check()


def test_random_moves_conserve_every_page() -> None:
    state = allocate(pages=32, rows_per_page=ROWS_PER_PAGE, emb_pages=16)
    ledger = Ledger(state, ROWS_PER_PAGE)
    rng = np.random.default_rng(5)
    migrating: list[int] = []
    for _ in range(500):
        choice = rng.integers(3)
        if choice == 0 and state.counters[Counter.EMB_PAGES] > 1:
            page = int(state.lists["emb_page"][rng.integers(state.counters[Counter.EMB_PAGES])])
            migration.release_emb_page(state, page)
            migrating.append(page)
        elif choice == 1 and migrating:
            migration.grant_to_kv(state, migrating.pop(int(rng.integers(len(migrating)))))
        else:
            migration.grant_to_emb(state)
        ledger.check()
        assert sum(ledger.shares()) == 32
