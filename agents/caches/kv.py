"""KV prefixes: look up, admit, append, evict.

Each user has at most one entry: a chain of pages, one block of tokens per page, in order. A
look-up walks the chain while the stored hash of each block equals the request's, so the longest
equal prefix is reused and a changed history is noticed at the first changed block.

Victims are chosen by GreedyDual with frequency: priority = floor + uses x milliseconds of
recompute saved per page; the floor rises to each victim's priority, which ages what is not
used. With few hundred live entries one linear scan beats a heap that every hit would disturb.
"""

import numpy as np
from numpy.typing import NDArray

from agents.caches.policy import CachePolicy
from agents.numerics.jit import kernel
from agents.pool.state import Counter, PoolState

# Plain ints: Numba freezes them, and an IntEnum member inside a kernel would not compile.
_KV_FREE_HEAD = int(Counter.KV_FREE_HEAD)
_KV_FREE_PAGES = int(Counter.KV_FREE_PAGES)
_ENTRIES_LIVE = int(Counter.ENTRIES_LIVE)
_ENTRY_FREE_HEAD = int(Counter.ENTRY_FREE_HEAD)
_KV_EVICTED_PRESSURE = int(Counter.KV_EVICTED_PRESSURE)
_KV_EVICTED_SHRINK = int(Counter.KV_EVICTED_SHRINK)
_KV_PAGES_USED = int(Counter.KV_PAGES_USED)
_RESIDENCY_SEQ = int(Counter.RESIDENCY_SEQ)

REASON_COLD = 1
REASON_NOT_ADMITTED = 2
REASON_PRESSURE = 3
REASON_SHRINK = 4
REASON_VERSION = 5

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


@kernel
def hash_position(key: np.uint64, mask: int) -> int:
    """Home position of a key in a table of `mask + 1` places (Fibonacci hashing)."""
    return np.int64(((key * _MIX) >> _SHIFT) & np.uint64(mask))  # type: ignore[return-value]  # int() would stay unsigned in Numba


@kernel
def find_entry(state: PoolState, key: np.uint64) -> int:
    """Entry of a user, -1 when there is none."""
    mask = state.user_index_key.shape[0] - 1
    position = hash_position(key, mask)
    while state.user_index_key[position] != 0:
        if state.user_index_key[position] == key:
            return int(state.user_index_entry[position])
        position = (position + 1) & mask
    return -1


@kernel
def _index_insert(state: PoolState, key: np.uint64, entry: int) -> None:
    mask = state.user_index_key.shape[0] - 1
    position = hash_position(key, mask)
    while state.user_index_key[position] != 0:
        position = (position + 1) & mask
    state.user_index_key[position] = key
    state.user_index_entry[position] = entry


@kernel
def _index_remove(state: PoolState, key: np.uint64) -> None:
    """Delete by shifting the run back, so that no tombstones pile up."""
    mask = state.user_index_key.shape[0] - 1
    hole = hash_position(key, mask)
    while state.user_index_key[hole] != key:
        hole = (hole + 1) & mask
    position = hole
    while True:
        position = (position + 1) & mask
        moved = state.user_index_key[position]
        if moved == 0:
            break
        home = hash_position(moved, mask)
        if ((position - home) & mask) >= ((position - hole) & mask):
            state.user_index_key[hole] = moved
            state.user_index_entry[hole] = state.user_index_entry[position]
            hole = position
    state.user_index_key[hole] = 0
    state.user_index_entry[hole] = -1


@kernel
def log_residency(state: PoolState, key: np.uint64, tokens: int) -> None:
    """Append one change to the residency log that routers follow."""
    seq = state.counters[_RESIDENCY_SEQ] + 1
    state.counters[_RESIDENCY_SEQ] = seq
    place = seq % state.residency_key.shape[0]
    state.residency_key[place] = key
    state.residency_tokens[place] = tokens


@kernel
def remember_fate(state: PoolState, key: np.uint64, reason: int) -> None:
    """Note why a user's prefix is gone, for the miss reason of the next request; the last sighting stays."""
    place = hash_position(key, state.ghost_key.shape[0] - 1)
    if state.ghost_key[place] != key:
        state.ghost_key[place] = key
        state.ghost_seen_ns[place] = -1
    state.ghost_reason[place] = reason


@kernel
def see_user(state: PoolState, key: np.uint64, now_ns: int) -> tuple[int, int]:
    """Note a sighting; returns (nanoseconds since the one before or -1, remembered reason or cold)."""
    place = hash_position(key, state.ghost_key.shape[0] - 1)
    gap_ns = -1
    reason = REASON_COLD
    if state.ghost_key[place] == key:
        if state.ghost_seen_ns[place] >= 0:
            gap_ns = now_ns - state.ghost_seen_ns[place]
        reason = state.ghost_reason[place]
    else:
        state.ghost_key[place] = key
        state.ghost_reason[place] = REASON_COLD
    state.ghost_seen_ns[place] = now_ns
    return gap_ns, reason


@kernel
def free_kv_page(state: PoolState, page: int) -> None:
    """Put a page of KV on KV's own free list."""
    state.next[page] = state.counters[_KV_FREE_HEAD]
    state.counters[_KV_FREE_HEAD] = page
    state.counters[_KV_FREE_PAGES] += 1


@kernel
def truncate_entry(state: PoolState, entry: int, blocks: int, block_tokens: int) -> None:
    """Keep the first `blocks` pages of a prefix and free the rest; zero blocks delete the entry."""
    page = state.entry_head[entry]
    last_kept = -1
    for _ in range(blocks):
        last_kept = page
        page = state.next[page]
    while page != -1:
        following = state.next[page]
        free_kv_page(state, page)
        state.counters[_KV_PAGES_USED] -= 1
        page = following
    key = state.entry_key[entry]
    if blocks > 0:
        state.next[last_kept] = -1
        state.entry_blocks[entry] = blocks
        log_residency(state, key, blocks * block_tokens)
        return
    _index_remove(state, key)
    log_residency(state, key, 0)
    state.entry_head[entry] = -1
    state.entry_blocks[entry] = 0
    state.entry_key[entry] = 0
    position = state.live_position[entry]
    last = state.counters[_ENTRIES_LIVE] - 1
    moved = state.live[last]
    state.live[position] = moved
    state.live_position[moved] = position
    state.live[last] = -1
    state.live_position[entry] = -1
    state.counters[_ENTRIES_LIVE] = last
    state.entry_next_free[entry] = state.counters[_ENTRY_FREE_HEAD]
    state.counters[_ENTRY_FREE_HEAD] = entry


@kernel
def void_entry(state: PoolState, entry: int) -> None:
    """Make a pinned prefix match nothing any more: its pages stay for their readers, its content is not found again."""
    state.page_hash[state.entry_head[entry]] = 0
    log_residency(state, state.entry_key[entry], 0)


@kernel
def new_entry(state: PoolState, key: np.uint64) -> int:
    """An empty entry for a user; -1 when all are taken."""
    entry = state.counters[_ENTRY_FREE_HEAD]
    if entry == -1:
        return -1
    state.counters[_ENTRY_FREE_HEAD] = state.entry_next_free[entry]
    position = state.counters[_ENTRIES_LIVE]
    state.live[position] = entry
    state.live_position[entry] = position
    state.counters[_ENTRIES_LIVE] = position + 1
    state.entry_key[entry] = key
    state.entry_head[entry] = -1
    state.entry_blocks[entry] = 0
    state.entry_pins[entry] = 0
    state.entry_uses[entry] = 0
    state.entry_priority[entry] = 0.0
    _index_insert(state, key, entry)
    return int(entry)


@kernel
def _goes_before(state: PoolState, entry: int, other: int) -> bool:
    if state.entry_priority[entry] != state.entry_priority[other]:
        return bool(state.entry_priority[entry] < state.entry_priority[other])
    return bool(state.entry_last_ns[entry] < state.entry_last_ns[other])


@kernel
def victim_entry(state: PoolState) -> int:
    """Unpinned entry with the lowest priority (the older one among equals), -1 when all are pinned."""
    best = -1
    for position in range(state.counters[_ENTRIES_LIVE]):
        entry = state.live[position]
        if state.entry_pins[entry] > 0:
            continue
        if best == -1 or _goes_before(state, entry, best):
            best = entry
    return best


@kernel
def evict_one(state: PoolState, block_tokens: int, by_shrink: bool) -> bool:
    """Evict the least valuable unpinned prefix; False when there is none."""
    entry = victim_entry(state)
    if entry == -1:
        return False
    if state.entry_priority[entry] > state.ageing[0]:
        state.ageing[0] = state.entry_priority[entry]
    if by_shrink:
        remember_fate(state, state.entry_key[entry], REASON_SHRINK)
        state.counters[_KV_EVICTED_SHRINK] += 1
    else:
        remember_fate(state, state.entry_key[entry], REASON_PRESSURE)
        state.counters[_KV_EVICTED_PRESSURE] += 1
    truncate_entry(state, entry, 0, block_tokens)
    return True


@kernel
def touch_entry(state: PoolState, entry: int, now_ns: int, ms_saved_per_page: float, policy: CachePolicy) -> None:
    """Book a use and set the priority for the next eviction."""
    state.entry_last_ns[entry] = now_ns
    if policy.kv_recency_only:
        state.entry_priority[entry] = float(now_ns)
        return
    if state.entry_uses[entry] < 255:
        state.entry_uses[entry] += 1
    state.entry_priority[entry] = state.ageing[0] + state.entry_uses[entry] * ms_saved_per_page


@kernel
def matching_blocks(state: PoolState, entry: int, hashes: NDArray[np.uint64]) -> int:
    """Blocks of the stored prefix that equal the request's history."""
    page = state.entry_head[entry]
    blocks = 0
    while page != -1 and blocks < hashes.shape[0] and state.page_hash[page] == hashes[blocks]:
        blocks += 1
        page = state.next[page]
    return blocks


@kernel
def append_blocks(state: PoolState, entry: int, hashes: NDArray[np.uint64], block_tokens: int, pages_out: NDArray[np.int32]) -> int:
    """Grow a prefix to cover all `hashes`, evicting others as needed; returns pages written to `pages_out`.

    Stops early when every other prefix is pinned or KV has no page left: a shorter prefix is still useful.
    """
    tail = -1
    page = state.entry_head[entry]
    while page != -1:
        tail = page
        page = state.next[page]
    written = 0
    for block in range(state.entry_blocks[entry], hashes.shape[0]):
        if state.counters[_KV_FREE_HEAD] == -1 and not evict_one(state, block_tokens, False):
            break
        page = state.counters[_KV_FREE_HEAD]
        state.counters[_KV_FREE_HEAD] = state.next[page]
        state.counters[_KV_FREE_PAGES] -= 1
        state.counters[_KV_PAGES_USED] += 1
        state.next[page] = -1
        state.page_hash[page] = hashes[block]
        if tail == -1:
            state.entry_head[entry] = page
        else:
            state.next[tail] = page
        tail = page
        pages_out[written] = page
        written += 1
        state.entry_blocks[entry] += 1
    return written
