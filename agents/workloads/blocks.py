"""Requests by the thousand, as flat arrays: what the simulator eats.

A live client sends one request with all its rows. A simulated fleet of 80 GB nodes would draw ten thousand
rows a request, so a block carries only a spatial sample of the *rows*: row ids whose hash falls into one of
`2 ** row_shift` classes, renumbered densely. Caches of a sampled run hold as many times fewer rows, so hit ratios
stay what they are, up to a sampling error that the simulator's bench states. Users are never sampled.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class RequestBlock(NamedTuple):
    """R consecutive requests in order of time. Jagged parts are concatenated; part i is `x[x_offsets[i]:x_offsets[i + 1]]`."""

    at_ns: NDArray[np.int64]  # [R] since the stream's start, non-decreasing
    user_keys: NDArray[np.uint64]  # [R] hashed, never 0
    history_tokens: NDArray[np.int64]  # [R] n, unsampled
    candidates: NDArray[np.int64]  # [R] candidate rows the request asks for, unsampled
    block_hashes: NDArray[np.uint64]  # [sum of n // block_tokens] prefix identity, as `numerics.prefix`
    block_offsets: NDArray[np.int64]  # [R + 1]
    history_rows: NDArray[np.int64]  # sampled rows of the history, oldest first, evenly spread over its tokens
    history_offsets: NDArray[np.int64]  # [R + 1]
    candidate_rows: NDArray[np.int64]  # sampled candidate rows, distinct inside a request
    candidate_offsets: NDArray[np.int64]  # [R + 1]


class BlockWorkload(Protocol):
    """A seeded stream in blocks: the same seed gives the same bytes for every method compared."""

    name: str
    duration_seconds: float
    row_shift: int  # one row id in 2 ** row_shift is followed

    def blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Blocks in order of time, from the beginning; `block_tokens` is the profile's prefix block."""
        ...


def stream_digest(blocks: Iterable[RequestBlock]) -> str:
    """SHA-256 of a stream's content, the same however it was cut into blocks."""
    fields = {name: hashlib.sha256() for name in RequestBlock._fields}
    for block in blocks:
        for name, values in block._asdict().items():
            plain = np.diff(values) if name.endswith("_offsets") else values
            fields[name].update(np.ascontiguousarray(plain).astype("<u8").tobytes())
    return hashlib.sha256(b"".join(field.digest() for field in fields.values())).hexdigest()
