"""One request for the model and its result, and how requests become a batch. No I/O."""

from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.node.batch import Batch, MissReason
from agents.numerics.jit import bound_by_first_call
from agents.numerics.prefix import block_hashes
from agents.runtime.keys import UserKeys
from agents.runtime.oip import RankInputs

_NO_BLOCKS = np.empty(0, np.uint64)
_block_hashes = bound_by_first_call(block_hashes)  # of arrays that `oip` made, always of one type


class RankRequest(NamedTuple):
    """One validated request. `user_key` is never zero; a client without an id gets a key used once."""

    user_key: int
    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    block_hashes: NDArray[np.uint64]  # empty: nothing of it may be kept
    candidates: NDArray[np.int64]
    reuse_gap_ns: int = -1
    resident_elsewhere: bool = False
    deadline_ms: float | None = None


class RankResult(NamedTuple):
    """Scores of one request, where its time went, and what its prefix was worth."""

    scores: NDArray[np.float32]
    queue_ms: float
    emb_ms: float
    kv_ms: float
    compute_ms: float
    service_ms: float  # of the whole batch
    cached_blocks: int
    cacheable_blocks: int
    miss_reason: MissReason
    model_version: str  # that ranked it: not always the one now in force


def rank_request(
    inputs: RankInputs,
    keys: UserKeys,
    block_tokens: int,
    *,
    reuse_gap_ns: int = -1,
    resident_elsewhere: bool = False,
    deadline_ms: float | None = None,
) -> RankRequest:
    """The engine's view of a decoded request, with what a router knows of its user; a deadline goes before the client's own wish."""
    known = inputs.user_id is not None
    items, actions, timestamps = inputs.items, inputs.actions, inputs.timestamps
    return RankRequest(
        user_key=keys.key(inputs.user_id),
        items=items,
        actions=actions,
        timestamps=timestamps,
        # Without an id there is nobody to keep a prefix for: no blocks, so nothing is looked up or kept.
        block_hashes=_block_hashes(items, actions, timestamps, block_tokens) if known else _NO_BLOCKS,
        candidates=inputs.candidates,
        reuse_gap_ns=reuse_gap_ns,
        resident_elsewhere=resident_elsewhere,
        deadline_ms=inputs.timeout_ms if deadline_ms is None else deadline_ms,
    )


def batch_of(requests: list[RankRequest]) -> Batch:
    """Requests as the brain takes them: concatenated arrays with offsets."""
    return Batch(
        user_keys=np.array([request.user_key for request in requests], np.uint64),
        history_tokens=np.array([request.items.shape[0] for request in requests], np.int64),
        block_hashes=np.concatenate([request.block_hashes for request in requests]),
        block_offsets=_offsets([request.block_hashes.shape[0] for request in requests]),
        history_rows=np.concatenate([request.items for request in requests]),
        history_offsets=_offsets([request.items.shape[0] for request in requests]),
        candidate_rows=np.concatenate([request.candidates for request in requests]),
        candidate_offsets=_offsets([request.candidates.shape[0] for request in requests]),
        reuse_gap_ns=np.array([request.reuse_gap_ns for request in requests], np.int64),
        resident_elsewhere=np.array([request.resident_elsewhere for request in requests], np.bool_),
    )


def _offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.array([*accumulate(lengths, initial=0)], np.int64)


def kv_words(result: RankResult) -> str:
    """What the prefix cache did for a request, as `x-helm-kv` says it: hit, partial, or a miss with its reason."""
    if result.cached_blocks == 0:
        reason = MissReason.COLD if result.miss_reason is MissReason.HIT else result.miss_reason
        return f"miss;reason={reason.name.lower()}"
    return "hit" if result.cached_blocks == result.cacheable_blocks else "partial"
