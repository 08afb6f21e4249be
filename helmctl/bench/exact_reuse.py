"""Exact LRU hit curves of a whole stream, to hold sampled ones against.

One Fenwick tree over all references with a one at the last touch of every key (the stack distance of Mattson et al., 1970,
counted as Bennett and Kruskal, 1975, do). It shares no code with the estimator that it judges.
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel


def exact_hits(
    keys: NDArray[np.int64], sizes: NDArray[np.int64], values: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Value [B + 1] that an LRU cache of each capacity `edges` [B + 1] saves on references [N] to keys 0, 1, ..."""
    found = np.zeros(edges.shape[0])
    ids = int(keys.max()) + 1
    _count(keys, sizes, values, float(edges[-1]), np.full(ids, -1, np.int32), np.zeros(keys.shape[0] + 1, np.int64), found[1:])
    return np.cumsum(found)


@kernel
def _count(
    keys: NDArray[np.int64],
    sizes: NDArray[np.int64],
    values: NDArray[np.float64],
    capacity_max: float,
    last: NDArray[np.int32],
    tree: NDArray[np.int64],
    found: NDArray[np.float64],
) -> None:
    """Adds each value to the bin whose upper edge is the least capacity that hits; a key keeps the size of its last touch."""
    stacked, bins = 0, found.shape[0]
    for now in range(keys.shape[0]):
        before = last[keys[now]]
        if before >= 0:
            distance = stacked + sizes[before]
            node = before + 1
            while node > 0:
                distance -= tree[node]
                node -= node & -node
            if distance <= capacity_max:
                found[max(0, int(np.ceil(distance * bins / capacity_max)) - 1)] += values[now]
            stacked -= sizes[before]
            _add(tree, before, -sizes[before])
        stacked += sizes[now]
        _add(tree, now, sizes[now])
        last[keys[now]] = now


@kernel
def _add(tree: NDArray[np.int64], position: int, size: int) -> None:
    node = np.int64(position) + 1
    while node < tree.shape[0]:
        tree[node] += size
        node += node & -node
