"""Random lives of the pool and both caches: bookings, moves in any state, resizes, flips and failed allocations."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agents.caches import emb, exchange, kv
from agents.caches.policy import ADMISSIONS, cache_policy
from agents.node import booking
from agents.pool import migration
from agents.pool.ledger import Ledger
from agents.pool.state import Counter, allocate

PAGES = 14
ROWS_PER_PAGE = 4
BLOCK = 2
USES_MAX = 3 * (12 + 12)  # users x (history + candidates)
POLICIES = [cache_policy(name, ROWS_PER_PAGE) for name in ADMISSIONS]
USERS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=3, unique_by=lambda request: request[0])


class PoolLife(RuleBasedStateMachine):
    """What a node may do to its pool, in any order, with a target that changes half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.state = allocate(PAGES, ROWS_PER_PAGE, 6)
        self.ledger = Ledger(self.state, ROWS_PER_PAGE)
        self.scratch = booking.new_scratch(USES_MAX)
        self.now_ns = 0
        self.target_emb_pages = 6
        self.pool_pages = PAGES
        self.allowance = 2
        self.migrating: list[int] = []
        self.open: list[tuple[np.ndarray, ...]] = []

    @rule(users=USERS, first=st.integers(0, 60), count=st.integers(0, 12), version=st.integers(0, 1), policy=st.sampled_from(POLICIES))
    def book(self, users: list[tuple[int, int]], first: int, count: int, version: int, policy: tuple) -> None:
        if len(self.open) == 2:
            return
        keys = np.array([user for user, _ in users], np.uint64)
        tokens = np.array([count for _, count in users], np.int64)
        blocks = tokens // BLOCK
        hashes = np.concatenate([np.arange(1, n + 1) + 100 * user + 5000 * version for (user, _), n in zip(users, blocks, strict=True)])
        total, requests = int(blocks.sum()), len(users)
        cached, reasons, entries = np.empty(requests, np.int64), np.empty(requests, np.int8), np.empty(requests, np.int32)
        pages, offsets = np.empty((2, total), np.int32), np.empty((2, requests + 1), np.int64)
        booking.book_prefixes(
            self.state, policy, self.now_ns, BLOCK, 0.1, 0.0, keys, tokens, hashes.astype(np.uint64), starts(blocks),
            np.full(requests, -1), np.zeros(requests, np.bool_), cached, reasons, entries, pages[0], offsets[0], pages[1], offsets[1],
        )  # fmt: skip
        written = pages[1, : offsets[1, -1]]
        assert len(set(written.tolist())) == len(written)
        candidates = (first + np.arange(count)) % 61
        history = np.concatenate([np.arange(n) + user for (user, _), n in zip(users, tokens, strict=True)])
        rows, ids = np.empty((1, USES_MAX), np.int64), np.empty((4, USES_MAX), np.int32)
        unique, misses = booking.book_rows(
            self.state, policy, ROWS_PER_PAGE, history, starts(tokens), tokens, np.tile(candidates, requests),
            np.arange(requests + 1) * count, cached, self.scratch, rows[0], ids[0], ids[1], offsets[0], ids[2], ids[3],
        )  # fmt: skip
        assert len(np.unique(rows[0, :unique])) == unique
        kept = ids[3, :misses][ids[3, :misses] >= 0]
        assert len(np.unique(kept)) == len(kept)
        found = ids[0, :unique][ids[0, :unique] >= 0]
        assert not set(found.tolist()) & set(kept.tolist())  # no row of the batch gave way to another of it
        self.open.append((entries, cached, rows[0, :unique], ids[2, :misses], ids[3, :misses]))

    @precondition(lambda self: self.open)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        if fails:  # what was booked upon it fails too, newest first
            while self.open:
                entries, cached, rows, missing, inserted = self.open.pop()
                booking.undo_batch(self.state, BLOCK, ROWS_PER_PAGE, entries, cached, rows, missing, inserted)
        else:
            booking.unpin(self.state, self.open.pop(0)[0])

    @rule(emb_pages=st.integers(1, PAGES - 1))
    def retarget(self, emb_pages: int) -> None:
        self.target_emb_pages = min(emb_pages, self.pool_pages - 1)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.allowance = 0 if paused else 2

    @rule()
    def abort_move(self) -> None:
        self.target_emb_pages = min(max(1, int(self.state.counters[Counter.EMB_PAGES])), self.pool_pages - 1)

    @rule(pages=st.integers(2, PAGES))
    def resize(self, pages: int) -> None:
        self.pool_pages = pages
        self.target_emb_pages = min(self.target_emb_pages, pages - 1)

    @rule(allocated=st.integers(0, 3))
    def tick(self, allocated: int) -> None:
        """`allocated` bounds how many pages the device had memory for when the pool grows."""
        self.now_ns += 30_000_000_000
        growing = self.pool_pages > self.state.counters[Counter.POOL_PAGES]
        allowance = min(self.allowance, allocated) if growing else self.allowance
        changed = exchange.resize_pool(self.state, BLOCK, self.pool_pages, self.pool_pages - self.target_emb_pages, allowance)
        assert abs(changed) <= allowance
        step = migration.migration_step(int(self.state.counters[Counter.EMB_PAGES]), self.target_emb_pages, self.allowance)
        if not self.migrating:
            exchange.grow_emb(self.state, BLOCK, step.kv_to_emb)
        pages = np.empty(exchange.candidate_pages(step.emb_to_kv), np.int32)
        rows, (sources, targets) = np.empty(8, np.int64), np.empty((2, 8), np.int32)
        leaving, copied = exchange.shrink_emb(self.state, POLICIES[0], ROWS_PER_PAGE, step.emb_to_kv, pages, rows, sources, targets)
        assert len(set(targets[:copied].tolist())) == copied
        assert not set(sources[:copied].tolist()) & set(targets[:copied].tolist())
        self.migrating += pages[:leaving].tolist()

    @rule(count=st.integers(1, 4))
    def copies_done(self, count: int) -> None:
        for _ in range(min(count, len(self.migrating))):
            migration.grant_to_kv(self.state, self.migrating.pop(0))

    @rule()
    def refill(self) -> None:
        wanted, slots = np.empty(5, np.int64), np.empty(5, np.int32)
        found = emb.wanted_rows(self.state, wanted)
        emb.refill_rows(self.state, wanted[:found], ROWS_PER_PAGE, slots[:found])

    @rule(of_model=st.booleans())
    def flip(self, of_model: bool) -> None:
        kv.void_all(self.state, BLOCK, int(of_model), int(not of_model))

    @invariant()
    def books_balance(self) -> None:
        self.ledger.check()
        assert sum(self.ledger.shares()) == PAGES
        assert self.ledger.shares().migrating == len(self.migrating)
        assert self.state.counters[Counter.EMB_PAGES] >= 1
        pins = int(self.state.entries["pins"].sum())
        assert pins == sum(int((entries >= 0).sum()) for entries, *_ in self.open)


def starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


class LongPoolLife(PoolLife):
    """The same for longer."""


PoolLife.TestCase.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
LongPoolLife.TestCase.settings = settings(max_examples=200, stateful_step_count=100, deadline=None)  # 20,000 operations
TestPoolLife = PoolLife.TestCase
TestLongPoolLife = pytest.mark.verify(LongPoolLife.TestCase)
