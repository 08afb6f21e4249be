"""Sampled reuse-distance value curves: what a cache of any size would save, from one pass over a stream.

Keys whose hash lies under a threshold are followed; each has a position in a recency stack, and
Fenwick trees over positions hold sizes, so that the distance of a re-reference (bytes of distinct
keys touched since, scaled by the sampling rate, plus its own) is one tree operation. The value of the
reference is added to the bin of that distance: the cumulative sum up to C is what an LRU cache of C
saves. The number of followed keys is bounded: when it is reached the threshold falls by an eighth and
the keys above it are dropped. Contributions are stored already divided by the rate in force, so a
falling rate needs no rescaling.

A few very hot keys carry much of real traffic, and whether they are in the sample is luck. So keys
that a small array of counters finds hot are followed whatever their hash, and stand for themselves alone.
What the sample of the other keys still misses or doubles of their known total is repaired in proportion over
all bins; putting it into the first bin, the usual repair, was worse on every log tried.

With a `window_ns` the curve is that of a cache with a doorkeeper: a key enters only at a reference
at most `window_ns` after its previous one. A key that comes back later than that stays only in caches
big enough to still hold it, so each stacked key carries a `barrier`: the smallest capacity that has it.

Two copies of every bin decay with a fast and a slow half-life, lazily: newer contributions weigh more.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

KEYS_MAX = 8192  # about 2 MB of state
BINS = 128  # a bin is then under half of the actuator's largest step per second
_HASH_BITS = 53  # sampled hashes are exact in float64, so rates are too
_HASH_SHIFT = np.uint64(64 - _HASH_BITS)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EXPONENT_MAX = 32.0  # decay weights are renormalised before 2**32, far from losing small bins
_OUT_OF_STACK = -1
_FREE = -2
_COUNTERS_PER_KEY = 8  # with fewer, keys share counters and cold ones pass for hot
_HOT_SHARE_OF_KEYS = 2  # half of the followed keys may be hot
_HOT_COUNT_MIN = 4  # before it, a key's share of the traffic is not known
_AGEING_PER_KEY = 64  # references per followed key between two halvings of the counters
_DRIFT_MAX = 0.1  # mean distance of the normalised cumulative curves above which the slow one is stale

# places in `numbers`
_USED = 0  # followed keys, in the stack or only seen
_NEXT = 1  # next free position
_TAIL = 2  # no stacked key lies below this position
_WINDOW_NS = 3
_STARTED_NS = 4
_LAST_NS = 5
_REFERENCES = 6
_FOLLOWED = 7  # references of followed keys
_HOT = 8  # followed keys that are hot
_PERIOD = 9  # references since the counters were halved, counted like them
_NUMBERS = 10

# how a followed key stands in the stack: for its share of the sample, or for itself
_BY_SAMPLE = 0
_FOR_ITSELF = 1

# places in `thresholds`
_NOW = 0
_START = 1
_SEED = 2


class Pace(IntEnum):
    """Which copy of the bins to read. `AUTO`: slow shape at the fast rate, fast shape after a drift."""

    FAST = 0
    SLOW = 1
    AUTO = 2


class ReuseState(NamedTuple):
    """All of an estimator's memory, allocated once; only this module's kernels write it."""

    table: NDArray[np.int32]  # [H] open addressing: slot of a key, -1 empty
    keys: NDArray[np.uint64]  # [K]
    hashes: NDArray[np.uint64]  # [K] full 64-bit
    positions: NDArray[np.int64]  # [K] in the stack, -1 seen only, -2 free
    sizes: NDArray[np.int64]  # [K]
    seen_ns: NDArray[np.int64]  # [K]
    barriers: NDArray[np.float64]  # [K] smallest capacity that holds the key
    strata: NDArray[np.int8]  # [K] by sample or for itself
    uses: NDArray[np.int64]  # [K] references of a hot key in this period
    free_slots: NDArray[np.int32]  # [K]
    popularity: NDArray[np.int32]  # [C] references per group of keys, halved now and then
    hot_groups: NDArray[np.int32]  # [C] hot keys in the group
    trees: NDArray[np.int64]  # [positions + 1, 2] sizes per stratum, side by side as they are read
    stacked: NDArray[np.int64]  # [2] sum of stacked sizes per stratum
    owners: NDArray[np.int32]  # [positions] slot at a position, -1 none
    edges: NDArray[np.float64]  # [B + 1]
    bins: NDArray[np.float64]  # [2 paces, 2 strata, V, B + 2] decayed; then beyond the last edge, then cold
    offered: NDArray[np.float64]  # [2, V] decayed value of all references, followed or not
    origins_ns: NDArray[np.int64]  # [2] times at which a contribution weighs 1
    half_lives_ns: NDArray[np.float64]  # [2]
    weights: NDArray[np.float64]  # [2] of a contribution now
    numbers: NDArray[np.int64]
    thresholds: NDArray[np.uint64]
    rates: NDArray[np.float64]  # [stream rate, horizon]
    uniform: NDArray[np.int64]  # [1] size of rows that all weigh the same


class Curve(NamedTuple):
    """Value per second that a cache of each capacity saves; V channels, B bins."""

    edges: NDArray[np.float64]  # [B + 1] capacities, first 0
    value: NDArray[np.float64]  # [V, B + 1] cumulative, non-decreasing, first 0
    total: NDArray[np.float64]  # [V] with an infinite cache
    offered: NDArray[np.float64]  # [V] of all references, cold ones included


def new_reuse(
    capacity_max: float,
    *,
    bins: int = BINS,
    channels: int = 1,
    keys_max: int = KEYS_MAX,
    sampling_rate: float = 1.0,
    stream_rate: float = 1.0,
    window_ns: int = 0,
    horizon_ratio: float = 4.0,
    half_life_fast_seconds: float = 60.0,
    half_life_slow_seconds: float = 900.0,
    seed: int = 0,
    now_ns: int = 0,
) -> ReuseState:
    """Empty estimator for capacities up to `capacity_max` (any size unit: bytes, tokens).

    `sampling_rate` is the total one: of a stream that was itself thinned to `stream_rate` by key, the
    rest is taken here, so that a thinned simulation and a full live stream follow equally many keys.
    Keys deeper than `horizon_ratio * capacity_max` are forgotten (0: never): no capacity of
    interest holds them, and remembering them would drive the rate down for the life of the process.
    """
    if not (np.isfinite(capacity_max) and capacity_max > 0):
        raise ValueError("capacity_max must be finite and > 0")
    if bins < 1 or channels < 1 or keys_max < 8:
        raise ValueError("bins and channels must be >= 1 and keys_max >= 8")
    if not 0.0 < sampling_rate <= 1.0 or not 0.0 < stream_rate <= 1.0:
        raise ValueError("sampling_rate and stream_rate must be in (0, 1]")
    if window_ns < 0 or horizon_ratio < 0 or 0 < horizon_ratio < 1:
        raise ValueError("window_ns must be >= 0 and horizon_ratio 0 or >= 1")
    if not (half_life_fast_seconds > 0 and half_life_slow_seconds > 0):
        raise ValueError("half-lives must be > 0 seconds")
    threshold = np.uint64(round(min(1.0, sampling_rate / stream_rate) * 2**_HASH_BITS))
    positions = 4 * keys_max  # a compaction then pays for at least three keys_max references
    counters = 1 << (_COUNTERS_PER_KEY * keys_max - 1).bit_length()
    numbers = np.zeros(_NUMBERS, dtype=np.int64)
    numbers[[_WINDOW_NS, _STARTED_NS, _LAST_NS]] = window_ns, now_ns, now_ns
    return ReuseState(
        table=np.full(1 << (2 * keys_max - 1).bit_length(), -1, dtype=np.int32),
        keys=np.zeros(keys_max, dtype=np.uint64),
        hashes=np.zeros(keys_max, dtype=np.uint64),
        positions=np.full(keys_max, _FREE, dtype=np.int64),
        sizes=np.zeros(keys_max, dtype=np.int64),
        seen_ns=np.zeros(keys_max, dtype=np.int64),
        barriers=np.zeros(keys_max, dtype=np.float64),
        strata=np.zeros(keys_max, dtype=np.int8),
        uses=np.zeros(keys_max, dtype=np.int64),
        free_slots=np.arange(keys_max - 1, -1, -1, dtype=np.int32),
        popularity=np.zeros(counters, dtype=np.int32),
        hot_groups=np.zeros(counters, dtype=np.int32),
        trees=np.zeros((positions + 1, 2), dtype=np.int64),
        stacked=np.zeros(2, dtype=np.int64),
        owners=np.full(positions, -1, dtype=np.int32),
        edges=np.linspace(0.0, capacity_max, bins + 1),
        bins=np.zeros((2, 2, channels, bins + 2), dtype=np.float64),
        offered=np.zeros((2, channels), dtype=np.float64),
        origins_ns=np.full(2, now_ns, dtype=np.int64),
        half_lives_ns=np.array([half_life_fast_seconds, half_life_slow_seconds]) * 1e9,
        weights=np.ones(2),
        numbers=numbers,
        thresholds=np.array([threshold, threshold, np.uint64(seed)], dtype=np.uint64),
        rates=np.array([stream_rate, horizon_ratio * capacity_max]),
        uniform=np.zeros(1, dtype=np.int64),
    )


def reference(state: ReuseState, now_ns: int, key: int, size: int, values: NDArray[np.float64]) -> float:
    """One reference: adds `values` [V] at its distance and returns that; inf if cold or not followed."""
    return record(state, now_ns, np.array([key], dtype=np.uint64), np.array([size], dtype=np.int64), values.reshape(1, -1))


def sampling_rate(state: ReuseState) -> float:
    """Total rate in force: this estimator's own times the stream's."""
    return float(state.thresholds[_NOW]) / 2.0**_HASH_BITS * float(state.rates[0])


def reference_users(
    state: ReuseState, now_ns: int, keys: NDArray[np.uint64], sizes: NDArray[np.int64], values: NDArray[np.float64]
) -> None:
    """References of several keys at one time, in order; sizes [N], values [N, V]."""
    record(state, now_ns, keys, sizes, values)


def reference_rows(state: ReuseState, now_ns: int, rows: NDArray[np.int64], row_bytes: int, values: NDArray[np.float64]) -> None:
    """References of rows (already distinct within their batch) that all weigh `row_bytes` and `values` [V]."""
    record_rows(state, now_ns, rows, row_bytes, values.reshape(1, -1))


@kernel
def record_rows(state: ReuseState, now_ns: int, rows: NDArray[np.int64], row_bytes: int, values: NDArray[np.float64]) -> None:
    """`reference_rows` for kernels; `values` is [1, V]."""
    state.uniform[0] = row_bytes
    record(state, now_ns, rows.view(np.uint64), state.uniform, values)


@kernel
def record(state: ReuseState, now_ns: int, keys: NDArray[np.uint64], sizes: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Distance of the last of some references; a single size or row of values serves all of them.

    Most references end here, so this loop works on arrays: handing the state's two dozen to a
    function, reference counts and all, costs a hundred times what a reference that is not followed does.
    """
    now_ns = _advance(state, now_ns)
    _offer(state, keys.shape[0], values)
    state.numbers[_REFERENCES] += keys.shape[0]
    numbers, thresholds, popularity, hot_groups = state.numbers, state.thresholds, state.popularity, state.hot_groups
    groups_mask = np.uint64(popularity.shape[0] - 1)
    keys_max = state.keys.shape[0]
    distance = np.inf
    for i in range(keys.shape[0]):
        size, value = sizes[min(i, sizes.shape[0] - 1)], values[min(i, values.shape[0] - 1)]
        hashed = _hash(keys[i], thresholds[_SEED])
        distance = np.inf
        if thresholds[_NOW] >> np.uint64(_HASH_BITS) > np.uint64(0):  # everything is sampled: nobody need be hot
            distance = _touch(state, now_ns, keys[i], hashed, size, value)
            continue
        # counted for its group of keys, followed or not, or being hot would depend on the sample
        group = np.int64(hashed & groups_mask)
        popularity[group] += 1
        numbers[_PERIOD] += 1
        if hot_groups[group] > 0:
            if hashed >> _HASH_SHIFT < thresholds[_NOW] or _find(state.table, state.keys, keys[i], hashed) >= 0:
                distance = _touch(state, now_ns, keys[i], hashed, size, value)
        else:
            if hashed >> _HASH_SHIFT < thresholds[_NOW]:
                distance = _touch(state, now_ns, keys[i], hashed, size, value)
            if popularity[group] >= _HOT_COUNT_MIN and popularity[group] * keys_max >= numbers[_PERIOD]:
                _promote(state, now_ns, keys[i], hashed, size)
        if numbers[_PERIOD] >= _AGEING_PER_KEY * keys_max:
            _age(state)
    return distance


@kernel
def _hash(key: np.uint64, seed: np.uint64) -> np.uint64:
    """A well-mixed 64-bit hash; the seed makes independent samples of one stream possible."""
    x = key + (seed + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@kernel
def _advance(state: ReuseState, now_ns: int) -> int:
    """Time that never runs backwards, with the decay weights kept in range."""
    if now_ns <= state.numbers[_LAST_NS]:
        return int(state.numbers[_LAST_NS])
    state.numbers[_LAST_NS] = now_ns
    for pace in range(2):
        halvings = (now_ns - state.origins_ns[pace]) / state.half_lives_ns[pace]
        if halvings > _EXPONENT_MAX:
            factor = 0.5**halvings
            _shrink(state.bins[pace].reshape(-1), factor)
            _shrink(state.offered[pace], factor)
            state.origins_ns[pace] = now_ns
        state.weights[pace] = 2.0 ** ((now_ns - state.origins_ns[pace]) / state.half_lives_ns[pace])
    return now_ns


@kernel
def _shrink(values: NDArray[np.float64], factor: float) -> None:
    for place in range(values.shape[0]):
        values[place] *= factor


@kernel
def _offer(state: ReuseState, references: int, values: NDArray[np.float64]) -> None:
    """Count what the whole stream offers; values of one row stand for all references."""
    times = references if values.shape[0] == 1 else 1
    for row in range(values.shape[0]):
        for channel in range(values.shape[1]):
            if np.isfinite(values[row, channel]):
                for pace in range(2):
                    state.offered[pace, channel] += times * values[row, channel] * state.weights[pace] / state.rates[0]


@kernel
def _scales(thresholds: NDArray[np.uint64], rates: NDArray[np.float64]) -> tuple[float, float]:
    """How many references of the whole stream one reference stands for: of a sampled key, of a hot one."""
    return float(2.0**_HASH_BITS / (np.float64(thresholds[_NOW]) * rates[0])), float(1.0 / rates[0])


@kernel
def _touch(state: ReuseState, now_ns: int, key: np.uint64, hashed: np.uint64, size: int, values: NDArray[np.float64]) -> float:
    """Reference of a followed key: its distance, its value's bin, its new place in the stack."""
    state.numbers[_FOLLOWED] += 1
    window_ns = state.numbers[_WINDOW_NS]
    scales = _scales(state.thresholds, state.rates)
    slot = _find(state.table, state.keys, key, hashed)
    stratum = _BY_SAMPLE if slot < 0 else int(state.strata[slot])
    distance = np.inf
    back_soon = window_ns == 0
    position = _OUT_OF_STACK
    if slot >= 0:
        state.uses[slot] += 1
        back_soon = window_ns == 0 or now_ns - state.seen_ns[slot] <= window_ns
        position = int(state.positions[slot])
    if position >= 0:
        distance = max(_depth(state.trees, state.stacked, position, scales) + state.sizes[slot], state.barriers[slot])
        _weigh(state.trees, state.stacked, stratum, position, -state.sizes[slot])
        state.owners[position] = -1
        state.positions[slot] = _OUT_OF_STACK
    _add(state.bins, state.edges, state.weights, stratum, distance, scales[stratum], values)
    if slot < 0:
        slot = _insert(state, now_ns, key, hashed, False)
        if slot < 0:
            return distance
    state.seen_ns[slot] = now_ns
    state.sizes[slot] = size
    if back_soon or distance <= state.edges[-1]:
        state.barriers[slot] = 0.0 if back_soon else distance
        _stack(state, slot)
    return distance


@kernel
def _add(
    bins: NDArray[np.float64],
    edges: NDArray[np.float64],
    weights: NDArray[np.float64],
    stratum: int,
    distance: float,
    scale: float,
    values: NDArray[np.float64],
) -> None:
    last = edges.shape[0] - 1
    place = last + 1
    if distance <= edges[last]:
        # capacity equal to the distance is enough, so a bin holds its upper edge
        place = max(0, int(np.ceil(distance * last / edges[last])) - 1)
    elif np.isfinite(distance):
        place = last
    for pace in range(2):
        for channel in range(values.shape[0]):
            if np.isfinite(values[channel]):
                bins[pace, stratum, channel, place] += values[channel] * weights[pace] * scale


# --- hot keys -----------------------------------------------------------------------------


@kernel
def _promote(state: ReuseState, now_ns: int, key: np.uint64, hashed: np.uint64, size: int) -> None:
    """From its next reference on the key stands for itself; the present one still counts by the sample."""
    if state.numbers[_HOT] >= state.keys.shape[0] // _HOT_SHARE_OF_KEYS:
        return
    slot = _find(state.table, state.keys, key, hashed)
    if slot < 0:
        slot = _insert(state, now_ns, key, hashed, True)
        state.seen_ns[slot] = now_ns
        state.sizes[slot] = size
        state.barriers[slot] = 0.0
        state.strata[slot] = _FOR_ITSELF
        if state.numbers[_WINDOW_NS] == 0:
            _stack(state, slot)
    else:
        _change_stratum(state, slot, _FOR_ITSELF)
    group = int(hashed & np.uint64(state.popularity.shape[0] - 1))
    state.hot_groups[group] += 1
    state.numbers[_HOT] += 1
    state.uses[slot] = state.popularity[group]


@kernel
def _age(state: ReuseState) -> None:
    """Halve all counts; hot keys that cooled to half of what made them hot go back to the sample."""
    least = max(_HOT_COUNT_MIN, state.numbers[_PERIOD] // state.keys.shape[0]) // 2
    for slot in range(state.keys.shape[0]):
        if state.positions[slot] == _FREE or state.strata[slot] == _BY_SAMPLE:
            continue
        if state.uses[slot] >= least:
            state.uses[slot] >>= 1
        elif state.hashes[slot] >> _HASH_SHIFT < state.thresholds[_NOW]:
            _cool(state, slot)
            _change_stratum(state, slot, _BY_SAMPLE)
        else:
            _remove(state, slot)
    for group in range(state.popularity.shape[0]):
        state.popularity[group] >>= 1
    state.numbers[_PERIOD] >>= 1


@kernel
def _cool(state: ReuseState, slot: int) -> None:
    group = int(state.hashes[slot] & np.uint64(state.popularity.shape[0] - 1))
    state.hot_groups[group] -= 1
    state.numbers[_HOT] -= 1


@kernel
def _change_stratum(state: ReuseState, slot: int, stratum: int) -> None:
    position = int(state.positions[slot])
    if position >= 0:
        _weigh(state.trees, state.stacked, state.strata[slot], position, -state.sizes[slot])
        _weigh(state.trees, state.stacked, stratum, position, state.sizes[slot])
    state.strata[slot] = stratum


# --- followed keys ------------------------------------------------------------------------


@kernel
def _find(table: NDArray[np.int32], keys: NDArray[np.uint64], key: np.uint64, hashed: np.uint64) -> int:
    mask = table.shape[0] - 1
    place = np.int64(hashed & np.uint64(mask))
    while table[place] >= 0:
        slot = table[place]
        if keys[slot] == key:
            return int(slot)
        place = (place + 1) & mask
    return -1


@kernel
def _insert(state: ReuseState, now_ns: int, key: np.uint64, hashed: np.uint64, hot: bool) -> int:
    """A slot for a new key; -1 if making room lowered the threshold below it and it is not hot."""
    if state.numbers[_USED] == state.keys.shape[0]:
        _make_room(state, now_ns)
        if not hot and hashed >> _HASH_SHIFT >= state.thresholds[_NOW]:
            return -1
    mask = state.table.shape[0] - 1
    place = np.int64(hashed & np.uint64(mask))
    while state.table[place] >= 0:
        place = (place + 1) & mask
    slot = state.free_slots[state.keys.shape[0] - 1 - state.numbers[_USED]]
    state.numbers[_USED] += 1
    state.table[place] = slot
    state.keys[slot] = key
    state.hashes[slot] = hashed
    state.positions[slot] = _OUT_OF_STACK
    state.strata[slot] = _BY_SAMPLE
    return int(slot)


@kernel
def _make_room(state: ReuseState, now_ns: int) -> None:
    """Free an eighth of the slots: first keys only seen and too long ago, then by a lower threshold.

    An eighth at a time keeps the scan's cost per reference constant.
    """
    goal = state.keys.shape[0] - max(1, state.keys.shape[0] // 8)
    _forget_expired(state, now_ns)
    while state.numbers[_USED] > goal and state.thresholds[_NOW] > np.uint64(1):
        state.thresholds[_NOW] -= max(state.thresholds[_NOW] >> np.uint64(3), np.uint64(1))
        for slot in range(state.keys.shape[0]):
            by_sample = state.positions[slot] != _FREE and state.strata[slot] == _BY_SAMPLE
            if by_sample and state.hashes[slot] >> _HASH_SHIFT >= state.thresholds[_NOW]:
                _remove(state, slot)


@kernel
def _forget_expired(state: ReuseState, now_ns: int) -> None:
    """Forget keys only seen, and too long ago to be let in at their next reference."""
    for slot in range(state.keys.shape[0]):
        if state.positions[slot] == _OUT_OF_STACK and now_ns - state.seen_ns[slot] > state.numbers[_WINDOW_NS]:
            _remove(state, slot)


@kernel
def _remove(state: ReuseState, slot: int) -> None:
    """Forget a key, closing the gap it leaves in the probe sequence."""
    _unstack(state, slot)
    if state.strata[slot] == _FOR_ITSELF:
        _cool(state, slot)
    mask = state.table.shape[0] - 1
    hole = np.int64(state.hashes[slot] & np.uint64(mask))
    while state.table[hole] != slot:
        hole = (hole + 1) & mask
    place = hole
    while True:
        place = (place + 1) & mask
        other = state.table[place]
        if other < 0:
            break
        home = np.int64(state.hashes[other] & np.uint64(mask))
        if ((place - home) & mask) >= ((place - hole) & mask):
            state.table[hole] = other
            hole = place
    state.table[hole] = -1
    state.positions[slot] = _FREE
    state.numbers[_USED] -= 1
    state.free_slots[state.keys.shape[0] - 1 - state.numbers[_USED]] = slot


# --- recency stack ------------------------------------------------------------------------


@kernel
def _weigh(trees: NDArray[np.int64], stacked: NDArray[np.int64], stratum: int, position: int, size: int) -> None:
    """Add a size at a position of a stratum's tree; a negative one takes it away."""
    stacked[stratum] += size
    node = position + 1
    while node < trees.shape[0]:
        trees[node, stratum] += size
        node += node & -node


@kernel
def _depth(trees: NDArray[np.int64], stacked: NDArray[np.int64], position: int, scales: tuple[float, float]) -> float:
    """Size of all distinct keys touched after a position, followed or not, as the strata estimate it."""
    by_sample, for_itself = stacked[0], stacked[1]
    node = position + 1
    while node > 0:
        by_sample -= trees[node, 0]
        for_itself -= trees[node, 1]
        node -= node & -node
    return float(by_sample * scales[0] + for_itself * scales[1])


@kernel
def _stack(state: ReuseState, slot: int) -> None:
    """Put a key on top, and forget what that pushes below the horizon."""
    if state.numbers[_NEXT] == state.owners.shape[0]:
        _compact(state)
    position = int(state.numbers[_NEXT])
    state.numbers[_NEXT] += 1
    state.positions[slot] = position
    state.owners[position] = slot
    _weigh(state.trees, state.stacked, state.strata[slot], position, state.sizes[slot])
    scales = _scales(state.thresholds, state.rates)
    if state.rates[1] > 0.0 and state.stacked[0] * scales[0] + state.stacked[1] * scales[1] > state.rates[1]:
        _forget_deep(state, scales)


@kernel
def _unstack(state: ReuseState, slot: int) -> None:
    position = int(state.positions[slot])
    if position >= 0:
        _weigh(state.trees, state.stacked, state.strata[slot], position, -state.sizes[slot])
        state.owners[position] = -1
        state.positions[slot] = _OUT_OF_STACK


@kernel
def _compact(state: ReuseState) -> None:
    """Renumber the stack from zero; a threshold that fell in a flood of keys may rise a step again."""
    state.trees[:] = 0
    upto = 0
    for position in range(state.owners.shape[0]):
        slot = state.owners[position]
        if slot >= 0:
            state.owners[position] = -1
            state.owners[upto] = slot
            state.positions[slot] = upto
            upto += 1
            state.trees[upto, state.strata[slot]] = state.sizes[slot]
    for node in range(1, state.trees.shape[0]):
        parent = node + (node & -node)
        if parent < state.trees.shape[0]:
            state.trees[parent, 0] += state.trees[node, 0]
            state.trees[parent, 1] += state.trees[node, 1]
    state.numbers[_NEXT] = upto
    state.numbers[_TAIL] = 0
    _forget_expired(state, state.numbers[_LAST_NS])
    if state.numbers[_USED] < state.keys.shape[0] // 4:
        raised = state.thresholds[_NOW] + (state.thresholds[_NOW] >> np.uint64(3)) + np.uint64(1)
        state.thresholds[_NOW] = min(raised, state.thresholds[_START])


@kernel
def _forget_deep(state: ReuseState, scales: tuple[float, float]) -> None:
    """Drop keys from the deep end while those above them alone fill the horizon."""
    while state.numbers[_TAIL] < state.numbers[_NEXT]:
        slot = state.owners[state.numbers[_TAIL]]
        if slot >= 0:
            total = state.stacked[0] * scales[0] + state.stacked[1] * scales[1]
            if total - state.sizes[slot] * scales[state.strata[slot]] <= state.rates[1]:
                return
            _unstack(state, slot)
            if state.numbers[_WINDOW_NS] == 0:
                _remove(state, slot)
        state.numbers[_TAIL] += 1


# --- reading ------------------------------------------------------------------------------


def curve(state: ReuseState, now_ns: int, pace: Pace = Pace.AUTO) -> Curve:
    """Cumulative value per second over capacities. Rates are unbiased from the first second on."""
    histogram, offered = _per_second(state, now_ns, pace)
    bins = state.edges.shape[0] - 1
    value = np.zeros((histogram.shape[0], bins + 1))
    value[:, 1:] = np.cumsum(histogram[:, :bins], axis=1)
    return Curve(state.edges, value, histogram[:, : bins + 1].sum(axis=1), offered)


def histogram_per_second(state: ReuseState, now_ns: int, pace: Pace = Pace.AUTO) -> NDArray[np.float64]:
    """Differences of `curve` per bin, [V, B + 1]: the last, open bin holds the rest, cold ones included."""
    result = curve(state, now_ns, pace)
    return np.column_stack([np.diff(result.value, axis=1), np.clip(result.offered - result.value[:, -1], 0.0, None)])


def drift(state: ReuseState) -> float:
    """Mean distance of the fast and the slow cumulative curve of channel 0, each normalised; 0..1.

    Cumulative, not per bin: with few samples bins differ by chance alone.
    """
    fast, slow = state.bins[0, :, 0].sum(axis=0), state.bins[1, :, 0].sum(axis=0)
    if fast.sum() <= 0.0 or slow.sum() <= 0.0:
        return 0.0
    return float(np.abs(np.cumsum(fast) / fast.sum() - np.cumsum(slow) / slow.sum()).mean())


def _per_second(state: ReuseState, now_ns: int, pace: Pace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bins [V, B + 2] and offered [V] as rates; `AUTO` keeps the fast rate even with the slow shape.

    Two curves are compared with each other in one sum, so both must speak of the same moment's rate.
    """
    if pace is not Pace.AUTO:
        factor = _rate_factor(state, now_ns, int(pace))
        return _repaired(state.bins[pace], state.offered[pace]) * factor, state.offered[pace] * factor
    fast, offered = _per_second(state, now_ns, Pace.FAST)
    if drift(state) > _DRIFT_MAX:
        return fast, offered
    slow, offered_slow = _per_second(state, now_ns, Pace.SLOW)
    ratio = np.divide(offered, offered_slow, out=np.zeros_like(offered), where=offered_slow > 0.0)
    return slow * ratio[:, None], offered


def _repaired(strata: NDArray[np.float64], offered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both strata together [V, B + 2], the sample scaled to what is known to have been offered beside the hot keys."""
    by_sample, for_itself = strata[_BY_SAMPLE], strata[_FOR_ITSELF]
    sampled = by_sample.sum(axis=1)
    beside = np.clip(offered - for_itself.sum(axis=1), 0.0, None)
    ratio = np.divide(beside, sampled, out=np.ones_like(sampled), where=sampled > 0.0)
    return np.asarray(by_sample * ratio[:, None] + for_itself)


def _rate_factor(state: ReuseState, now_ns: int, pace: int) -> float:
    """Turns a decayed sum into a rate per second, correct also while younger than the half-life."""
    now_ns = max(now_ns, int(state.numbers[_LAST_NS]))
    half_life_ns = float(state.half_lives_ns[pace])
    age_ns = max(now_ns - int(state.numbers[_STARTED_NS]), 1_000_000_000)
    decayed = 0.5 ** ((now_ns - int(state.origins_ns[pace])) / half_life_ns)
    seconds = half_life_ns / 1e9 / np.log(2.0) * -np.expm1(-np.log(2.0) * age_ns / half_life_ns)
    return float(decayed / seconds)
