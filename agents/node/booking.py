"""Booking one micro-batch: prefixes first, then the rows that the uncached part needs.

Two kernel calls per batch. They change the pool's state completely and at once; the device then
follows the plan in booking order, so a plan may reuse what an earlier plan gave up.

Rows are booked in passes over the whole batch, each a short loop whose memory accesses do not wait for each
other: list, look into the index, confirm and number, ask the doorkeeper, place, re-index. A row looked up
alone costs several cache misses one after the other; in a batch they overlap.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.caches import emb, kv
from agents.caches.policy import CachePolicy
from agents.node.batch import MissReason
from agents.numerics.jit import kernel, prefetch
from agents.pool.state import NO_ROW, TABLES_MAX, Counter, PoolState, power_of_two_at_least

_KV_REQUESTS = int(Counter.KV_REQUESTS)
_KV_HITS = int(Counter.KV_HITS)
_KV_TOKENS_WANTED = int(Counter.KV_TOKENS_WANTED)
_KV_TOKENS_REUSED = int(Counter.KV_TOKENS_REUSED)
_EMB_LOOKUPS = int(Counter.EMB_LOOKUPS)
_EMB_HITS = int(Counter.EMB_HITS)
_EMB_INSERTS = int(Counter.EMB_INSERTS)
_FRESH_PAGES = int(Counter.FRESH_PAGES)
_EMB_EVICTED_PRESSURE = int(Counter.EMB_EVICTED_PRESSURE)

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
def book_prefix(
    state: PoolState,
    policy: CachePolicy,
    now_ns: int,
    block_tokens: int,
    recompute_ms: float,
    key: np.uint64,
    hashes: NDArray[np.uint64],
    reuse_gap_ns: int,
    resident_elsewhere: bool,
    read_pages: NDArray[np.int32],
    write_pages: NDArray[np.int32],
) -> tuple[int, int, int, int]:
    """Look up, admit and extend one prefix; returns (blocks reused, miss reason, entry pinned or -1, blocks to write).

    `hashes` are the history's full blocks; the last two arguments are outputs with room for as many pages.
    `recompute_ms` is what the history would cost without any prefix. A key of zero is nobody: never cached.
    """
    if key == 0:
        return 0, _COLD, -1, 0
    own_gap_ns, known_reason = kv.see_user(state, key, now_ns, policy)
    gap_ns = _shorter_gap(reuse_gap_ns, own_gap_ns)
    entry = kv.find_entry(state, key)
    pages = max(hashes.shape[0], 1)
    may_write = entry != -1 or kv.admits(state, policy, now_ns, key, gap_ns, pages, recompute_ms / pages)
    matched = 0
    if entry != -1:
        matched = kv.matching_blocks(state, entry, hashes)
        if matched < state.entries[entry].blocks and matched < hashes.shape[0]:
            if state.entries[entry].pins > 0:
                may_write = False  # a batch in flight still needs the old prefix
            else:
                if matched == 0:
                    known_reason = _VERSION
                kv.truncate_entry(state, entry, matched, block_tokens)
                if matched == 0:
                    entry = -1
    reason = _HIT if matched > 0 else _miss_reason(known_reason, gap_ns, resident_elsewhere)
    if matched > 0:
        kv.list_pages(state, entry, matched, read_pages)
        state.entries[entry].pins += 1
    written = 0
    if may_write and hashes.shape[0] > 0:
        if entry == -1:
            entry = kv.new_entry(state, key, kv.starting_uses(policy, gap_ns))
        if entry != -1:
            written = _extend(state, entry, matched > 0, hashes, block_tokens, write_pages)
            if state.entries[entry].blocks == 0:
                kv.truncate_entry(state, entry, 0, block_tokens)
                entry = -1
    elif matched == 0:
        entry = -1
    if entry != -1:
        kv.touch_entry(state, entry, now_ns, recompute_ms / state.entries[entry].blocks, policy)
    return matched, reason, entry, written


@kernel
def _extend(
    state: PoolState, entry: int, pinned: bool, hashes: NDArray[np.uint64], block_tokens: int, write_pages: NDArray[np.int32]
) -> int:
    """Append the blocks that are missing; the entry is pinned afterwards unless it stayed empty."""
    if not pinned:
        state.entries[entry].pins += 1
    written = kv.append_blocks(state, entry, hashes, block_tokens, write_pages)
    if state.entries[entry].blocks == 0:
        state.entries[entry].pins -= 1
    elif written > 0:
        kv.log_residency(state, state.entries[entry].key, state.entries[entry].blocks * block_tokens)
    return written


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
    """Book the prefix of every request of a batch.

    The last seven arguments are outputs: per request [B] or [B + 1], pages sized by the total of full blocks.
    `entries[i]` is -1 where the request neither reads nor writes KV.
    """
    read = 0
    written = 0
    read_offsets[0] = 0
    write_offsets[0] = 0
    for request in range(user_keys.shape[0]):
        tokens = history_tokens[request]
        matched, reason, entry, added = book_prefix(
            state,
            policy,
            now_ns,
            block_tokens,
            ms_per_token * tokens + ms_per_token_squared * tokens * tokens,
            user_keys[request],
            block_hashes[block_offsets[request] : block_offsets[request + 1]],
            reuse_gap_ns[request],
            resident_elsewhere[request],
            read_pages[read:],
            write_pages[written:],
        )
        cached_tokens[request] = matched * block_tokens
        miss_reasons[request] = reason
        entries[request] = entry
        read += matched
        written += added
        read_offsets[request + 1] = read
        write_offsets[request + 1] = written
        state.counters[_KV_REQUESTS] += 1
        state.counters[_KV_HITS] += matched > 0
        state.counters[_KV_TOKENS_WANTED] += tokens
        state.counters[_KV_TOKENS_REUSED] += matched * block_tokens


# What one batch needs beside the pool: a table that numbers missing rows once, and what gave way to them.
SCRATCH = np.dtype([("victim", "i8"), ("position", "i4"), ("place", "i4")], align=True)


def new_scratch(uses_max: int) -> NDArray[Any]:
    """Scratch for batches of up to `uses_max` row uses; any number of pools may share it, one batch at a time."""
    scratch: NDArray[Any] = np.zeros(power_of_two_at_least(2 * uses_max), SCRATCH)
    scratch["position"] = -1
    return scratch


CHUNK_USES = 512  # uses found before they are numbered: their cache lines stay in the first two levels


@kernel
def book_rows(
    state: PoolState,
    policy: CachePolicy,
    rows_per_page: int,
    history_rows: NDArray[np.int64],
    history_offsets: NDArray[np.int64],
    history_tokens: NDArray[np.int64],
    candidate_rows: NDArray[np.int64],
    candidate_offsets: NDArray[np.int64],
    cached_tokens: NDArray[np.int64],
    scratch: NDArray[np.void],
    rows: NDArray[np.int64],
    row_slots: NDArray[np.int32],
    row_index: NDArray[np.int32],
    row_offsets: NDArray[np.int64],
    missing: NDArray[np.int32],
    insert_slots: NDArray[np.int32],
) -> tuple[int, int]:
    """Look every needed row up once per batch, admit and place the missing; returns (U unique, M missing).

    A history of `history_tokens[i]` tokens lists all of its rows, or an even sample of them. The last six arguments
    are outputs; those per row have room for every use.
    """
    uses = _list_uses(history_rows, history_offsets, history_tokens, candidate_rows, candidate_offsets, cached_tokens, rows, row_offsets)
    unique = 0
    misses = 0
    for first in range(0, uses, CHUNK_USES):
        end = min(first + CHUNK_USES, uses)
        _find_rows(state, first, end, rows, row_index)
        unique, pending = _number_hits(state, policy, first, end, unique, misses, scratch, rows, row_slots, row_index, missing)
        unique, misses = _number_misses(state, unique, misses, pending, scratch, rows, row_slots, row_index, missing)
    for miss in range(misses):
        scratch[scratch[miss].place].position = -1
    _count_by_table(state, unique, rows, row_slots)
    for miss in range(misses):
        insert_slots[miss] = 0 if emb.admits(state, rows[missing[miss]], rows_per_page, policy) else -1
    _place_rows(state, policy, rows_per_page, unique, misses, scratch, rows, missing, insert_slots)
    state.counters[_EMB_LOOKUPS] += unique
    state.counters[_EMB_HITS] += unique - misses
    return unique, misses


@kernel
def _list_uses(
    history_rows: NDArray[np.int64],
    history_offsets: NDArray[np.int64],
    history_tokens: NDArray[np.int64],
    candidate_rows: NDArray[np.int64],
    candidate_offsets: NDArray[np.int64],
    cached_tokens: NDArray[np.int64],
    rows: NDArray[np.int64],
    row_offsets: NDArray[np.int64],
) -> int:
    """Write the row ids of every use: of the tokens beyond the cached prefix, then of the candidates."""
    uses = 0
    row_offsets[0] = 0
    for request in range(cached_tokens.shape[0]):
        for position in range(
            first_new_row(history_offsets[request], history_offsets[request + 1], history_tokens[request], cached_tokens[request]),
            history_offsets[request + 1],
        ):
            rows[uses] = history_rows[position]
            uses += 1
        for position in range(candidate_offsets[request], candidate_offsets[request + 1]):
            rows[uses] = candidate_rows[position]
            uses += 1
        row_offsets[request + 1] = uses
    return uses


@kernel
def first_new_row(first: int, end: int, tokens: int, cached_tokens: int) -> int:
    """Position of the first listed row beyond the cached prefix; rows are spread evenly over the tokens."""
    if tokens == 0:
        return first
    return first + (2 * (end - first) * cached_tokens + tokens) // (2 * tokens)


@kernel
def _find_rows(state: PoolState, first: int, end: int, rows: NDArray[np.int64], row_index: NDArray[np.int32]) -> None:
    """Write the slot of every use, -1 where its row is missing."""
    for use in range(first, end):
        row_index[use] = emb.expect_row(state, rows[use])
    for use in range(first, end):
        row_index[use] = emb.probable_slot(state, rows[use], row_index[use])
    for use in range(first, end):
        row_index[use] = emb.confirmed_slot(state, rows[use], row_index[use])


@kernel
def _number_hits(
    state: PoolState,
    policy: CachePolicy,
    first: int,
    end: int,
    unique: int,
    misses: int,
    scratch: NDArray[np.void],
    rows: NDArray[np.int64],
    row_slots: NDArray[np.int32],
    row_index: NDArray[np.int32],
    missing: NDArray[np.int32],
) -> tuple[int, int]:
    """Turn the found uses into distinct rows, in place: `rows` keeps each once and `row_index` tells where.

    Missing uses are listed, not numbered. Whether a row is new to the batch is decided without a branch:
    nobody could predict it. Returns (distinct rows so far, end of the list of missing uses).
    """
    pending = misses
    for use in range(first, end):
        row = rows[use]
        slot = row_index[use]
        if slot == -1:
            missing[pending] = use
            scratch[pending].victim = row
            pending += 1
            prefetch(scratch, emb.row_tag(row) & (scratch.shape[0] - 1))
            continue
        mark = state.slots[slot].mark
        known = mark if mark < unique else 0
        is_new = int(mark >= unique) | int(rows[known] != row)
        position = unique if is_new else known
        rows[unique] = row
        row_slots[unique] = slot
        row_index[use] = position
        state.slots[slot].mark = position
        state.slots[slot].uses += is_new & int(state.slots[slot].uses < policy.clock_uses_max)
        unique += is_new
    return unique, pending


@kernel
def _number_misses(
    state: PoolState,
    unique: int,
    misses: int,
    pending: int,
    scratch: NDArray[np.void],
    rows: NDArray[np.int64],
    row_slots: NDArray[np.int32],
    row_index: NDArray[np.int32],
    missing: NDArray[np.int32],
) -> tuple[int, int]:
    """Number the listed missing uses; `missing` keeps each row once. Returns (distinct rows, missing rows) so far."""
    mask = scratch.shape[0] - 1
    for listed in range(misses, pending):
        use = missing[listed]
        row = scratch[listed].victim
        place = emb.row_tag(row) & mask
        while scratch[place].position != -1 and rows[scratch[place].position] != row:
            place = (place + 1) & mask
        if scratch[place].position == -1:
            scratch[place].position = unique
            scratch[misses].place = place
            missing[misses] = unique
            rows[unique] = row
            row_slots[unique] = -1
            emb.expect_knock(state, row)
            misses += 1
            unique += 1
        row_index[use] = scratch[place].position
    return unique, misses


@kernel
def _count_by_table(state: PoolState, unique: int, rows: NDArray[np.int64], row_slots: NDArray[np.int32]) -> None:
    """Look-ups and hits per embedding table; rows of one table stand together, so counts are carried along."""
    table, lookups, hits = 0, 0, 0
    first, end = state.tables[0].first_row, state.tables[1].first_row
    for position in range(unique):
        row = rows[position]
        if row < first or row >= end:
            state.tables[table].lookups += lookups
            state.tables[table].hits += hits
            table, lookups, hits = _table_of(state, row), 0, 0
            first = state.tables[table].first_row
            end = state.tables[table + 1].first_row if table + 1 < TABLES_MAX else NO_ROW
        lookups += 1
        hits += row_slots[position] >= 0
    state.tables[table].lookups += lookups
    state.tables[table].hits += hits


@kernel
def _table_of(state: PoolState, row: int) -> int:
    """The last table that begins at a row or before it."""
    table = 0
    for later in range(1, TABLES_MAX):
        if state.tables[later].first_row <= row:
            table = later
    return table


@kernel
def _place_rows(
    state: PoolState,
    policy: CachePolicy,
    rows_per_page: int,
    unique: int,
    misses: int,
    scratch: NDArray[np.void],
    rows: NDArray[np.int64],
    missing: NDArray[np.int32],
    insert_slots: NDArray[np.int32],
) -> None:
    """Find a slot for every admitted row, then make the index say so. `insert_slots` is -1 where none was admitted."""
    steps_max = emb.sweep_steps(state, rows_per_page, policy)
    room = True
    for miss in range(misses):
        if insert_slots[miss] == -1:
            continue
        slot = emb.fresh_slot(state, rows_per_page) if state.counters[_FRESH_PAGES] > 0 else -1
        if slot == -1 and room:
            slot = emb.victim_slot(state, rows_per_page, steps_max, rows, unique)
            room = slot != -1
        insert_slots[miss] = slot
        if slot != -1:
            position = missing[miss]
            scratch[miss].victim = emb.occupy(state, slot, rows[position], emb.NEW_USES, position, rows_per_page, _EMB_EVICTED_PRESSURE)
            state.counters[_EMB_INSERTS] += 1
    for miss in range(misses):
        if insert_slots[miss] != -1:
            emb.reindex(state, insert_slots[miss], scratch[miss].victim)


@kernel
def unpin(state: PoolState, entries: NDArray[np.int32]) -> None:
    """The batch is done with its prefixes."""
    for request in range(entries.shape[0]):
        if entries[request] != -1:
            state.entries[entries[request]].pins -= 1


@kernel
def undo_batch(
    state: PoolState,
    block_tokens: int,
    rows_per_page: int,
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
        state.entries[entry].pins -= 1
        blocks = cached_tokens[request] // block_tokens
        if state.entries[entry].pins == 0 and state.entries[entry].blocks > blocks:
            kv.truncate_entry(state, entry, blocks, block_tokens)
    for miss in range(missing.shape[0]):
        if insert_slots[miss] >= 0:
            slot = emb.find_slot(state, rows[missing[miss]])
            if slot >= 0:
                emb.drop_slot(state, slot, rows_per_page)
