"""Bench of row policies: hit ratios of the product's and of published ones on logs and on synthetic streams.

Cache sizes are shares of the distinct ids of a stream. The product's kernels are run as they are, one id at a time.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.caches import emb
from agents.caches.policy import CachePolicy, cache_policy
from agents.numerics.jit import kernel
from agents.pool.state import Counter, PoolState, allocate
from agents.workloads.trace import read_log
from helmctl.bench.report import Result, Say
from helmctl.bench.row_policies import REFERENCES

CACHE_RATIOS = (0.02, 0.05, 0.1, 0.2, 0.4)
ROWS_PER_PAGE = 16
STREAM_LENGTH, STREAM_IDS = 200_000, 20_000
_LOOKUPS, _HITS = int(Counter.EMB_LOOKUPS), int(Counter.EMB_HITS)
_PRESSURE = int(Counter.EMB_EVICTED_PRESSURE)


def measure(runs: int, say: Say, log: list[Path] | None = None) -> Sequence[Result]:
    """Hit ratio of every policy at every size on every stream; logs are read as they are, streams drawn from a seed."""
    streams = {path.stem: np.asarray(read_log(path).items, np.int64) for path in log or []}
    streams |= {"zipf": _zipf(1), "drift": _drift(2), "scan": _scan(3)}
    results = []
    for name, rows in streams.items():
        distinct = np.unique(rows).shape[0]
        for ratio in CACHE_RATIOS:
            capacity = max(2, round(ratio * distinct / ROWS_PER_PAGE)) * ROWS_PER_PAGE
            found = hit_ratios(rows, capacity)
            say(f"{name}, {ratio:.0%} of {distinct} ids: " + ", ".join(f"{policy} {share:.4f}" for policy, share in found.items()))
            results += [Result(f"{name}.{ratio:g}.{policy}", share, "ratio") for policy, share in found.items()]
    return results


def hit_ratios(rows: NDArray[np.int64], capacity: int) -> dict[str, float]:
    """Share of references that were resident, by policy; counted from the first reference on."""
    listed = rows.tolist()
    shares = {}
    for name, make in REFERENCES.items():
        cache = make(capacity)
        shares[name] = sum(cache.use(row) for row in listed) / len(listed)
    for admission in ("none", "shipped", "tinylfu"):
        shares[f"ours-{admission}"] = _product_hits(rows, capacity, cache_policy(admission, ROWS_PER_PAGE)) / len(listed)
    return shares


def _product_hits(rows: NDArray[np.int64], capacity: int, policy: CachePolicy) -> int:
    """Hits of the product's EMB cache that has half of its pool, as nodes have."""
    pages = capacity // ROWS_PER_PAGE
    state = allocate(2 * pages, ROWS_PER_PAGE, pages)
    return play(state, policy, rows)


@kernel
def play(state: PoolState, policy: CachePolicy, rows: NDArray[np.int64]) -> int:
    """References one by one; returns the hits."""
    steps_max = emb.sweep_steps(state, ROWS_PER_PAGE, policy)
    for position in range(rows.shape[0]):
        row = rows[position]
        slot = emb.confirmed_slot(state, row, emb.probable_slot(state, row, emb.expect_row(state, row)))
        state.counters[_LOOKUPS] += 1
        if slot != -1:
            emb.touch_slot(state, slot, 0, policy)
            state.counters[_HITS] += 1
        elif emb.admits(state, row, ROWS_PER_PAGE, policy):
            slot = emb.fresh_slot(state, ROWS_PER_PAGE)
            if slot == -1:
                slot = emb.victim_slot(state, ROWS_PER_PAGE, steps_max, rows, 0)
            emb.reindex(state, slot, emb.occupy(state, slot, row, emb.NEW_USES, 0, ROWS_PER_PAGE, _PRESSURE))
    return int(state.counters[_HITS])


def _zipf(seed: int) -> NDArray[np.int64]:
    """Ids of fixed popularity, Zipf 0.9."""
    weights = np.arange(1, STREAM_IDS + 1) ** -0.9
    return np.random.default_rng(seed).choice(STREAM_IDS, STREAM_LENGTH, p=weights / weights.sum())


def _drift(seed: int) -> NDArray[np.int64]:
    """The same, but every 40 references the most popular id gives way to the next."""
    return (_zipf(seed) + np.arange(STREAM_LENGTH) // 40) % (2 * STREAM_IDS)


def _scan(seed: int) -> NDArray[np.int64]:
    """The same, but a third of the references are ids that never come back."""
    rows = _zipf(seed)
    once = np.random.default_rng(seed + 1).random(STREAM_LENGTH) < 1 / 3
    rows[once] = 10 * STREAM_IDS + np.flatnonzero(once)
    return rows
