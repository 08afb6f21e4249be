"""Which pages change hands, a bounded number per tick, shrink before grow.

Pure page accounting: the caches empty a page first, then these kernels hand it over. A move is never a stored plan:
every tick takes the next step from what is granted now. So it is paused by an allowance of zero, re-targeted by
another target, aborted by the granted pages as target, and nothing has to be undone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
_POOL_PAGES = int(Counter.POOL_PAGES)
_FREE_HEAD = int(Counter.FREE_HEAD)
_FREE = int(Owner.FREE)
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


def plan(granted_emb_pages: int, target_emb_pages: int, allowance_pages: int) -> list[MigrationStep]:
    """The steps to the target if nothing changes on the way; empty when there, `ValueError` without an allowance."""
    if allowance_pages < 1 and granted_emb_pages != target_emb_pages:
        raise ValueError("allowance_pages must be at least 1")
    steps: list[MigrationStep] = []
    while granted_emb_pages != target_emb_pages:
        steps.append(migration_step(granted_emb_pages, target_emb_pages, allowance_pages))
        granted_emb_pages += steps[-1].kv_to_emb - steps[-1].emb_to_kv
    return steps


@kernel
def release_emb_page(state: PoolState, page: int) -> None:
    """Take a page out of EMB, to be emptied; it stays `MIGRATING` until the device has copied its rescued rows."""
    position = state.pages[page].emb_position
    last = state.counters[_EMB_PAGES] - 1
    moved = state.lists[last].emb_page
    state.lists[position].emb_page = moved
    state.pages[moved].emb_position = position
    state.lists[last].emb_page = -1
    state.pages[page].emb_position = -1
    state.counters[_EMB_PAGES] = last
    if position == state.counters[_CLOCK_PAGE]:
        state.counters[_CLOCK_SLOT] = 0  # the hand stands on another page now: start it from its top
    if state.pages[page].fresh_position >= 0:
        unlist_fresh(state, page)
    state.pages[page].owner = _MIGRATING


@kernel
def list_fresh(state: PoolState, page: int) -> None:
    """Put a page with empty slots on top of the stack."""
    size = state.counters[_FRESH_PAGES]
    state.lists[size].fresh_page = page
    state.pages[page].fresh_position = size
    state.counters[_FRESH_PAGES] = size + 1


@kernel
def unlist_fresh(state: PoolState, page: int) -> None:
    """Take a page out of the stack of fresh pages; the top one takes its place."""
    position = state.pages[page].fresh_position
    top = state.counters[_FRESH_PAGES] - 1
    moved = state.lists[top].fresh_page
    state.lists[position].fresh_page = moved
    state.pages[moved].fresh_position = position
    state.lists[top].fresh_page = -1
    state.pages[page].fresh_position = -1
    state.counters[_FRESH_PAGES] = top


@kernel
def push_unused(state: PoolState, page: int) -> None:
    """Put a page of KV on top of KV's unused ones."""
    push_unused_chain(state, page, page, 1)


@kernel
def push_unused_chain(state: PoolState, head: int, tail: int, pages: int) -> None:
    """The same for so many pages that are linked from `head` to `tail`; none between is looked at, and their order stays."""
    state.next_pages[tail] = state.counters[_KV_FREE_HEAD]
    state.counters[_KV_FREE_HEAD] = head
    state.counters[_KV_FREE_PAGES] += pages


@kernel
def pop_unused(state: PoolState) -> int:
    """Take an unused page of KV, -1 when there is none."""
    page = state.counters[_KV_FREE_HEAD]
    if page != -1:
        state.counters[_KV_FREE_HEAD] = state.next_pages[page]
        state.counters[_KV_FREE_PAGES] -= 1
        state.next_pages[page] = -1
    return int(page)


@kernel
def pop_unused_chain(state: PoolState, pages_out: NDArray[np.int32]) -> None:
    """Take as many unused pages of KV as there is room for, linked in their order; the caller knows that there are so many."""
    page, last = state.counters[_KV_FREE_HEAD], -1
    for place in range(pages_out.shape[0]):
        pages_out[place] = last = page
        page = state.next_pages[page]
    state.next_pages[last] = -1
    state.counters[_KV_FREE_HEAD] = page
    state.counters[_KV_FREE_PAGES] -= pages_out.shape[0]


@kernel
def grant_to_kv(state: PoolState, page: int) -> None:
    """A migrating page becomes an unused page of KV."""
    state.pages[page].owner = _KV
    push_unused(state, page)
    state.counters[_KV_PAGES] += 1
    state.counters[_MOVED_PAGES] += 1


@kernel
def grant_all_to_kv(state: PoolState, pages: NDArray[np.int32]) -> None:
    """The same for pages one after the other."""
    for position in range(pages.shape[0]):
        grant_to_kv(state, pages[position])


@kernel
def grant_to_emb(state: PoolState) -> int:
    """An unused page of KV becomes a fresh page of EMB; -1 when KV has no unused page. No copy, so no waiting."""
    page = pop_unused(state)
    if page == -1:
        return -1
    state.counters[_KV_PAGES] -= 1
    state.pages[page].owner = _EMB
    state.pages[page].filled = 0
    state.pages[page].rows = 0
    position = state.counters[_EMB_PAGES]
    state.lists[position].emb_page = page
    state.pages[page].emb_position = position
    state.counters[_EMB_PAGES] = position + 1
    list_fresh(state, page)
    state.counters[_MOVED_PAGES] += 1
    return page


@kernel
def withdraw_page(state: PoolState) -> int:
    """An unused page of KV leaves the pool; -1 when KV has none."""
    page = pop_unused(state)
    if page != -1:
        state.pages[page].owner = _FREE
        state.next_pages[page] = state.counters[_FREE_HEAD]
        state.counters[_FREE_HEAD] = page
        state.counters[_KV_PAGES] -= 1
        state.counters[_POOL_PAGES] -= 1
    return page


@kernel
def add_page(state: PoolState) -> int:
    """A page outside the pool becomes an unused page of KV; -1 when all are inside."""
    page = state.counters[_FREE_HEAD]
    if page == -1:
        return -1
    state.counters[_FREE_HEAD] = state.next_pages[page]
    state.pages[page].owner = _KV
    push_unused(state, page)
    state.counters[_KV_PAGES] += 1
    state.counters[_POOL_PAGES] += 1
    return int(page)
