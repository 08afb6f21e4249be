"""Pages from one cache to the other, and into and out of the pool: empty on one side, then hand over.

Every kernel here takes a bounded step and says how far it came; what it could not do is tried again next tick.
"""

import numpy as np
from numpy.typing import NDArray

from agents.caches import emb, kv
from agents.caches.policy import CachePolicy
from agents.numerics.jit import kernel
from agents.pool.migration import add_page, grant_to_emb, release_emb_page, withdraw_page
from agents.pool.state import Counter, PoolState

_KV_PAGES = int(Counter.KV_PAGES)
_POOL_PAGES = int(Counter.POOL_PAGES)
CANDIDATES_MIN = 16  # pages compared when EMB gives few back
CANDIDATES_PER_PAGE = 2  # when it gives many back: the colder half of those after the hand


def candidate_pages(count: int) -> int:
    """Room that `shrink_emb` needs to choose `count` pages."""
    return max(CANDIDATES_MIN, CANDIDATES_PER_PAGE * count)


@kernel
def grow_emb(state: PoolState, block_tokens: int, count: int) -> int:
    """Unused pages of KV become EMB's, prefixes are evicted for it; fewer than `count` when the rest is being read."""
    for granted in range(count):
        while grant_to_emb(state) == -1:
            if not kv.evict_one(state, block_tokens, True):
                return granted
    return count


@kernel
def shrink_emb(
    state: PoolState,
    policy: CachePolicy,
    rows_per_page: int,
    count: int,
    pages_out: NDArray[np.int32],
    rows_out: NDArray[np.int64],
    sources_out: NDArray[np.int32],
    targets_out: NDArray[np.int32],
) -> tuple[int, int]:
    """The coldest pages of EMB start to migrate, their hottest rows are copied; returns (pages, row copies) written.

    `pages_out` has room for `candidate_pages(count)`, the others for the policy's copies of every page. The device
    makes the copies; then the pages are granted to KV.
    """
    leaving = emb.coldest_pages(state, rows_per_page, count, pages_out)
    for position in range(leaving):
        release_emb_page(state, pages_out[position])  # all of them first: no row is copied to a page that leaves too
    copies = 0
    for position in range(leaving):
        copies = emb.clear_page(state, pages_out[position], rows_per_page, policy, copies, rows_out, sources_out, targets_out)
    return leaving, copies


@kernel
def resize_pool(state: PoolState, block_tokens: int, pool_pages: int, kv_pages: int, allowance_pages: int) -> int:
    """One step to a pool of `pool_pages`; a smaller one takes from KV what that has beyond `kv_pages`.

    Returns pages added (above zero) or withdrawn (below). KV always keeps a page.
    """
    changed = 0
    while changed < allowance_pages and state.counters[_POOL_PAGES] < pool_pages and add_page(state) != -1:
        changed += 1
    while -changed < allowance_pages and state.counters[_POOL_PAGES] > pool_pages and state.counters[_KV_PAGES] > max(kv_pages, 1):
        if withdraw_page(state) != -1:
            changed -= 1
        elif not kv.evict_one(state, block_tokens, True):
            break
    return changed
