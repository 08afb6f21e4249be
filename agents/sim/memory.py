"""The memory of many nodes laid end to end, so that one kernel can work on any of them.

A node's states are named tuples of arrays. Here the arrays of all nodes are joined, one after the other, and a
node's own state is the tuple of its parts: views, so that Python's nodes and the fleet's kernel see the same bytes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agents.node.meters import Meters
from agents.numerics.jit import inlined_kernel
from agents.numerics.regression import RegressionState
from agents.numerics.reuse_state import ReuseState
from agents.numerics.sketch import WindowState
from agents.pool.state import PoolState

CACHE_LINE_BYTES = 64

State = TypeVar("State", bound=tuple[Any, ...])


def leaves(state: tuple[Any, ...]) -> list[NDArray[Any]]:
    """Arrays of a named tuple of arrays and named tuples, in order."""
    found: list[NDArray[Any]] = []
    for part in state:
        found.extend(leaves(part) if isinstance(part, tuple) else [part])
    return found


def _rebuilt(pattern: State, arrays: list[NDArray[Any]]) -> State:
    """The same tuple with other arrays, taken from the front of `arrays`."""
    parts = [_rebuilt(part, arrays) if isinstance(part, tuple) else arrays.pop(0) for part in pattern]
    return type(pattern)(*parts)


def room_for(patterns: Sequence[State]) -> tuple[State, NDArray[np.int64]]:
    """Arrays for all states of such shapes as one, each joined along its first axis, and where each part begins.

    The contents are to be written; `bounds[leaf, node]` has N + 1 columns. The arrays lie in one block of memory: the system
    backs a large one with large pages, and a kernel that looks here and there then waits less for addresses.
    """
    columns = list(zip(*(leaves(state) for state in patterns), strict=True))
    lengths = np.array([[part.shape[0] for part in column] for column in columns], np.int64)
    bounds = np.concatenate([np.zeros((len(columns), 1), np.int64), np.cumsum(lengths, axis=1)], axis=1)
    shapes = [(int(bounds[leaf, -1]), *column[0].shape[1:]) for leaf, column in enumerate(columns)]
    return _rebuilt(patterns[0], _side_by_side(shapes, [column[0].dtype for column in columns])), bounds


def _side_by_side(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]]) -> list[NDArray[Any]]:
    """Arrays of one block of memory, contents to be written, each at the beginning of a cache line."""
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in zip(shapes, dtypes, strict=True)]
    firsts = np.concatenate([[0], np.cumsum([-(-size // CACHE_LINE_BYTES) * CACHE_LINE_BYTES for size in sizes])])
    block = np.empty(int(firsts[-1]) + CACHE_LINE_BYTES, np.uint8)
    block = block[-block.ctypes.data % CACHE_LINE_BYTES :]
    return [
        block[first : first + size].view(dtype).reshape(shape)
        for first, size, shape, dtype in zip(firsts[:-1].tolist(), sizes, shapes, dtypes, strict=True)
    ]


def part(whole: State, bounds: NDArray[np.int64], node: int) -> State:
    """One node's state: views into the joined arrays."""
    arrays = leaves(whole)
    return _rebuilt(whole, [array[first:end] for array, first, end in zip(arrays, bounds[:, node], bounds[:, node + 1], strict=True)])


def _arrays(whole: tuple[Any, ...]) -> list[NDArray[Any]]:
    """Leaves that are arrays: a world holds numbers too."""
    return [leaf for leaf in leaves(whole) if isinstance(leaf, np.ndarray)]


def size_bytes(whole: tuple[Any, ...]) -> int:
    """Of all arrays together."""
    return sum(array.nbytes for array in _arrays(whole))


def contents(whole: tuple[Any, ...]) -> list[NDArray[np.uint8]]:
    """Copies of all arrays, as bytes; what is not an array is left out."""
    return [array.view(np.uint8).copy() for array in _arrays(whole)]


def fill_in(whole: tuple[Any, ...], kept: Iterable[NDArray[Any]]) -> None:
    """Write the arrays of a like tuple, or `contents` of one, into this one's: as bytes, because records are else copied field by field."""
    for array, other in zip(_arrays(whole), kept, strict=True):
        array.view(np.uint8)[...] = other.view(np.uint8)


@inlined_kernel
def pool_at(whole: PoolState, bounds: NDArray[np.int64], node: int) -> PoolState:
    """`part` for a pool, inside kernels."""
    return PoolState(
        whole.counters[bounds[0, node] : bounds[0, node + 1]],
        whole.header[bounds[1, node] : bounds[1, node + 1]],
        whole.pages[bounds[2, node] : bounds[2, node + 1]],
        whole.next_pages[bounds[3, node] : bounds[3, node + 1]],
        whole.page_hashes[bounds[4, node] : bounds[4, node + 1]],
        whole.lists[bounds[5, node] : bounds[5, node + 1]],
        whole.entries[bounds[6, node] : bounds[6, node + 1]],
        whole.priorities[bounds[7, node] : bounds[7, node + 1]],
        whole.users[bounds[8, node] : bounds[8, node + 1]],
        whole.fates[bounds[9, node] : bounds[9, node + 1]],
        whole.residency[bounds[10, node] : bounds[10, node + 1]],
        whole.slots[bounds[11, node] : bounds[11, node + 1]],
        whole.places[bounds[12, node] : bounds[12, node + 1]],
        whole.door[bounds[13, node] : bounds[13, node + 1]],
        whole.evicted[bounds[14, node] : bounds[14, node + 1]],
        whole.tables[bounds[15, node] : bounds[15, node + 1]],
    )


@inlined_kernel
def meters_at(whole: Meters, bounds: NDArray[np.int64], node: int) -> Meters:
    """`part` for a node's meters, inside kernels."""
    return Meters(
        whole.meters[bounds[0, node] : bounds[0, node + 1]],
        whole.totals[bounds[1, node] : bounds[1, node + 1]],
        whole.known[bounds[2, node] : bounds[2, node + 1]],
        whole.features[bounds[3, node] : bounds[3, node + 1]],
        RegressionState(
            whole.compute.vectors[bounds[4, node] : bounds[4, node + 1]],
            whole.compute.covariance[bounds[5, node] : bounds[5, node + 1]],
            whole.compute.numbers[bounds[6, node] : bounds[6, node + 1]],
        ),
        RegressionState(
            whole.rows.vectors[bounds[7, node] : bounds[7, node + 1]],
            whole.rows.covariance[bounds[8, node] : bounds[8, node + 1]],
            whole.rows.numbers[bounds[9, node] : bounds[9, node + 1]],
        ),
        ReuseState(
            whole.row_curve.head[bounds[10, node] : bounds[10, node + 1]],
            whole.row_curve.entries[bounds[11, node] : bounds[11, node + 1]],
            whole.row_curve.places[bounds[12, node] : bounds[12, node + 1]],
            whole.row_curve.stack[bounds[13, node] : bounds[13, node + 1]],
            whole.row_curve.bins[bounds[14, node] : bounds[14, node + 1]],
        ),
        WindowState(
            whole.latencies.counts[bounds[15, node] : bounds[15, node + 1]],
            whole.latencies.slot_numbers[bounds[16, node] : bounds[16, node + 1]],
            whole.latencies.slot_ns[bounds[17, node] : bounds[17, node + 1]],
        ),
    )
