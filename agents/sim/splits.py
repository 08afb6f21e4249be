"""Replays one node's requests under static splits of its pool, without queue, batches or controller.

The cheapest honest answer to "what would this split have cost": real caches, no emulated hit rates. Requests are
replayed once per ratio through two exact LRU lists, and priced by the product's cost model. Because a prefix that is missing also
looks up its history's rows, the two lists are replayed together: they do not add up otherwise.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.cost import Cost, prefill_ms, rows_ms
from agents.numerics.jit import kernel
from agents.profiles import Profile
from agents.workloads.blocks import RequestBlock

RATIOS = np.linspace(0.1, 0.9, 17)
NS_PER_MS = 1e6


class NodeStream(NamedTuple):
    """R requests of one node in order of time, users renumbered densely."""

    at_ns: NDArray[np.int64]  # [R]
    users: NDArray[np.int64]  # [R] 0..user_count-1
    tokens: NDArray[np.int64]  # [R]
    candidates: NDArray[np.int64]  # [R] unsampled
    block_hashes: NDArray[np.uint64]
    block_offsets: NDArray[np.int64]  # [R + 1]
    history_rows: NDArray[np.int64]
    history_offsets: NDArray[np.int64]  # [R + 1]
    candidate_rows: NDArray[np.int64]
    candidate_offsets: NDArray[np.int64]  # [R + 1]
    user_count: int
    row_count: int
    row_shift: int


class SplitCost(NamedTuple):
    """What each request cost at each of G ratios."""

    ratios: NDArray[np.float64]  # [G]
    service_ms: NDArray[np.float64]  # [G, R]
    missing_ratio: NDArray[np.float64]  # [G, R] of the rows looked up
    cached_ratio: NDArray[np.float64]  # [G, R] of the history's tokens


class _Lru(NamedTuple):
    """A recency list over dense ids; the last place is the list's ends."""

    newer: NDArray[np.int32]  # [ids + 1]
    older: NDArray[np.int32]  # [ids + 1]
    sizes: NDArray[np.int64]  # [ids + 1] 0: not resident; the last: their sum
    marks: NDArray[np.uint64]  # [ids] what identifies the resident content
    seen: NDArray[np.int64]  # [ids] last reference, resident or not: when in ns, or after how many misses


def node_stream(blocks: Iterable[RequestBlock], row_shift: int, node: int = 0, nodes: int = 1) -> NodeStream:
    """One node's part of a stream: the users whose key falls to it. `ValueError` if none does."""
    parts = [part for part in (of_node(block, node, nodes) for block in blocks) if part.at_ns.size]
    if not parts:
        raise ValueError("requests: none for this node")
    keys, users = np.unique(np.concatenate([part.user_keys for part in parts]), return_inverse=True)
    history, candidates = (np.concatenate([getattr(part, name) for part in parts]) for name in ("history_rows", "candidate_rows"))
    return NodeStream(
        at_ns=np.concatenate([part.at_ns for part in parts]),
        users=users.astype(np.int64),
        tokens=np.concatenate([part.history_tokens for part in parts]),
        candidates=np.concatenate([part.candidates for part in parts]),
        block_hashes=np.concatenate([part.block_hashes for part in parts]),
        block_offsets=_joined([part.block_offsets for part in parts]),
        history_rows=history,
        history_offsets=_joined([part.history_offsets for part in parts]),
        candidate_rows=candidates,
        candidate_offsets=_joined([part.candidate_offsets for part in parts]),
        user_count=int(keys.size),
        row_count=int(max(history.max(initial=-1), candidates.max(initial=-1))) + 1,
        row_shift=row_shift,
    )


def replay_splits(
    stream: NodeStream,
    profile: Profile,
    *,
    ratios: NDArray[np.float64] = RATIOS,
    window_ns: int = 0,
    recent_rows: NDArray[np.int64] | None = None,
) -> SplitCost:
    """Cost of every request at every ratio. With a `window_ns` users enter only at a request so soon after another, and rows at a
    miss that follows their last within as many misses as half a pool has rows.

    `recent_rows`, newest first, are what the row cache starts with; empty if not given.
    """
    requests = stream.at_ns.shape[0]
    door_rows = max(1, profile.pages * profile.rows_per_page >> (stream.row_shift + 1)) if window_ns else 0
    service, missing, cached = (np.zeros((ratios.shape[0], requests)) for _ in range(3))
    cost = Cost.of(profile.cost)
    for place, ratio in enumerate(ratios):
        row_capacity = round(ratio * profile.pages * profile.rows_per_page) >> stream.row_shift
        token_capacity = int((1.0 - ratio) * profile.pages) * profile.block_tokens
        rows, users = _empty_lru(stream.row_count), _empty_lru(stream.user_count)
        if recent_rows is not None:
            _start_with(rows, recent_rows, row_capacity)
        _replay(
            stream,
            cost,
            profile.block_tokens,
            row_capacity,
            token_capacity,
            window_ns,
            door_rows,
            rows,
            users,
            service[place],
            missing[place],
            cached[place],
        )
    return SplitCost(ratios, service, missing, cached)


def _empty_lru(ids: int) -> _Lru:
    ends = np.full(ids + 1, ids, np.int32)
    return _Lru(ends, ends.copy(), np.zeros(ids + 1, np.int64), np.zeros(ids, np.uint64), np.full(ids, -(1 << 62), np.int64))


@kernel
def _start_with(rows: _Lru, recent_rows: NDArray[np.int64], capacity: int) -> None:
    for place in range(min(capacity, recent_rows.shape[0]) - 1, -1, -1):
        if recent_rows[place] < rows.seen.shape[0]:
            _put(rows, recent_rows[place], 1, capacity)


@kernel
def _replay(
    stream: NodeStream,
    cost: Cost,
    block_tokens: int,
    row_capacity: int,
    token_capacity: int,
    window_ns: int,
    door_rows: int,
    rows: _Lru,
    users: _Lru,
    service_ms: NDArray[np.float64],
    missing_ratio: NDArray[np.float64],
    cached_ratio: NDArray[np.float64],
) -> None:
    scale = float(1 << stream.row_shift)
    misses = 0
    for request in range(stream.at_ns.shape[0]):
        tokens = stream.tokens[request]
        cached = _prefix(stream, request, block_tokens, token_capacity, window_ns, users)
        first, last = stream.history_offsets[request], stream.history_offsets[request + 1]
        first += (last - first) * cached // max(tokens, 1)
        looked_up = last - first + stream.candidate_offsets[request + 1] - stream.candidate_offsets[request]
        missing = 0
        for place in range(first, last):
            missing += _touch_row(rows, stream.history_rows[place], misses + missing, row_capacity, door_rows)
        for place in range(stream.candidate_offsets[request], stream.candidate_offsets[request + 1]):
            missing += _touch_row(rows, stream.candidate_rows[place], misses + missing, row_capacity, door_rows)
        misses += missing
        compute = cost.ms_fixed + prefill_ms(cost, float(tokens), float(cached)) + cost.ms_per_candidate * stream.candidates[request]
        service_ms[request] = compute + rows_ms(cost, looked_up * scale, missing * scale)
        missing_ratio[request] = missing / max(looked_up, 1)
        cached_ratio[request] = cached / max(tokens, 1)


@kernel
def _prefix(stream: NodeStream, request: int, block_tokens: int, capacity: int, window_ns: int, users: _Lru) -> int:
    """Tokens of the request found in KV; its prefix is kept afterwards if it may enter."""
    user, now_ns = stream.users[request], stream.at_ns[request]
    first, blocks = stream.block_offsets[request], stream.block_offsets[request + 1] - stream.block_offsets[request]
    held = users.sizes[user] // block_tokens
    known = held > 0 and held <= blocks and stream.block_hashes[first + held - 1] == users.marks[user]
    enters = held > 0 or window_ns == 0 or now_ns - users.seen[user] <= window_ns
    users.seen[user] = now_ns
    if enters and 0 < blocks * block_tokens <= capacity:
        _put(users, user, blocks * block_tokens, capacity)
        users.marks[user] = stream.block_hashes[first + blocks - 1]
    return int(held * block_tokens) if known else 0


@kernel
def _touch_row(rows: _Lru, row: int, misses: int, capacity: int, door_rows: int) -> int:
    """1 if the row was missing, as the next after so many misses; it is kept afterwards if it may enter."""
    missing = rows.sizes[row] == 0
    enters = not missing or door_rows == 0 or misses - rows.seen[row] <= door_rows
    if missing:
        rows.seen[row] = misses
    if enters and capacity > 0:
        _put(rows, row, 1, capacity)
    return 1 if missing else 0


@kernel
def _put(lru: _Lru, entry: int, size: int, capacity: int) -> None:
    """Make an entry the newest, with this size, and drop the oldest others until all fit."""
    ends = lru.sizes.shape[0] - 1
    if lru.sizes[entry] > 0:
        _unlink(lru, entry)
    lru.sizes[ends] += size
    lru.sizes[entry] = size
    newest = lru.older[ends]
    lru.older[entry], lru.newer[entry] = newest, ends
    lru.newer[newest], lru.older[ends] = entry, entry
    while lru.sizes[ends] > capacity:
        _unlink(lru, lru.newer[ends])


@kernel
def _unlink(lru: _Lru, entry: int) -> None:
    ends = lru.sizes.shape[0] - 1
    lru.sizes[ends] -= lru.sizes[entry]
    lru.sizes[entry] = 0
    newer, older = lru.newer[entry], lru.older[entry]
    lru.older[newer], lru.newer[older] = older, newer


def of_node(block: RequestBlock, node: int, nodes: int) -> RequestBlock:
    """The block's requests whose users fall to the node, by the high bits of their keys."""
    if nodes == 1:
        return block
    keep = ((block.user_keys >> np.uint64(32)) * np.uint64(nodes)) >> np.uint64(32) == node
    blocks, block_offsets = _picked(block.block_hashes, block.block_offsets, keep)
    history, history_offsets = _picked(block.history_rows, block.history_offsets, keep)
    candidates, candidate_offsets = _picked(block.candidate_rows, block.candidate_offsets, keep)
    return RequestBlock(
        block.at_ns[keep],
        block.user_keys[keep],
        block.history_tokens[keep],
        block.candidates[keep],
        blocks,
        block_offsets,
        history,
        history_offsets,
        candidates,
        candidate_offsets,
    )


def _picked(values: NDArray[np.generic], offsets: NDArray[np.int64], keep: NDArray[np.bool_]) -> tuple[Any, NDArray[np.int64]]:
    lengths = np.diff(offsets)
    return values[np.repeat(keep, lengths)], np.concatenate(([0], np.cumsum(lengths[keep])))


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(np.concatenate([np.diff(part) for part in parts]))))
