"""Whether what a node measures still tells of the empty caches it began with.

A cold cache misses much, and a policy taught by full ones would give KV more for it. But a cache with room keeps all that
comes: more room brings no hit, and the rows that made way for it would have to be fetched again. The rules need none of
this, because value curves do not depend on what is resident.

    filling -> cold    KV is full
    filling -> roomy   three minutes after it was empty, and not full yet: only rows may be given more
    cold -> warm       a minute later, and three after it was empty at the latest
    roomy -> warm      KV is full

Traffic finds its way to a filling node bit by bit, and its tails fall meanwhile: no burst is looked for in that.
"""

from enum import IntEnum
from typing import Any

import numpy as np

from agents.numerics.jit import kernel


class Warmth(IntEnum):
    """What the caches' filling allows."""

    WARM = 0  # any move
    ROOMY = 1  # no growth of KV
    COLD = 2  # no move
    FILLING = 3  # no move, and a rise of traffic tells nothing


_WARM, _ROOMY, _COLD, _FILLING = (int(warmth) for warmth in Warmth)
_EMPTIED = 0.3  # share of KV in use below which it fills anew: a start, a model's flip; no move of ours empties so much
_FULL = 0.9  # and from which it is full: freed pages and half-filled ones keep it below 1
_COLD_NS_MAX = 180_000_000_000  # few users may never fill it, and then rows could have its room
_MEMORY_NS = 60_000_000_000  # hit ratios and tails are of the last minute: so long they tell of the empty caches

COLD_START = np.dtype([("filling", "i8"), ("until_ns", "i8")], align=True)  # filling, 1: KV was empty and is not full yet


@kernel
def watch(start: Any, moment: Any) -> int:
    """The `Warmth` at this decision; an unknown share of KV in use changes nothing."""
    if moment.kv_used_ratio < _EMPTIED and start.filling == 0:
        start.filling, start.until_ns = 1, moment.now_ns + _COLD_NS_MAX
    elif moment.kv_used_ratio >= _FULL and start.filling == 1:
        start.filling, start.until_ns = 0, min(start.until_ns, moment.now_ns + _MEMORY_NS)
    if moment.now_ns < start.until_ns:
        return _FILLING if start.filling == 1 else _COLD
    return _ROOMY if start.filling == 1 else _WARM
