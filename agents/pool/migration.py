"""Which pages change hands, a bounded number per tick, shrink before grow.

Pure page accounting: the caches empty a page first, then these kernels hand it over.
"""

from typing import NamedTuple

from agents.numerics.jit import kernel
from agents.pool.state import Counter, Owner, PoolState

_EMB_PAGES = int(Counter.EMB_PAGES)
_KV_PAGES = int(Counter.KV_PAGES)
_KV_FREE_HEAD = int(Counter.KV_FREE_HEAD)
_KV_FREE_PAGES = int(Counter.KV_FREE_PAGES)
_FRESH_PAGES = int(Counter.FRESH_PAGES)
_CLOCK_PAGE = int(Counter.CLOCK_PAGE)
_CLOCK_SLOT = int(Counter.CLOCK_SLOT)
_MOVED_PAGES = int(Counter.MOVED_PAGES)
_EMB = int(Owner.EMB)
_KV = int(Owner.KV)
_MIGRATING = int(Owner.MIGRATING)


class MigrationStep(NamedTuple):
    """Pages to move in one tick; at most one of the two is above zero."""

    emb_to_kv: int
    kv_to_emb: int


def migration_step(granted_emb_pages: int, target_emb_pages: int, allowance_pages: int) -> MigrationStep:
    """The next step towards the target: never more than the allowance, never both ways at once."""
    difference = target_emb_pages - granted_emb_pages
    pages = min(abs(difference), max(0, allowance_pages))
    return MigrationStep(emb_to_kv=pages if difference < 0 else 0, kv_to_emb=pages if difference > 0 else 0)


@kernel
def release_emb_page(state: PoolState, page: int) -> None:
    """Take an emptied page out of EMB; it stays `MIGRATING` until the device has copied its rescued rows."""
    position = state.emb_position[page]
    last = state.counters[_EMB_PAGES] - 1
    moved = state.emb_pages[last]
    state.emb_pages[position] = moved
    state.emb_position[moved] = position
    state.emb_pages[last] = -1
    state.emb_position[page] = -1
    state.counters[_EMB_PAGES] = last
    if position == state.counters[_CLOCK_PAGE]:
        state.counters[_CLOCK_SLOT] = 0  # the hand stands on another page now: start it from its top
    _forget_fresh(state, page)
    state.owner[page] = _MIGRATING


@kernel
def _forget_fresh(state: PoolState, page: int) -> None:
    """Remove a page from the stack of fresh pages, keeping the order of the others."""
    size = state.counters[_FRESH_PAGES]
    kept = 0
    for position in range(size):
        if state.fresh[position] != page:
            state.fresh[kept] = state.fresh[position]
            kept += 1
    state.counters[_FRESH_PAGES] = kept


@kernel
def grant_to_kv(state: PoolState, page: int) -> None:
    """A migrating page becomes an unused page of KV."""
    state.owner[page] = _KV
    state.next[page] = state.counters[_KV_FREE_HEAD]
    state.counters[_KV_FREE_HEAD] = page
    state.counters[_KV_FREE_PAGES] += 1
    state.counters[_KV_PAGES] += 1
    state.counters[_MOVED_PAGES] += 1


@kernel
def grant_to_emb(state: PoolState) -> int:
    """An unused page of KV becomes a fresh page of EMB; -1 when KV has no unused page. No copy, so no waiting."""
    page = state.counters[_KV_FREE_HEAD]
    if page == -1:
        return -1
    state.counters[_KV_FREE_HEAD] = state.next[page]
    state.counters[_KV_FREE_PAGES] -= 1
    state.counters[_KV_PAGES] -= 1
    state.next[page] = -1
    state.owner[page] = _EMB
    position = state.counters[_EMB_PAGES]
    state.emb_pages[position] = page
    state.emb_position[page] = position
    state.counters[_EMB_PAGES] = position + 1
    state.page_filled[page] = 0
    # Below the top: a half-filled page is finished first.
    size = state.counters[_FRESH_PAGES]
    state.fresh[size] = page
    if size > 0 and state.page_filled[state.fresh[size - 1]] > 0:
        state.fresh[size] = state.fresh[size - 1]
        state.fresh[size - 1] = page
    state.counters[_FRESH_PAGES] = size + 1
    state.counters[_MOVED_PAGES] += 1
    return int(page)
