"""Booking one micro-batch: prefixes first, then the rows that the uncached part needs.

Two kernel calls per batch. They change the pool's state completely and at once; the device then
follows the plan in booking order, so a plan may reuse what an earlier plan gave up.
"""

import numpy as np
from numpy.typing import NDArray

from agents.caches import emb, kv
from agents.caches.policy import CachePolicy
from agents.node.batch import MissReason
from agents.numerics.jit import kernel
from agents.pool.state import Counter, PoolState

_KV_REQUESTS = int(Counter.KV_REQUESTS)
_KV_HITS = int(Counter.KV_HITS)
_KV_TOKENS_WANTED = int(Counter.KV_TOKENS_WANTED)
_KV_TOKENS_REUSED = int(Counter.KV_TOKENS_REUSED)
_EMB_LOOKUPS = int(Counter.EMB_LOOKUPS)
_EMB_HITS = int(Counter.EMB_HITS)
_EMB_INSERTS = int(Counter.EMB_INSERTS)

_HIT = int(MissReason.HIT)
_COLD = int(MissReason.COLD)
_NOT_ADMITTED = int(MissReason.NOT_ADMITTED)
_VERSION = int(MissReason.INVALIDATED_BY_VERSION)
_ROUTED_AWAY = int(MissReason.ROUTED_AWAY)
_PRESSURE = int(MissReason.EVICTED_BY_PRESSURE)
_SHRINK = int(MissReason.EVICTED_BY_SHRINK)


@kernel
def _miss_reason(known_reason: int, gap_ns: int, resident_elsewhere: bool) -> int:
    """The most telling reason: a copy elsewhere, then what this node did, then that nobody asked before."""
    if resident_elsewhere:
        return _ROUTED_AWAY
    if known_reason in (_PRESSURE, _SHRINK, _VERSION):
        return known_reason
    return _COLD if gap_ns < 0 else _NOT_ADMITTED


@kernel
def _shorter_gap(gap_ns: int, other_ns: int) -> int:
    """The shorter of two gaps, where -1 is unknown."""
    if gap_ns < 0:
        return other_ns
    if other_ns < 0:
        return gap_ns
    return min(gap_ns, other_ns)


@kernel
def book_prefixes(
    state: PoolState,
    policy: CachePolicy,
    now_ns: int,
    block_tokens: int,
    ms_per_token: float,
    ms_per_token_squared: float,
    user_keys: NDArray[np.uint64],
    history_tokens: NDArray[np.int64],
    block_hashes: NDArray[np.uint64],
    block_offsets: NDArray[np.int64],
    reuse_gap_ns: NDArray[np.int64],
    resident_elsewhere: NDArray[np.bool_],
    cached_tokens: NDArray[np.int64],
    miss_reasons: NDArray[np.int8],
    entries: NDArray[np.int32],
    read_pages: NDArray[np.int32],
    read_offsets: NDArray[np.int64],
    write_pages: NDArray[np.int32],
    write_offsets: NDArray[np.int64],
) -> None:
    """Look up, admit and extend the prefix of every request; pins the entries it uses.

    The last ten arguments are outputs: per request [B] or [B + 1], pages sized by the total of full blocks.
    `entries[i]` is -1 where the request neither reads nor writes KV. A user key of zero is nobody: never cached.
    """
    read = 0
    written = 0
    read_offsets[0] = 0
    write_offsets[0] = 0
    for request in range(user_keys.shape[0]):
        key = user_keys[request]
        hashes = block_hashes[block_offsets[request] : block_offsets[request + 1]]
        state.counters[_KV_REQUESTS] += 1
        state.counters[_KV_TOKENS_WANTED] += history_tokens[request]
        entries[request] = -1
        cached_tokens[request] = 0
        miss_reasons[request] = _COLD
        if key != 0:
            own_gap_ns, known_reason = kv.see_user(state, key, now_ns)
            gap_ns = _shorter_gap(reuse_gap_ns[request], own_gap_ns)
            entry = kv.find_entry(state, key)
            may_write = policy.admit_all or entry != -1 or (gap_ns >= 0 and gap_ns <= policy.kv_window_ns)
            matched = 0
            if entry != -1:
                matched = kv.matching_blocks(state, entry, hashes)
                if matched < state.entry_blocks[entry] and matched < hashes.shape[0]:
                    if state.entry_pins[entry] > 0:
                        may_write = False  # a batch in flight still needs the old prefix
                    else:
                        if matched == 0:
                            known_reason = _VERSION
                        kv.truncate_entry(state, entry, matched, block_tokens)
                        if matched == 0:
                            entry = -1
            if matched == 0:
                miss_reasons[request] = _miss_reason(known_reason, gap_ns, resident_elsewhere[request])
            else:
                miss_reasons[request] = _HIT
                state.counters[_KV_HITS] += 1
                state.counters[_KV_TOKENS_REUSED] += matched * block_tokens
                page = state.entry_head[entry]
                for _ in range(matched):
                    read_pages[read] = page
                    read += 1
                    page = state.next[page]
            cached_tokens[request] = matched * block_tokens
            if may_write and hashes.shape[0] > 0:
                if entry == -1:
                    entry = kv.new_entry(state, key)
                if entry != -1:
                    state.entry_pins[entry] += 1
                    added = kv.append_blocks(state, entry, hashes, block_tokens, write_pages[written:])
                    written += added
                    if state.entry_blocks[entry] == 0:
                        state.entry_pins[entry] -= 1
                        kv.truncate_entry(state, entry, 0, block_tokens)
                        entry = -1
                    else:
                        if added > 0:
                            kv.log_residency(state, key, state.entry_blocks[entry] * block_tokens)
                        entries[request] = entry
            elif matched > 0:
                state.entry_pins[entry] += 1
                entries[request] = entry
            if entries[request] != -1:
                tokens = history_tokens[request]
                recompute_ms = ms_per_token * tokens + ms_per_token_squared * tokens * tokens
                kv.touch_entry(state, entries[request], now_ns, recompute_ms / state.entry_blocks[entries[request]], policy)
        read_offsets[request + 1] = read
        write_offsets[request + 1] = written


@kernel
def book_rows(
    state: PoolState,
    policy: CachePolicy,
    now_ns: int,
    rows_per_page: int,
    serial: int,
    history_rows: NDArray[np.int64],
    history_offsets: NDArray[np.int64],
    candidate_rows: NDArray[np.int64],
    candidate_offsets: NDArray[np.int64],
    cached_tokens: NDArray[np.int64],
    scratch_serial: NDArray[np.int64],
    scratch_row: NDArray[np.int64],
    scratch_position: NDArray[np.int32],
    rows: NDArray[np.int64],
    row_slots: NDArray[np.int32],
    row_index: NDArray[np.int32],
    row_offsets: NDArray[np.int64],
    missing: NDArray[np.int32],
    insert_slots: NDArray[np.int32],
) -> tuple[int, int]:
    """Look every needed row up once per batch, admit and place the missing; returns (U unique, M missing).

    `scratch_*` is a table of a power of two places, at least twice the uses; `serial` must differ per call.
    """
    mask = scratch_row.shape[0] - 1
    unique = 0
    uses = 0
    row_offsets[0] = 0
    for request in range(cached_tokens.shape[0]):
        new_first = history_offsets[request] + cached_tokens[request]
        new_tokens = history_offsets[request + 1] - new_first
        total = new_tokens + candidate_offsets[request + 1] - candidate_offsets[request]
        for position in range(total):
            if position < new_tokens:
                row = history_rows[new_first + position]
            else:
                row = candidate_rows[candidate_offsets[request] + position - new_tokens]
            place = emb.row_position(row, mask)
            while scratch_serial[place] == serial and scratch_row[place] != row:
                place = (place + 1) & mask
            if scratch_serial[place] != serial:
                scratch_serial[place] = serial
                scratch_row[place] = row
                scratch_position[place] = unique
                rows[unique] = row
                unique += 1
            row_index[uses] = scratch_position[place]
            uses += 1
        row_offsets[request + 1] = uses
    misses = 0
    for position in range(unique):
        slot = emb.find_slot(state, rows[position])
        row_slots[position] = slot
        if slot >= 0:
            emb.touch_slot(state, slot, policy)
        else:
            missing[misses] = position
            misses += 1
    for miss in range(misses):
        row = rows[missing[miss]]
        insert_slots[miss] = -1
        if emb.knock(state, row, now_ns, policy):
            slot = emb.take_slot(state, rows_per_page, policy)
            if slot >= 0:
                emb.put_row(state, slot, row, 0)
                emb.touch_slot(state, slot, policy)
                state.counters[_EMB_INSERTS] += 1
                insert_slots[miss] = slot
    for position in range(unique):
        if row_slots[position] >= 0:
            emb.settle_slot(state, row_slots[position])
    for miss in range(misses):
        if insert_slots[miss] >= 0:
            emb.settle_slot(state, insert_slots[miss])
    state.counters[_EMB_LOOKUPS] += unique
    state.counters[_EMB_HITS] += unique - misses
    return unique, misses


@kernel
def unpin(state: PoolState, entries: NDArray[np.int32]) -> None:
    """The batch is done with its prefixes."""
    for request in range(entries.shape[0]):
        if entries[request] != -1:
            state.entry_pins[entries[request]] -= 1


@kernel
def undo_batch(
    state: PoolState,
    block_tokens: int,
    entries: NDArray[np.int32],
    cached_tokens: NDArray[np.int64],
    rows: NDArray[np.int64],
    missing: NDArray[np.int32],
    insert_slots: NDArray[np.int32],
) -> None:
    """The device failed: forget blocks and rows that were booked but never written."""
    for request in range(entries.shape[0]):
        entry = entries[request]
        if entry == -1:
            continue
        state.entry_pins[entry] -= 1
        blocks = cached_tokens[request] // block_tokens
        if state.entry_pins[entry] == 0 and state.entry_blocks[entry] > blocks:
            kv.truncate_entry(state, entry, blocks, block_tokens)
    for miss in range(missing.shape[0]):
        if insert_slots[miss] >= 0:
            slot = emb.find_slot(state, rows[missing[miss]])
            if slot >= 0:
                emb.drop_slot(state, slot)
