"""Latency quantiles as DDSketch: logarithmic buckets of 1 % relative accuracy from 0.1 ms to 10 s.

A bucket's number is part of the wire format: bucket i holds (0.1 ms * g**(i-1), 0.1 ms * g**i] with
g = 1.01 / 0.99; bucket 0 everything up to 0.1 ms and the last one everything above. Sketches are
merged by adding counts, never averaged. The sliding window is a ring of sub-sketches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import allocating_kernel, kernel

ACCURACY_RATIO = 0.01
MS_MIN = 0.1
MS_MAX = 10_000.0
_GAMMA = (1.0 + ACCURACY_RATIO) / (1.0 - ACCURACY_RATIO)
_LOG_GAMMA = float(np.log(_GAMMA))
BUCKETS = int(np.ceil(np.log(MS_MAX / MS_MIN) / _LOG_GAMMA)) + 1
_BUCKETS_MS = 2.0 * MS_MIN * _GAMMA ** np.arange(BUCKETS) / (_GAMMA + 1.0)  # `bucket_ms` of each


class WindowState(NamedTuple):
    """Ring of sub-sketches, one per time slot; memory is fixed."""

    counts: NDArray[np.int64]  # [slots, BUCKETS]
    slot_numbers: NDArray[np.int64]  # [slots] absolute number of the slot held, -1 none
    slot_ns: NDArray[np.int64]  # [1]


def new_sketch() -> NDArray[np.int64]:
    """Empty sketch: a count per bucket."""
    return np.zeros(BUCKETS, dtype=np.int64)


def new_window(span_seconds: int = 60, slot_seconds: int = 5) -> WindowState:
    """Empty window over the last `span_seconds`, forgetting in steps of `slot_seconds`."""
    if slot_seconds < 1 or span_seconds < slot_seconds or span_seconds % slot_seconds:
        raise ValueError("span_seconds must be a positive multiple of slot_seconds")
    slots = span_seconds // slot_seconds
    return WindowState(
        np.zeros((slots, BUCKETS), dtype=np.int64),
        np.full(slots, -1, dtype=np.int64),
        np.array([slot_seconds * 1_000_000_000], dtype=np.int64),
    )


@kernel
def bucket_of(ms: float) -> int:
    """Bucket of a latency; out-of-range values go to the first or last, NaN to -1."""
    if np.isnan(ms):
        return -1
    if ms <= MS_MIN:
        return 0
    if ms >= MS_MAX:
        return BUCKETS - 1
    return min(BUCKETS - 1, int(np.ceil(np.log(ms / MS_MIN) / _LOG_GAMMA)))


@kernel
def bucket_ms(bucket: int) -> float:
    """Latency a bucket stands for: within 1 % of every value in it."""
    return float(2.0 * MS_MIN * _GAMMA**bucket / (_GAMMA + 1.0))


@kernel
def add(counts: NDArray[np.int64], ms: float) -> None:
    """Count one latency; NaN is not counted."""
    bucket = bucket_of(ms)
    if bucket >= 0:
        counts[bucket] += 1


@kernel
def quantile(counts: NDArray[np.int64], q: float) -> float:
    """The q-quantile in ms (q in 0..1); NaN when nothing was counted."""
    total = counts.sum()
    if total == 0:
        return np.nan
    rank = q * (total - 1)
    upto = 0
    for bucket in range(counts.shape[0]):
        upto += counts[bucket]
        if upto > rank:
            return bucket_ms(bucket)
    return bucket_ms(counts.shape[0] - 1)


def mean(counts: NDArray[np.int64]) -> float:
    """Mean in ms of what was counted, within 1 %; NaN when nothing was."""
    total = int(counts.sum())
    return float(counts @ _BUCKETS_MS) / total if total else float("nan")


@kernel
def share_at_most(counts: NDArray[np.int64], ms: float) -> float:
    """Share of latencies in buckets up to that of `ms` (an SLO); NaN when nothing was counted."""
    total = counts.sum()
    if total == 0:
        return np.nan
    return float(counts[: bucket_of(ms) + 1].sum() / total)


@kernel
def window_add(state: WindowState, now_ns: int, ms: float) -> None:
    """Count one latency at `now_ns`; a latency older than the window is left out."""
    number = now_ns // state.slot_ns[0]
    place = number % state.counts.shape[0]
    if state.slot_numbers[place] > number:
        return
    if state.slot_numbers[place] < number:
        state.counts[place] = 0
        state.slot_numbers[place] = number
    add(state.counts[place], ms)


@kernel
def window_add_all(state: WindowState, times_ns: NDArray[np.int64], ms: NDArray[np.float64]) -> None:
    """Count N latencies, each at its own time."""
    for i in range(times_ns.shape[0]):
        window_add(state, times_ns[i], ms[i])


@allocating_kernel
def window_counts(state: WindowState, now_ns: int) -> NDArray[np.int64]:
    """Merged sketch of the window that ends with the slot of `now_ns`."""
    number = now_ns // state.slot_ns[0]
    merged = np.zeros(state.counts.shape[1], dtype=np.int64)
    for place in range(state.counts.shape[0]):
        if number - state.counts.shape[0] < state.slot_numbers[place] <= number:
            merged += state.counts[place]
    return merged


def to_sparse(counts: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Bucket numbers and counts of the buckets in use, for the wire."""
    used = np.flatnonzero(counts)
    return used.tolist(), counts[used].tolist()


def from_sparse(indexes: list[int], counts: list[int]) -> NDArray[np.int64]:
    """Sketch from the wire; `ValueError` names what does not fit."""
    if len(indexes) != len(counts):
        raise ValueError("indexes and counts must have the same length")
    if any(not 0 <= index < BUCKETS for index in indexes):
        raise ValueError(f"indexes must lie in 0..{BUCKETS - 1}")
    if any(count < 0 for count in counts):
        raise ValueError("counts must be >= 0")
    merged = new_sketch()
    np.add.at(merged, np.asarray(indexes, dtype=np.int64), np.asarray(counts, dtype=np.int64))
    return merged
