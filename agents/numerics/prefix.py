"""Prefix identity: a rolling hash per block of history, and the sliding window of long histories.

A block is one KV page's worth of tokens. The hash at block b covers every token before the end
of b, so equal hashes mean equal prefixes (64-bit, odds of a false match below 1e-12 per look-up).
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import allocating_kernel

_SEED = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(29)


@allocating_kernel
def block_hashes(
    items: NDArray[np.int64], actions: NDArray[np.int64], timestamps: NDArray[np.int64], block_tokens: int
) -> NDArray[np.uint64]:
    """Cumulative hash at the end of each full block; shape `[len(items) // block_tokens]`."""
    blocks = items.shape[0] // block_tokens
    out = np.empty(blocks, dtype=np.uint64)
    state = _SEED
    for block in range(blocks):
        for token in range(block * block_tokens, (block + 1) * block_tokens):
            state = (state ^ np.uint64(items[token])) * _MULTIPLIER
            state = (state ^ (state >> _SHIFT) ^ np.uint64(actions[token])) * _MULTIPLIER
            state = (state ^ (state >> _SHIFT) ^ np.uint64(timestamps[token])) * _MULTIPLIER
            state = state ^ (state >> _SHIFT)
        out[block] = state
    return out


def window_start(total_tokens: int, tokens_max: int) -> int:
    """First token kept of a history of `total_tokens`, sliding in steps of a quarter of the maximum.

    A window that moved by one token per append would change every block and waste the cached
    prefix; with quarter steps appends keep it until the next step.
    """
    if total_tokens <= tokens_max:
        return 0
    step = max(1, tokens_max // 4)
    return -(-(total_tokens - tokens_max) // step) * step
