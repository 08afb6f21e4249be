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

from agents.caches.policy import Admission, CachePolicy
from agents.numerics.jit import kernel, prefetch
from agents.pool.migration import pop_unused_chain, push_unused_chain
from agents.pool.state import Counter, PoolState

# Plain ints: Numba freezes them, and an IntEnum member inside a kernel would not compile.
_KV_FREE_PAGES = int(Counter.KV_FREE_PAGES)
_ENTRIES_LIVE = int(Counter.ENTRIES_LIVE)
_ENTRY_FREE_HEAD = int(Counter.ENTRY_FREE_HEAD)
_KV_EVICTED_PRESSURE = int(Counter.KV_EVICTED_PRESSURE)
_KV_EVICTED_SHRINK = int(Counter.KV_EVICTED_SHRINK)
_KV_PAGES_USED = int(Counter.KV_PAGES_USED)
_RESIDENCY_SEQ = int(Counter.RESIDENCY_SEQ)
_EVERYONE = int(Admission.EVERYONE)
_SECOND_REFERENCE = int(Admission.SECOND_REFERENCE)
_PROBATION = int(Admission.PROBATION)
_FREQUENCY = int(Admission.FREQUENCY)

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
    users = state.users
    mask = users.shape[0] - 1
    position = hash_position(key, mask)
    while users[position].key != 0:
        if users[position].key == key:
            return int(users[position].entry)
        position = (position + 1) & mask
    return -1


@kernel
def expect_user(state: PoolState, key: np.uint64) -> None:
    """Fetch what is known of a user whose request will be here soon."""
    prefetch(state.users, hash_position(key, state.users.shape[0] - 1))
    prefetch(state.fates, hash_position(key, state.fates.shape[0] - 1))


@kernel
def _index_insert(state: PoolState, key: np.uint64, entry: int) -> None:
    mask = state.users.shape[0] - 1
    position = hash_position(key, mask)
    while state.users[position].key != 0:
        position = (position + 1) & mask
    state.users[position].key = key
    state.users[position].entry = entry


@kernel
def _index_remove(state: PoolState, key: np.uint64) -> None:
    """Delete by shifting the run back, so that no tombstones pile up."""
    mask = state.users.shape[0] - 1
    hole = hash_position(key, mask)
    while state.users[hole].key != key:
        hole = (hole + 1) & mask
    position = hole
    while True:
        position = (position + 1) & mask
        moved = state.users[position].key
        if moved == 0:
            break
        home = hash_position(moved, mask)
        if ((position - home) & mask) >= ((position - hole) & mask):
            state.users[hole].key = moved
            state.users[hole].entry = state.users[position].entry
            hole = position
    state.users[hole].key = 0
    state.users[hole].entry = -1


@kernel
def log_residency(state: PoolState, key: np.uint64, tokens: int) -> None:
    """Append one change to the residency log that routers follow."""
    seq = state.counters[_RESIDENCY_SEQ] + 1
    state.counters[_RESIDENCY_SEQ] = seq
    place = seq % state.residency.shape[0]
    state.residency[place].key = key
    state.residency[place].tokens = tokens


@kernel
def remember_fate(state: PoolState, key: np.uint64, reason: int) -> None:
    """Note why a user's prefix is gone, for the miss reason of the next request; the last sighting stays."""
    place = hash_position(key, state.fates.shape[0] - 1)
    if state.fates[place].key != key:
        state.fates[place].key = key
        state.fates[place].seen_ns = -1
        state.fates[place].requests = 0.0
    state.fates[place].reason = reason


@kernel
def see_user(state: PoolState, key: np.uint64, now_ns: int, policy: CachePolicy) -> tuple[int, int]:
    """Note a sighting; returns (nanoseconds since the one before or -1, remembered reason or cold)."""
    place = hash_position(key, state.fates.shape[0] - 1)
    gap_ns = -1
    reason = REASON_COLD
    if state.fates[place].key == key:
        if state.fates[place].seen_ns >= 0:
            gap_ns = now_ns - state.fates[place].seen_ns
        reason = state.fates[place].reason
    else:
        state.fates[place].key = key
        state.fates[place].requests = 0.0
        state.fates[place].reason = REASON_COLD
    state.fates[place].requests = request_count(state, key, now_ns, policy) + 1.0
    state.fates[place].seen_ns = now_ns
    return gap_ns, reason


@kernel
def request_count(state: PoolState, key: np.uint64, now_ns: int, policy: CachePolicy) -> float:
    """Requests of a user as far as remembered, each counting half as much after every half-life."""
    place = hash_position(key, state.fates.shape[0] - 1)
    seen_ns = state.fates[place].seen_ns
    if state.fates[place].key != key or seen_ns < 0:
        return 0.0
    return float(state.fates[place].requests * 0.5 ** ((now_ns - seen_ns) / policy.kv_half_life_ns))


@kernel
def admits(state: PoolState, policy: CachePolicy, now_ns: int, key: np.uint64, gap_ns: int, pages: int, ms_saved_per_page: float) -> bool:
    """Whether a prefix of `pages` that is not resident gets in, `gap_ns` after its user's last request (-1: never seen)."""
    if policy.kv_admission == _EVERYONE or policy.kv_admission == _PROBATION:
        return True
    if state.counters[_KV_FREE_PAGES] >= pages:  # nothing gives way
        return True
    if policy.kv_admission == _SECOND_REFERENCE:
        return bool(0 <= gap_ns <= policy.kv_window_ns)
    victim = victim_entry(state)
    if victim == -1:
        return False
    requests = request_count(state, key, now_ns, policy)
    if policy.kv_admission == _FREQUENCY:
        return requests > request_count(state, state.entries[victim].key, now_ns, policy)
    return bool(state.header[0].ageing + requests * ms_saved_per_page > priority_of(state, victim))


@kernel
def starting_uses(policy: CachePolicy, gap_ns: int) -> int:
    """Uses that a new prefix counts with, `gap_ns` after its user's last request anywhere (-1: never seen)."""
    known = policy.kv_admission == _PROBATION and 0 <= gap_ns <= policy.kv_window_ns
    return policy.kv_credit_uses if known else 0


@kernel
def truncate_entry(state: PoolState, entry: int, blocks: int, block_tokens: int) -> None:
    """Keep the first `blocks` pages of a prefix and free the rest; zero blocks delete the entry."""
    page = state.entries[entry].head
    last_kept = -1
    for _ in range(blocks):
        last_kept = page
        page = state.next_pages[page]
    freed = state.entries[entry].blocks - blocks
    if freed > 0:
        push_unused_chain(state, page, state.entries[entry].tail, freed)
        state.counters[_KV_PAGES_USED] -= freed
    if blocks > 0:
        state.next_pages[last_kept] = -1
        state.entries[entry].tail = last_kept
        state.entries[entry].blocks = blocks
        log_residency(state, state.entries[entry].key, blocks * block_tokens)
    else:
        _delete_entry(state, entry)


@kernel
def _delete_entry(state: PoolState, entry: int) -> None:
    """Forget an entry whose pages are free again."""
    key = state.entries[entry].key
    _index_remove(state, key)
    log_residency(state, key, 0)
    position = state.entries[entry].position
    last = state.counters[_ENTRIES_LIVE] - 1
    moved = state.lists[last].entry
    state.lists[position].entry = moved
    state.priorities[position] = state.priorities[last]
    state.entries[moved].position = position
    state.lists[last].entry = -1
    state.counters[_ENTRIES_LIVE] = last
    state.entries[entry].key = 0
    state.entries[entry].head = -1
    state.entries[entry].tail = -1
    state.entries[entry].blocks = 0
    state.entries[entry].position = -1
    state.entries[entry].next_free = state.counters[_ENTRY_FREE_HEAD]
    state.counters[_ENTRY_FREE_HEAD] = entry


@kernel
def new_entry(state: PoolState, key: np.uint64, uses: int = 0) -> int:
    """An empty entry for a user that counts as used so often; -1 when all are taken."""
    entry = state.counters[_ENTRY_FREE_HEAD]
    if entry == -1:
        return -1
    state.counters[_ENTRY_FREE_HEAD] = state.entries[entry].next_free
    position = state.counters[_ENTRIES_LIVE]
    state.lists[position].entry = entry
    state.counters[_ENTRIES_LIVE] = position + 1
    state.entries[entry].key = key
    state.entries[entry].model_version = state.header[0].model_version
    state.entries[entry].feature_version = state.header[0].feature_version
    state.entries[entry].head = -1
    state.entries[entry].tail = -1
    state.entries[entry].blocks = 0
    state.entries[entry].pins = 0
    state.entries[entry].uses = uses
    state.priorities[position] = 0.0
    state.entries[entry].position = position
    _index_insert(state, key, entry)
    return int(entry)


@kernel
def void_all(state: PoolState, block_tokens: int, model_flips: int, feature_flips: int) -> None:
    """Another version of the model, of the feature schema, or of both: no prefix is found any more.

    Pages still being read go with their user's next request.
    """
    state.header[0].model_version += model_flips
    state.header[0].feature_version += feature_flips
    for position in range(state.counters[_ENTRIES_LIVE] - 1, -1, -1):
        entry = state.lists[position].entry
        remember_fate(state, state.entries[entry].key, REASON_VERSION)
        if state.entries[entry].pins == 0:
            truncate_entry(state, entry, 0, block_tokens)
        else:
            log_residency(state, state.entries[entry].key, 0)


@kernel
def priority_of(state: PoolState, entry: int) -> float:
    """GreedyDual value of a live entry."""
    return float(state.priorities[state.entries[entry].position])


@kernel
def victim_entry(state: PoolState) -> int:
    """Unpinned entry with the lowest priority (the older one among equals), -1 when all are pinned."""
    victim, lowest, oldest_ns = -1, np.inf, np.int64(0)
    for position in range(state.counters[_ENTRIES_LIVE]):
        priority = state.priorities[position]
        if priority > lowest:  # most are, and need no further look
            continue
        entry = state.lists[position].entry
        last_ns = state.entries[entry].last_ns
        if state.entries[entry].pins > 0 or (victim != -1 and priority == lowest and last_ns >= oldest_ns):
            continue
        victim, lowest, oldest_ns = entry, priority, last_ns
    return victim


@kernel
def evict_one(state: PoolState, block_tokens: int, by_shrink: bool) -> bool:
    """Evict the least valuable unpinned prefix; False when there is none."""
    entry = victim_entry(state)
    if entry == -1:
        return False
    state.header[0].ageing = max(state.header[0].ageing, priority_of(state, entry))
    if by_shrink:
        remember_fate(state, state.entries[entry].key, REASON_SHRINK)
        state.counters[_KV_EVICTED_SHRINK] += 1
    else:
        remember_fate(state, state.entries[entry].key, REASON_PRESSURE)
        state.counters[_KV_EVICTED_PRESSURE] += 1
    truncate_entry(state, entry, 0, block_tokens)
    return True


@kernel
def touch_entry(state: PoolState, entry: int, now_ns: int, ms_saved_per_page: float, policy: CachePolicy) -> None:
    """Book a use and set the priority for the next eviction."""
    state.entries[entry].last_ns = now_ns
    if policy.kv_recency_only:
        state.priorities[state.entries[entry].position] = float(now_ns)
        return
    if state.entries[entry].uses < policy.kv_uses_max:
        state.entries[entry].uses += 1
    state.priorities[state.entries[entry].position] = state.header[0].ageing + state.entries[entry].uses * ms_saved_per_page


@kernel
def matching_blocks(state: PoolState, entry: int, hashes: NDArray[np.uint64]) -> int:
    """Blocks of the stored prefix that equal the request's history; none if another version of model or features wrote it."""
    if state.entries[entry].model_version != state.header[0].model_version:
        return 0
    if state.entries[entry].feature_version != state.header[0].feature_version:
        return 0
    held = state.entries[entry].blocks
    if 0 < held <= hashes.shape[0] and state.page_hashes[state.entries[entry].tail] == hashes[held - 1]:
        return int(held)  # a hash is that of the whole prefix up to its block: what is equal at the end is equal all along
    page = state.entries[entry].head
    blocks = 0
    while page != -1 and blocks < hashes.shape[0] and state.page_hashes[page] == hashes[blocks]:
        blocks += 1
        page = state.next_pages[page]
    return blocks


@kernel
def list_pages(state: PoolState, entry: int, blocks: int, pages_out: NDArray[np.int32]) -> None:
    """Write the first `blocks` pages of a prefix, in order; as many as there is room for, as a simulation reads none."""
    page = state.entries[entry].head
    for block in range(min(blocks, pages_out.shape[0])):
        pages_out[block] = page
        page = state.next_pages[page]


@kernel
def append_blocks(state: PoolState, entry: int, hashes: NDArray[np.uint64], block_tokens: int, pages_out: NDArray[np.int32]) -> int:
    """Grow a prefix to cover all `hashes`, evicting others as needed; returns pages written to `pages_out`.

    Stops early when every other prefix is pinned or KV has no page left: a shorter prefix is still useful.
    """
    written = 0
    wanted = hashes.shape[0] - state.entries[entry].blocks
    while written < wanted:
        pages = min(wanted - written, state.counters[_KV_FREE_PAGES])
        if pages > 0:
            _append_unused(state, entry, hashes, pages_out[written : written + pages])
            written += pages
        elif not evict_one(state, block_tokens, False):
            break
    return written


@kernel
def _append_unused(state: PoolState, entry: int, hashes: NDArray[np.uint64], pages_out: NDArray[np.int32]) -> None:
    """Grow a prefix by as many unused pages as there is room for in `pages_out`."""
    pop_unused_chain(state, pages_out)
    held, pages = state.entries[entry].blocks, pages_out.shape[0]
    for place in range(pages):
        state.page_hashes[pages_out[place]] = hashes[held + place]
    if held == 0:
        state.entries[entry].head = pages_out[0]
    else:
        state.next_pages[state.entries[entry].tail] = pages_out[0]
    state.entries[entry].tail = pages_out[pages - 1]
    state.entries[entry].blocks = held + pages
    state.counters[_KV_PAGES_USED] += pages
