"""Sampled reuse-distance value curves: what a cache of any size would save, from one pass over a stream.

Keys whose hash lies under a threshold are followed; each has a position in a recency stack, and a
Fenwick tree over positions holds sizes, so that the distance of a re-reference (bytes of distinct
keys touched since, scaled by the sampling rate, plus its own) is one tree operation. The value of the
reference is added to the bin of that distance: the cumulative sum up to C is what an LRU cache of C
saves. The number of followed keys is bounded: when it is reached the threshold falls by an eighth and
the keys above it are dropped. Contributions are stored already divided by the rate in force, so a
falling rate needs no rescaling. What sampling missed or doubled of the whole stream's value (a few very
hot keys, as a rule) is repaired in the first bin.

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

KEYS_MAX = 8192  # about 1 MB of state
BINS = 128  # a bin is then under half of the actuator's largest step per second
_HASH_BITS = 53  # sampled hashes are exact in float64, so rates are too
_HASH_SHIFT = np.uint64(64 - _HASH_BITS)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EXPONENT_MAX = 32.0  # decay weights are renormalised before 2**32, far from losing small bins
_OUT_OF_STACK = -1
_FREE = -2
_DRIFT_MAX = 0.1  # mean distance of the normalised cumulative curves above which the slow one is stale

# places in `numbers`
_USED = 0  # followed keys, in the stack or only seen
_NEXT = 1  # next free position
_TAIL = 2  # no stacked key lies below this position
_STACKED_SIZE = 3  # sum of stacked sizes
_WINDOW_NS = 4
_STARTED_NS = 5
_LAST_NS = 6
_REFERENCES = 7
_SAMPLED = 8
_NUMBERS = 9

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
    free_slots: NDArray[np.int32]  # [K]
    tree: NDArray[np.int64]  # [positions + 1]
    owners: NDArray[np.int32]  # [positions] slot at a position, -1 none
    edges: NDArray[np.float64]  # [B + 1]
    bins: NDArray[np.float64]  # [2, V, B + 2] decayed; then beyond the last edge, then cold
    offered: NDArray[np.float64]  # [2, V] decayed value of all references, sampled or not
    origins_ns: NDArray[np.int64]  # [2] times at which a contribution weighs 1
    half_lives_ns: NDArray[np.float64]  # [2]
    numbers: NDArray[np.int64]
    thresholds: NDArray[np.uint64]
    rates: NDArray[np.float64]  # [stream rate, horizon]


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
        free_slots=np.arange(keys_max - 1, -1, -1, dtype=np.int32),
        tree=np.zeros(positions + 1, dtype=np.int64),
        owners=np.full(positions, -1, dtype=np.int32),
        edges=np.linspace(0.0, capacity_max, bins + 1),
        bins=np.zeros((2, channels, bins + 2), dtype=np.float64),
        offered=np.zeros((2, channels), dtype=np.float64),
        origins_ns=np.full(2, now_ns, dtype=np.int64),
        half_lives_ns=np.array([half_life_fast_seconds, half_life_slow_seconds]) * 1e9,
        numbers=numbers,
        thresholds=np.array([threshold, threshold, np.uint64(seed)], dtype=np.uint64),
        rates=np.array([stream_rate, horizon_ratio * capacity_max]),
    )


def reference(state: ReuseState, now_ns: int, key: int, size: int, values: NDArray[np.float64]) -> float:
    """One reference: adds `values` [V] at its distance and returns that; inf if cold or not sampled."""
    return _reference(state, now_ns, np.uint64(key), size, values)


def sampling_rate(state: ReuseState) -> float:
    """Total rate in force: this estimator's own times the stream's."""
    return float(state.thresholds[_NOW]) / 2.0**_HASH_BITS * float(state.rates[0])


@kernel
def reference_users(
    state: ReuseState, now_ns: int, keys: NDArray[np.uint64], sizes: NDArray[np.int64], values: NDArray[np.float64]
) -> None:
    """References of several keys at one time, in order; sizes [N], values [N, V]."""
    for i in range(keys.shape[0]):
        _reference(state, now_ns, keys[i], sizes[i], values[i])


@kernel
def reference_rows(state: ReuseState, now_ns: int, rows: NDArray[np.int64], row_bytes: int, values: NDArray[np.float64]) -> None:
    """References of rows (already distinct within their batch) that all weigh `row_bytes` and `values` [V]."""
    now_ns = _advance(state, now_ns)
    for channel in range(values.shape[0]):
        _offer(state, now_ns, channel, values[channel] * rows.shape[0])
    state.numbers[_REFERENCES] += rows.shape[0]
    for i in range(rows.shape[0]):
        key = np.uint64(rows[i])
        hashed = _hash(key, state.thresholds[_SEED])
        if hashed >> _HASH_SHIFT < state.thresholds[_NOW]:
            _touch(state, now_ns, key, hashed, row_bytes, values)


@kernel
def _reference(state: ReuseState, now_ns: int, key: np.uint64, size: int, values: NDArray[np.float64]) -> float:
    now_ns = _advance(state, now_ns)
    for channel in range(values.shape[0]):
        _offer(state, now_ns, channel, values[channel])
    state.numbers[_REFERENCES] += 1
    hashed = _hash(key, state.thresholds[_SEED])
    if hashed >> _HASH_SHIFT >= state.thresholds[_NOW]:
        return np.inf
    return _touch(state, now_ns, key, hashed, size, values)


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
    now_ns = max(now_ns, state.numbers[_LAST_NS])
    state.numbers[_LAST_NS] = now_ns
    for pace in range(2):
        halvings = (now_ns - state.origins_ns[pace]) / state.half_lives_ns[pace]
        if halvings > _EXPONENT_MAX:
            factor = 0.5**halvings
            state.bins[pace] *= factor
            state.offered[pace] *= factor
            state.origins_ns[pace] = now_ns
    return now_ns


@kernel
def _offer(state: ReuseState, now_ns: int, channel: int, value: float) -> None:
    if not np.isfinite(value):
        return
    for pace in range(2):
        state.offered[pace, channel] += value * _weight(state, now_ns, pace) / state.rates[0]


@kernel
def _weight(state: ReuseState, now_ns: int, pace: int) -> float:
    return float(2.0 ** ((now_ns - state.origins_ns[pace]) / state.half_lives_ns[pace]))


@kernel
def _scale(state: ReuseState) -> float:
    """How many references of the whole stream one sampled reference stands for."""
    return float(2.0**_HASH_BITS / (np.float64(state.thresholds[_NOW]) * state.rates[0]))


@kernel
def _touch(state: ReuseState, now_ns: int, key: np.uint64, hashed: np.uint64, size: int, values: NDArray[np.float64]) -> float:
    """Reference of a sampled key: its distance, its value's bin, its new place in the stack."""
    state.numbers[_SAMPLED] += 1
    window_ns = state.numbers[_WINDOW_NS]
    scale = _scale(state)
    slot = _find(state, key, hashed)
    distance = np.inf
    back_soon = window_ns == 0
    if slot >= 0:
        back_soon = window_ns == 0 or now_ns - state.seen_ns[slot] <= window_ns
        if state.positions[slot] >= 0:
            distance = max(_depth(state, slot) * scale + state.sizes[slot], state.barriers[slot])
    _add(state, now_ns, distance, scale, values)
    if slot < 0:
        slot = _insert(state, now_ns, key, hashed)
        if slot < 0:
            return distance
    state.seen_ns[slot] = now_ns
    _unstack(state, slot)
    state.sizes[slot] = size
    if back_soon or distance <= state.edges[-1]:
        state.barriers[slot] = 0.0 if back_soon else distance
        _stack(state, slot)
        _forget_deep(state)
    return distance


@kernel
def _add(state: ReuseState, now_ns: int, distance: float, scale: float, values: NDArray[np.float64]) -> None:
    last = state.edges.shape[0] - 1
    place = last + 1
    if distance <= state.edges[last]:
        # capacity equal to the distance is enough, so a bin holds its upper edge
        place = max(0, int(np.ceil(distance * last / state.edges[last])) - 1)
    elif np.isfinite(distance):
        place = last
    for pace in range(2):
        weight = _weight(state, now_ns, pace) * scale
        for channel in range(values.shape[0]):
            if np.isfinite(values[channel]):
                state.bins[pace, channel, place] += values[channel] * weight


# --- followed keys ------------------------------------------------------------------------


@kernel
def _find(state: ReuseState, key: np.uint64, hashed: np.uint64) -> int:
    mask = state.table.shape[0] - 1
    place = np.int64(hashed & np.uint64(mask))
    while state.table[place] >= 0:
        slot = state.table[place]
        if state.keys[slot] == key:
            return int(slot)
        place = (place + 1) & mask
    return -1


@kernel
def _insert(state: ReuseState, now_ns: int, key: np.uint64, hashed: np.uint64) -> int:
    """A slot for a new key; -1 if making room lowered the threshold below it."""
    if state.numbers[_USED] == state.keys.shape[0]:
        _make_room(state, now_ns)
        if hashed >> _HASH_SHIFT >= state.thresholds[_NOW]:
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
            if state.positions[slot] != _FREE and state.hashes[slot] >> _HASH_SHIFT >= state.thresholds[_NOW]:
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
def _tree_add(tree: NDArray[np.int64], position: int, size: int) -> None:
    node = position + 1
    while node < tree.shape[0]:
        tree[node] += size
        node += node & -node


@kernel
def _depth(state: ReuseState, slot: int) -> int:
    """Sampled size of the keys touched after this one."""
    node = state.positions[slot] + 1
    upto = 0
    while node > 0:
        upto += state.tree[node]
        node -= node & -node
    return int(state.numbers[_STACKED_SIZE] - upto)


@kernel
def _stack(state: ReuseState, slot: int) -> None:
    if state.numbers[_NEXT] == state.owners.shape[0]:
        _compact(state)
    position = state.numbers[_NEXT]
    state.numbers[_NEXT] += 1
    state.positions[slot] = position
    state.owners[position] = slot
    state.numbers[_STACKED_SIZE] += state.sizes[slot]
    _tree_add(state.tree, position, state.sizes[slot])


@kernel
def _unstack(state: ReuseState, slot: int) -> None:
    position = state.positions[slot]
    if position < 0:
        return
    _tree_add(state.tree, position, -state.sizes[slot])
    state.owners[position] = -1
    state.numbers[_STACKED_SIZE] -= state.sizes[slot]
    state.positions[slot] = _OUT_OF_STACK


@kernel
def _compact(state: ReuseState) -> None:
    """Renumber the stack from zero; a threshold that fell in a flood of keys may rise a step again."""
    state.tree[:] = 0
    upto = 0
    for position in range(state.owners.shape[0]):
        slot = state.owners[position]
        if slot >= 0:
            state.owners[position] = -1
            state.owners[upto] = slot
            state.positions[slot] = upto
            _tree_add(state.tree, upto, state.sizes[slot])
            upto += 1
    state.numbers[_NEXT] = upto
    state.numbers[_TAIL] = 0
    _forget_expired(state, state.numbers[_LAST_NS])
    if state.numbers[_USED] < state.keys.shape[0] // 4:
        raised = state.thresholds[_NOW] + (state.thresholds[_NOW] >> np.uint64(3)) + np.uint64(1)
        state.thresholds[_NOW] = min(raised, state.thresholds[_START])


@kernel
def _forget_deep(state: ReuseState) -> None:
    """Drop keys from the deep end while those above them alone fill the horizon."""
    horizon = state.rates[1]
    if horizon == 0.0:
        return
    scale = _scale(state)
    while state.numbers[_TAIL] < state.numbers[_NEXT]:
        slot = state.owners[state.numbers[_TAIL]]
        if slot >= 0:
            if (state.numbers[_STACKED_SIZE] - state.sizes[slot]) * scale <= horizon:
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
    # what sampling missed of the stream belongs, as a rule, to very hot keys: the first bin
    missed = offered - histogram.sum(axis=1)
    value = np.zeros((histogram.shape[0], bins + 1))
    value[:, 1:] = np.clip(np.cumsum(histogram[:, :bins], axis=1) + missed[:, None], 0.0, None)
    total = np.clip(histogram[:, : bins + 1].sum(axis=1) + missed, 0.0, None)
    return Curve(state.edges, value, total, offered)


def histogram_per_second(state: ReuseState, now_ns: int, pace: Pace = Pace.AUTO) -> NDArray[np.float64]:
    """Differences of `curve` per bin, [V, B + 1]: the last, open bin holds the rest, cold ones included."""
    result = curve(state, now_ns, pace)
    return np.column_stack([np.diff(result.value, axis=1), np.clip(result.offered - result.value[:, -1], 0.0, None)])


def drift(state: ReuseState) -> float:
    """Mean distance of the fast and the slow cumulative curve of channel 0, each normalised; 0..1.

    Cumulative, not per bin: with few samples bins differ by chance alone.
    """
    fast, slow = state.bins[0, 0], state.bins[1, 0]
    if fast.sum() <= 0.0 or slow.sum() <= 0.0:
        return 0.0
    return float(np.abs(np.cumsum(fast) / fast.sum() - np.cumsum(slow) / slow.sum()).mean())


def _per_second(state: ReuseState, now_ns: int, pace: Pace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bins [V, B + 2] and offered [V] as rates; `AUTO` keeps the fast rate even with the slow shape.

    Two curves are compared with each other in one sum, so both must speak of the same moment's rate.
    """
    if pace is not Pace.AUTO:
        factor = _rate_factor(state, now_ns, int(pace))
        return state.bins[pace] * factor, state.offered[pace] * factor
    fast, offered = _per_second(state, now_ns, Pace.FAST)
    if drift(state) > _DRIFT_MAX:
        return fast, offered
    slow, offered_slow = _per_second(state, now_ns, Pace.SLOW)
    ratio = np.divide(offered, offered_slow, out=np.zeros_like(offered), where=offered_slow > 0.0)
    return slow * ratio[:, None], offered


def _rate_factor(state: ReuseState, now_ns: int, pace: int) -> float:
    """Turns a decayed sum into a rate per second, correct also while younger than the half-life."""
    now_ns = max(now_ns, int(state.numbers[_LAST_NS]))
    half_life_ns = float(state.half_lives_ns[pace])
    age_ns = max(now_ns - int(state.numbers[_STARTED_NS]), 1_000_000_000)
    decayed = 0.5 ** ((now_ns - int(state.origins_ns[pace])) / half_life_ns)
    seconds = half_life_ns / 1e9 / np.log(2.0) * -np.expm1(-np.log(2.0) * age_ns / half_life_ns)
    return float(decayed / seconds)
