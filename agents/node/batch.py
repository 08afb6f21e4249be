"""What goes into a node's brain with a batch, and what comes out: flat arrays with offsets.

Shapes: B requests, U unique rows, M missing rows. Jagged parts are concatenated; part i of
`x` is `x[x_offsets[i]:x_offsets[i + 1]]`.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class MissReason(IntEnum):
    """Why a user's prefix was not in KV. `HIT` covers partial hits: some prefix was reused."""

    HIT = 0
    COLD = 1
    NOT_ADMITTED = 2
    EVICTED_BY_PRESSURE = 3
    EVICTED_BY_SHRINK = 4
    INVALIDATED_BY_VERSION = 5
    ROUTED_AWAY = 6


class Batch(NamedTuple):
    """One micro-batch as arrays; users are unique inside a batch (the engine sees to it)."""

    user_keys: NDArray[np.uint64]  # [B]
    history_tokens: NDArray[np.int64]  # [B]
    block_hashes: NDArray[np.uint64]  # [sum of full blocks], see numerics.prefix
    block_offsets: NDArray[np.int64]  # [B + 1]
    history_rows: NDArray[np.int64]  # [sum of history_tokens]
    history_offsets: NDArray[np.int64]  # [B + 1]
    candidate_rows: NDArray[np.int64]  # [sum of candidates]
    candidate_offsets: NDArray[np.int64]  # [B + 1]
    reuse_gap_ns: NDArray[np.int64]  # [B] since the cluster last saw the user; -1: never seen
    resident_elsewhere: NDArray[np.bool_]  # [B] the router knew a copy on another node


class BatchPlan(NamedTuple):
    """What the device must do for a batch, in this order: gather hits, fetch and insert misses, attend.

    For request i the model needs the rows of its new tokens (`history_tokens - cached_tokens`) and
    then of its candidates: `row_index[row_offsets[i]:row_offsets[i + 1]]` points into the U
    gathered rows, new tokens first.
    """

    cached_tokens: NDArray[np.int64]  # [B] reused prefix, a multiple of the block
    miss_reasons: NDArray[np.int8]  # [B] a MissReason each
    read_pages: NDArray[np.int32]  # pages of the reused prefixes, in order
    read_offsets: NDArray[np.int64]  # [B + 1]
    write_pages: NDArray[np.int32]  # pages to receive the new full blocks after the prefix; may be fewer than blocks
    write_offsets: NDArray[np.int64]  # [B + 1]
    rows: NDArray[np.int64]  # [U] distinct row ids
    row_slots: NDArray[np.int32]  # [U] arena slot of a hit, -1 for a miss
    row_index: NDArray[np.int32]  # [sum of new tokens + candidates] into rows
    row_offsets: NDArray[np.int64]  # [B + 1]
    missing: NDArray[np.int32]  # [M] positions in rows that are misses
    insert_slots: NDArray[np.int32]  # [M] slot that keeps the missing row, -1: use it and forget it


class StageTimings(NamedTuple):
    """Measured milliseconds of one executed batch; inputs of the estimators, recorded in the journal."""

    queue_ms: NDArray[np.float64]  # [B]
    emb_ms: float
    kv_ms: float
    compute_ms: NDArray[np.float64]  # [B]
    service_ms: float  # whole batch, without the queue


class Moves(NamedTuple):
    """Device work of one tick: row copies inside the arena, in order."""

    source_slots: NDArray[np.int32]
    target_slots: NDArray[np.int32]
