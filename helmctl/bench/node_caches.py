"""Bench of the pool and the caches: look-ups, pages moved, memory of the books, what cost-aware eviction saves.

The kernels are the product's, called as a node calls them. Rows are drawn from a Zipf-Mandelbrot law (exponent 1,
shift 100) over a catalogue of which the cache holds enough for about one look-up in ten to miss; every missing row
is admitted and evicts another. Times are processor time of the measuring thread, so that neighbours on a shared
machine count less; a look-up is one id asked for, also where a batch asks for it twice, as the dictionary
beside it counts.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.caches import emb, exchange
from agents.caches.policy import CachePolicy, cache_policy
from agents.node import booking
from agents.numerics.jit import kernel
from agents.pool.migration import grant_to_kv, release_emb_page
from agents.pool.state import Counter, PoolState, allocate
from agents.profiles import load_profile
from helmctl.bench.report import Result, Say, ratio_of, result_of

LAW_SHIFT = 100
BATCH_REQUESTS = 8
SMALL_ROWS, SMALL_CATALOGUE, SMALL_BATCH_ROWS = 200_192, 340_000, 8_192
BIG_ROWS, BIG_CATALOGUE, BIG_BATCH_ROWS = 20_000_768, 34_000_000, 65_536
SMALL_ROWS_PER_PAGE, BIG_ROWS_PER_PAGE = 256, 4_096
MOVED_RATIO = 0.04
KV_USERS = 600  # of whom a fifth fits
KV_REQUESTS = 20_000


def measure(runs: int, say: Say) -> Sequence[Result]:
    """Look-ups per second, milliseconds to plan a move, bytes per row, milliseconds saved."""
    return [*_small(runs, say), *_big(runs, say), *_plan(runs, say), *_eviction(runs, say)]


def law(chance: np.random.Generator, count: int, catalogue: int) -> NDArray[np.int64]:
    """Ids by Zipf-Mandelbrot with exponent 1, by inversion of its integral; ranks are scattered over 40 bits."""
    ranks = LAW_SHIFT * ((catalogue + LAW_SHIFT) / LAW_SHIFT) ** chance.random(count) - LAW_SHIFT
    return _ids(ranks.astype(np.int64))


def _ids(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    scattered: NDArray[np.int64] = (ranks * 0x9E3779B97F4A7C1) & ((1 << 40) - 1)
    return scattered


class RowBench:
    """An EMB cache of `rows` rows that is asked for batches of candidates."""

    def __init__(self, rows: int, rows_per_page: int, batch_rows: int) -> None:
        pages = rows // rows_per_page
        self.state = allocate(pages + 1, rows_per_page, pages)
        self.policy = cache_policy("none", rows_per_page)
        self.rows_per_page = rows_per_page
        self._offsets = np.arange(BATCH_REQUESTS + 1) * (batch_rows // BATCH_REQUESTS)
        self._zeros = np.zeros(BATCH_REQUESTS + 1, np.int64)
        self._none = np.zeros(0, np.int64)
        self._scratch = booking.new_scratch(batch_rows)
        self._rows, self._row_offsets = np.empty(batch_rows, np.int64), np.empty(BATCH_REQUESTS + 1, np.int64)
        self._slots, self._index, self._missing, self._kept = (np.empty(batch_rows, np.int32) for _ in range(4))

    def book(self, ids: NDArray[np.int64]) -> None:
        """One batch."""
        booking.book_rows(
            self.state,
            self.policy,
            self.rows_per_page,
            self._none,
            self._zeros,
            self._zeros[1:],
            ids,
            self._offsets,
            self._zeros[1:],
            self._scratch,
            self._rows,
            self._slots,
            self._index,
            self._row_offsets,
            self._missing,
            self._kept,
        )

    def seconds(self, batches: NDArray[np.int64]) -> float:
        """Processor seconds to book these batches `[N, rows]`."""
        start = time.thread_time()
        for ids in batches:
            self.book(ids)
        return time.thread_time() - start

    def fill(self, chance: np.random.Generator, catalogue: int, warm_batches: int) -> None:
        """The most popular rows, hottest last, then traffic until the policy has sorted them."""
        width = self._rows.shape[0]
        rows = int(self.state.counters[Counter.EMB_PAGES]) * self.rows_per_page
        for end in range(rows, 0, -width):
            self.book(_ids(np.maximum(np.arange(end - width, end), 0)))
        for _ in range(warm_batches):
            self.book(law(chance, width, catalogue))

    def misses(self) -> int:
        """Distinct missing rows so far."""
        return int(self.state.counters[Counter.EMB_LOOKUPS] - self.state.counters[Counter.EMB_HITS])


def _small(runs: int, say: Say) -> list[Result]:
    chance = np.random.default_rng(1)
    bench = RowBench(SMALL_ROWS, SMALL_ROWS_PER_PAGE, SMALL_BATCH_ROWS)
    bench.fill(chance, SMALL_CATALOGUE, 300)
    plain: OrderedDict[int, None] = OrderedDict.fromkeys(range(-SMALL_ROWS, 0))
    _ordered_seconds(plain, _batches(chance, 300, SMALL_BATCH_ROWS, SMALL_CATALOGUE))
    speeds, pairs, misses = [], [], []
    for run in range(runs):
        batches = _batches(chance, 100, SMALL_BATCH_ROWS, SMALL_CATALOGUE)
        before = bench.misses()
        seconds = bench.seconds(batches)
        misses.append((bench.misses() - before) / batches.size)
        speeds.append(batches.size / seconds)
        pairs.append((_ordered_seconds(plain, batches), seconds))
        say(f"200 k rows, run {run + 1}: {speeds[-1] / 1e6:.1f} M look-ups/s, {pairs[-1][0] / seconds:.1f} x an OrderedDict")
    return [
        result_of("emb_lookups_per_second", speeds, "1/s"),
        ratio_of("emb_speedup_over_ordereddict", pairs),
        result_of("emb_miss_ratio", misses, "ratio"),
    ]


def _batches(chance: np.random.Generator, count: int, rows: int, catalogue: int) -> NDArray[np.int64]:
    return law(chance, count * rows, catalogue).reshape(count, rows)


def _ordered_seconds(plain: "OrderedDict[int, None]", batches: NDArray[np.int64]) -> float:
    """Processor seconds of an LRU cache written with an OrderedDict on the same ids."""
    listed = [ids.tolist() for ids in batches]
    start = time.thread_time()
    for ids in listed:
        for row in ids:
            if row in plain:
                plain.move_to_end(row)
            else:
                plain[row] = None
                plain.popitem(last=False)
    return time.thread_time() - start


def _big(runs: int, say: Say) -> list[Result]:
    chance = np.random.default_rng(2)
    bench = RowBench(BIG_ROWS, BIG_ROWS_PER_PAGE, BIG_BATCH_ROWS)
    say("20 M rows: filling")
    bench.fill(chance, BIG_CATALOGUE, 100)
    speeds = []
    for run in range(runs):
        batches = _batches(chance, 20, BIG_BATCH_ROWS, BIG_CATALOGUE)
        speeds.append(batches.size / bench.seconds(batches))
        say(f"20 M rows, run {run + 1}: {speeds[-1] / 1e6:.1f} M look-ups/s")
    per_row = books_bytes(bench.state) / int(bench.state.counters[Counter.EMB_ROWS])
    return [
        result_of("emb_lookups_per_second_20m", speeds, "1/s"),
        _move_pages(bench, runs, say),
        Result("index_bytes_per_row", _bytes_at_even_split(), "B"),
        Result("index_bytes_per_row_all_emb", per_row, "B"),
    ]


def books_bytes(state: PoolState) -> int:
    """Bytes of everything a node remembers about its pool: index, ghosts, ledger, logs."""
    return sum(array.nbytes for array in state)


def _bytes_at_even_split() -> float:
    """Per resident row of the demo node with half of the pool KV's: room is made for a pool that is all EMB."""
    profile = load_profile("cpu-demo")
    state = allocate(profile.pages, profile.rows_per_page, profile.pages // 2)
    return books_bytes(state) / (profile.pages // 2 * profile.rows_per_page)


def _move_pages(bench: RowBench, runs: int, say: Say) -> Result:
    """Microseconds to empty a page of 4,096 rows, hottest rows kept, and hand it over; as in a tick, many at once."""
    state, per_page, policy = bench.state, bench.rows_per_page, cache_policy("shipped", bench.rows_per_page)
    count = round(MOVED_RATIO * state.pages.shape[0])
    pages = np.empty(exchange.candidate_pages(count), np.int32)
    room = count * policy.rescue_rows_per_page
    rows, sources, targets = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
    exchange.shrink_emb(state, policy, per_page, 0, pages, rows, sources, targets)  # compiled before it is timed
    _grant_all(state, pages[:0])
    chance = np.random.default_rng(4)
    times = []
    for _ in range(runs):
        state.slots["uses"] = chance.integers(0, 4, state.slots.shape[0], dtype=np.uint8)
        start = time.thread_time()
        leaving, copies = exchange.shrink_emb(state, policy, per_page, count, pages, rows, sources, targets)
        _grant_all(state, pages[:leaving])
        times.append((time.thread_time() - start) / leaving * 1e6)
        say(f"a page of {per_page} rows given back in {times[-1]:.1f} us, {copies / leaving:.0f} rows kept of each")
    return result_of("move_page_us", times, "us")


@kernel
def _grant_all(state: PoolState, pages: NDArray[np.int32]) -> None:
    for position in range(pages.shape[0]):
        grant_to_kv(state, pages[position])


@kernel
def plan_and_book(state: PoolState, rows_per_page: int, count: int, pages: NDArray[np.int32]) -> int:
    """Choose the coldest pages, take them out of EMB, grant them to KV."""
    leaving = emb.coldest_pages(state, rows_per_page, count, pages)
    for position in range(leaving):
        release_emb_page(state, pages[position])
    _grant_all(state, pages[:leaving])
    return leaving


def _plan(runs: int, say: Say) -> list[Result]:
    """Ledger work of moving 4 % of 80 GB: choosing and booking. Emptying the pages is `move_page_us`, tick by tick."""
    profile = load_profile("a100-80g")
    chance = np.random.default_rng(3)
    emb_pages = profile.pages // 2
    state = allocate(profile.pages, profile.rows_per_page, emb_pages)
    _seem_full(state, profile.rows_per_page, emb_pages, chance)
    count = round(MOVED_RATIO * profile.pages)
    pages = np.empty(exchange.candidate_pages(count), np.int32)
    plan_and_book(state, profile.rows_per_page, 0, pages)
    times = []
    for run in range(runs):
        state.counters[Counter.CLOCK_PAGE] = chance.integers(emb_pages)  # other pages than those in the processor's caches
        start = time.thread_time()
        leaving = plan_and_book(state, profile.rows_per_page, count, pages)
        times.append((time.thread_time() - start) * 1e3)
        say(f"80 GB, run {run + 1}: {leaving} pages chosen and booked in {times[-1]:.2f} ms")
        exchange.grow_emb(state, profile.block_tokens, leaving)
        _seem_full(state, profile.rows_per_page, emb_pages, chance)
    return [result_of("plan_4pct_80gb_ms", times, "ms")]


def _seem_full(state: PoolState, rows_per_page: int, emb_pages: int, chance: np.random.Generator) -> None:
    """Uses as a clock leaves them; planning reads no more of a row than that."""
    listed = state.lists["emb_page"][:emb_pages]
    state.pages["filled"][listed] = rows_per_page
    slots = state.slots.reshape(-1, rows_per_page)
    for page in listed:
        slots["row"][page] = 0
        slots["uses"][page] = chance.integers(0, 4, rows_per_page, dtype=np.uint8)


def _eviction(runs: int, say: Say) -> list[Result]:
    """Milliseconds of recomputing that KV saves, least value per page first against least recently used first."""
    pairs = []
    for run in range(runs):
        by_cost, by_recency = (_saved_ms(run, recency_only) for recency_only in (False, True))
        pairs.append((by_cost, by_recency))
        say(f"KV, run {run + 1}: {by_cost:.0f} ms saved by cost, {by_recency:.0f} ms by recency")
    return [ratio_of("kv_saved_ms_cost_over_lru", pairs)]


def _saved_ms(seed: int, recency_only: bool) -> float:
    """Everybody is admitted; users differ in how often they come (Zipf 0.8) and how long their history is (log-normal)."""
    policy: CachePolicy = cache_policy("none", 1)._replace(kv_recency_only=recency_only)
    profile = load_profile("a100-80g")
    chance = np.random.default_rng(seed)
    blocks = np.clip(np.exp(chance.normal(3.3, 0.8, KV_USERS)), 1, 300).astype(np.int64)
    weights = np.arange(1, KV_USERS + 1) ** -0.8
    users = chance.choice(KV_USERS, KV_REQUESTS, p=weights / weights.sum())
    hashes = np.arange(1, 301, dtype=np.uint64)
    tokens = blocks * profile.block_tokens
    cost_ms = profile.cost.ms_per_token * tokens + profile.cost.ms_per_token_squared * tokens**2
    state = allocate(int(blocks.sum()) // 5 + 1, 1, 1)
    read, written = np.empty(300, np.int32), np.empty(300, np.int32)
    saved_ms = 0.0
    for request, user in enumerate(users):
        own = hashes[: blocks[user]] + np.uint64(1000 * user)
        matched, _, entry, _ = booking.book_prefix(
            state, policy, request, profile.block_tokens, cost_ms[user], np.uint64(user + 1), own, -1, False, read, written
        )
        state.entries["pins"][entry] = 0
        if request >= KV_REQUESTS // 4:
            saved_ms += float(cost_ms[user]) * matched / int(blocks[user])
    return saved_ms
