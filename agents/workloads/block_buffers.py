"""Memory that a generator's kernel writes a block into, and the block cut out of it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.workloads.blocks import RequestBlock

BLOCK_VALUES = 1 << 20  # jagged values a block holds at most, 8 MB: small against a fleet's state, large against a call
BLOCK_REQUESTS_MAX = 4096


class Buffers(NamedTuple):
    """Room for R requests; jagged parts as in `RequestBlock`."""

    at_ns: NDArray[np.int64]
    user_keys: NDArray[np.uint64]
    history_tokens: NDArray[np.int64]
    block_hashes: NDArray[np.uint64]
    history_rows: NDArray[np.int64]
    candidate_rows: NDArray[np.int64]
    offsets: NDArray[np.int64]  # [3, R + 1] of block hashes, history rows, candidate rows


class Room(NamedTuple):
    """The most values that one request writes."""

    block_hashes: int
    history_rows: int
    candidate_rows: int

    @property
    def requests(self) -> int:
        """Requests for which a block has room."""
        return max(1, min(BLOCK_REQUESTS_MAX, BLOCK_VALUES // sum(self)))


def new_buffers(room: Room) -> Buffers:
    """Fresh memory: the block before is still in somebody's hands."""
    requests = room.requests
    return Buffers(
        at_ns=np.empty(requests, np.int64),
        user_keys=np.empty(requests, np.uint64),
        history_tokens=np.empty(requests, np.int64),
        block_hashes=np.empty(requests * room.block_hashes, np.uint64),
        history_rows=np.empty(requests * room.history_rows, np.int64),
        candidate_rows=np.empty(requests * room.candidate_rows, np.int64),
        offsets=np.zeros((3, requests + 1), np.int64),
    )


def block_of(out: Buffers, count: int, candidates: int) -> RequestBlock:
    """The first `count` requests written, each asking for `candidates` rows."""
    blocks, history, listed = (out.offsets[part, : count + 1] for part in range(3))
    return RequestBlock(
        at_ns=out.at_ns[:count],
        user_keys=out.user_keys[:count],
        history_tokens=out.history_tokens[:count],
        candidates=np.full(count, candidates, np.int64),
        block_hashes=out.block_hashes[: blocks[-1]],
        block_offsets=blocks,
        history_rows=out.history_rows[: history[-1]],
        history_offsets=history,
        candidate_rows=out.candidate_rows[: listed[-1]],
        candidate_offsets=listed,
    )
