"""Any stream of single requests as blocks: the demo, a replayed log, a capture.

Each request is drawn whole by its own generator and then thinned, so this is as slow as the stream behind it; it is
there so that a what-if on a log runs in the same simulator as everything else.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.numerics.prefix import block_hashes
from agents.wire.ids import user_key
from agents.workloads.blocks import RequestBlock
from agents.workloads.quantiles import mixed
from agents.workloads.request import Request, Workload

REQUESTS_PER_BLOCK = 256  # of 10K tokens and 8,000 rows: some 40 MB before thinning
ROW_SHIFT_MAX = 16
_ROW_SEED = np.uint64(0x726F7773)  # not a stream's seed: a table is sampled the same way whatever flows through it


def row_numbers(rows: int, row_shift: int) -> NDArray[np.int64]:
    """Dense number of each followed row of a table, -1 for the others; one row in `2 ** row_shift` by hash of its id."""
    if rows < 1 or not 0 <= row_shift <= ROW_SHIFT_MAX:
        raise ValueError(f"rows must be >= 1 and row_shift 0 to {ROW_SHIFT_MAX}")
    if row_shift == 0:
        return np.arange(rows, dtype=np.int64)
    numbers = np.zeros(rows, np.int64)
    _number_rows(numbers, np.uint64(64 - row_shift))
    return numbers


@kernel
def _number_rows(numbers: NDArray[np.int64], dropped_bits: np.uint64) -> None:
    followed = 0
    for row in range(numbers.shape[0]):
        numbers[row] = -1
        if mixed(_ROW_SEED, np.uint64(row)) >> dropped_bits == np.uint64(0):
            numbers[row] = followed
            followed += 1


class BlockAdapter:
    """A `Workload` as a `BlockWorkload`. `rows` is the size of its table, `salt` keys the users' hashes."""

    def __init__(self, workload: Workload, rows: int, row_shift: int, salt: bytes = b"") -> None:
        self.name = workload.name
        self.duration_seconds = workload.duration_seconds
        self.row_shift = row_shift
        self._workload = workload
        self._numbers = row_numbers(rows, row_shift)
        self.rows = int(self._numbers.max(initial=-1)) + 1
        self._salt = salt

    def blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Blocks in order of time, from the beginning."""
        requests = self._workload.requests()
        while part := list(islice(requests, REQUESTS_PER_BLOCK)):
            yield self._block(part, block_tokens)

    def _block(self, requests: list[Request], block_tokens: int) -> RequestBlock:
        hashes = [block_hashes(r.history_items, r.history_actions, r.history_ts, block_tokens) for r in requests]
        histories = [self._followed(request.history_items) for request in requests]
        candidates = [self._followed(request.candidates) for request in requests]
        return RequestBlock(
            at_ns=np.array([request.at_ns for request in requests], np.int64),
            user_keys=np.array([user_key(request.user, self._salt) for request in requests], np.uint64),
            history_tokens=np.array([request.history_items.shape[0] for request in requests], np.int64),
            candidates=np.array([request.candidates.shape[0] for request in requests], np.int64),
            block_hashes=np.concatenate(hashes),
            block_offsets=_offsets(hashes),
            history_rows=np.concatenate(histories),
            history_offsets=_offsets(histories),
            candidate_rows=np.concatenate(candidates),
            candidate_offsets=_offsets(candidates),
        )

    def _followed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = self._numbers[rows]
        return np.asarray(numbers[numbers >= 0])


def _offsets(parts: list[NDArray[np.int64]] | list[NDArray[np.uint64]]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([part.shape[0] for part in parts]))).astype(np.int64)
