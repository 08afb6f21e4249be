"""Small batches for tests: users with known histories."""

from collections.abc import Sequence

import numpy as np

from agents.node.batch import Batch
from agents.numerics.prefix import block_hashes


def history_of(user: int, tokens: int, version: int = 0) -> np.ndarray:
    """A user's items, the same at every call; `version` changes all of them."""
    return (np.arange(tokens, dtype=np.int64) * 7 + user * 1000 + version * 13) % 100_000


def batch_of(
    requests: Sequence[tuple[int, int]],
    *,
    block_tokens: int,
    candidates: Sequence[int] = (1, 2, 3),
    gap_ns: int = -1,
    elsewhere: bool = False,
    version: int = 0,
) -> Batch:
    """One batch of (user, history tokens); every request has the same candidates."""
    tokens = [tokens for _, tokens in requests]
    histories = [history_of(user, count, version) for user, count in requests]
    zeros = [np.zeros(count, np.int64) for count in tokens]
    hashes = [block_hashes(history, zero, zero, block_tokens) for history, zero in zip(histories, zeros, strict=True)]
    count = len(requests)
    return Batch(
        user_keys=np.array([user for user, _ in requests], np.uint64),
        history_tokens=np.array(tokens, np.int64),
        block_hashes=np.concatenate(hashes),
        block_offsets=np.concatenate(([0], np.cumsum([len(part) for part in hashes]))).astype(np.int64),
        history_rows=np.concatenate(histories),
        history_offsets=np.concatenate(([0], np.cumsum(tokens))).astype(np.int64),
        candidate_rows=np.tile(np.array(candidates, np.int64), count),
        candidate_offsets=(np.arange(count + 1) * len(candidates)).astype(np.int64),
        reuse_gap_ns=np.full(count, gap_ns, np.int64),
        resident_elsewhere=np.full(count, elsewhere, np.bool_),
    )
