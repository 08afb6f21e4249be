"""Sampled reuse distances, recorded: how much of other keys a stream touches between two touches of one key.

Keys whose hash lies under a threshold are followed; each has a position in a recency stack, and
Fenwick trees over positions hold sizes, so that the distance of a re-reference (bytes of distinct
keys touched since, scaled by the sampling rate, plus its own) is one tree operation. What the
reference is worth is added to the bin of that distance: the cumulative sum up to C is what an LRU cache of C
saves. The number of followed keys is bounded: when it is reached the threshold falls by an eighth and
the keys above it are dropped. Contributions are stored already divided by the rate in force, so a
falling rate needs no rescaling. (Fixed-size SHARDS: Waldspurger et al., FAST 2015.)

Two things are known of every reference, followed or not, from a small hashed array: whether its group of keys is
hot, and how many references ago the group was last touched. Hot keys carry much of real traffic and whether they are in
a sample is luck, so they are followed whatever their hash and stand for themselves alone. And as the gap all
but decides the distance, references are counted by classes of it, which lets `reuse_curve` repair what the sample missed.

With a `window_ns` the curve is that of a cache with a doorkeeper: a key enters only at a reference
at most `window_ns` after its previous one. A key that comes back later than that stays only in caches
big enough to still hold it, so each stacked key carries a `barrier`: the smallest capacity that has it.

Two copies of every bin decay with a fast and a slow half-life, lazily: newer contributions weigh more.
Nothing here allocates, so a simulator's kernel may call these as a node does.
"""

import math

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import inlined_kernel, kernel, prefetch
from agents.numerics.reuse_state import (
    BY_SAMPLE,
    FOR_ITSELF,
    FREE,
    GAPS,
    HASH_BITS,
    HASHED_AT_ONCE,
    NOBODY,
    OUT_OF_STACK,
    PACES,
    STRATA,
    ReuseState,
)

_HASH_SHIFT = np.uint64(64 - HASH_BITS)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EVERYTHING = np.uint64(1 << HASH_BITS)  # the threshold under which every hash lies
_EXPONENT_MAX = 32.0  # decay weights are renormalised before 2**32, far from losing small bins
_HOT_SHARE_OF_KEYS = 2  # half of the followed keys may be hot
_HOT_COUNT_MIN = 2  # before it, a key's share of the traffic is not known
_AGEING_PER_KEY = 64  # references per followed key between two halvings of the counters
_MANTISSA_BITS = 52  # of a float64
_EXPONENT_BIAS = 1022  # of one whose fraction lies in 0.5 to 1
_MANTISSA_OF_SQRT_HALF = int(np.array(0.7071067811865476).view(np.int64)) & ((1 << _MANTISSA_BITS) - 1)
_COLD_COLUMN = -2  # columns of `bins` from the end; before them lies what is deeper than the last bin
_OFFERED_COLUMN = -1


@kernel
def record_user(state: ReuseState, now_ns: int, key: np.uint64, size: int) -> float:
    """One reference; returns its distance, infinite if the key is cold or not followed."""
    _advance(state, now_ns)
    distance = _record(state, key, hash_of(key, state.head[0]["seed"]), size)
    _add_offers(state, size)
    return distance


@kernel
def record_rows(state: ReuseState, now_ns: int, rows: NDArray[np.int64], row_bytes: int) -> None:
    """References of rows [N] (already distinct within their batch) that all weigh `row_bytes`."""
    _advance(state, now_ns)
    hashes, seed = state.head[0]["hashes"], state.head[0]["seed"]
    for first in range(0, rows.shape[0], HASHED_AT_ONCE):
        count = min(HASHED_AT_ONCE, rows.shape[0] - first)
        for position in range(count):  # long before they are needed: waits for memory overlap instead of adding up
            hashes[position] = hash_of(np.uint64(rows[first + position]), seed)
            prefetch(state.places, _home(state, hashes[position]))
        for position in range(count):
            slot = state.places[_home(state, hashes[position])]["slot"]
            if slot >= 0:
                prefetch(state.entries, slot)
        for position in range(count):
            _record(state, np.uint64(rows[first + position]), hashes[position], row_bytes)
    _add_offers(state, row_bytes)


@kernel
def recall_rows(state: ReuseState, rows: NDArray[np.int64], row_bytes: int) -> None:
    """Stack rows [N], newest first, as if they had been in for long; no reference is counted.

    For a fleet that starts in mid-life: what is asked for first would otherwise look as if it were new.
    """
    for back in range(1, rows.shape[0] + 1):
        key = np.uint64(rows[-back])
        hashed = hash_of(key, state.head[0]["seed"])
        if hashed >> _HASH_SHIFT >= state.head[0]["threshold"] or _find(state, key, hashed) >= 0:
            continue
        slot = _insert(state, key, hashed, False)
        if slot >= 0:
            entry = state.entries[slot]
            entry["seen_ns"] = state.head[0]["last_ns"]
            entry["bytes"] = row_bytes
            entry["barrier"] = 0.0
            _stack(state, slot)


@inlined_kernel
def _record(state: ReuseState, key: np.uint64, hashed: np.uint64, size: int) -> float:
    """What is done at every reference, and so without a call: nine in ten are of keys that nobody follows."""
    head = state.head[0]
    head["references"] += 1
    distance = np.inf
    if head["threshold"] == _EVERYTHING:  # nobody need be hot, nothing is missed
        head["offers"][0] += 1
        distance = _touch(state, key, hashed, _find(state, key, hashed), 0, size)
    else:
        # counted for its group of keys, followed or not, or being hot would depend on the sample
        place = state.places[_home(state, hashed)]
        gap_class = _class_of_gap(place["last"], np.uint32(head["references"]))
        place["last"] = np.uint32(head["references"])
        place["references"] += 1
        head["period"] += 1
        if hashed >> _HASH_SHIFT < head["threshold"] or place["hot"] > 0 or _makes_hot(state, place["references"]):
            distance = _follow(state, key, hashed, gap_class, size)
        else:
            head["offers"][gap_class] += 1
        if head["period"] >= _AGEING_PER_KEY * state.entries.shape[0]:
            _age(state)
    return distance


@kernel
def _follow(state: ReuseState, key: np.uint64, hashed: np.uint64, gap_class: int, size: int) -> float:
    """Reference of a key that is sampled, or whose group is hot or becomes so."""
    head, place = state.head[0], state.places[_home(state, hashed)]
    sampled = hashed >> _HASH_SHIFT < head["threshold"]
    slot = NOBODY
    if sampled or place["hot"] > 0:
        slot = _find(state, key, hashed)
    if slot >= 0 and state.entries[slot]["stratum"] == FOR_ITSELF:
        return _touch(state, key, hashed, slot, gap_class, size)
    distance = np.inf
    head["offers"][gap_class] += 1
    if sampled:
        distance = _touch(state, key, hashed, slot, gap_class, size)
        if slot >= 0 and state.entries[slot]["waiting"] and _entered_now(state, slot):
            _change_stratum(state, slot, FOR_ITSELF)
    elif slot >= 0:
        _let_in(state, slot, size)
    if place["hot"] == 0 and _makes_hot(state, place["references"]):
        _promote(state, key, hashed, size)
    return distance


@kernel
def hash_of(key: np.uint64, seed: np.uint64) -> np.uint64:
    """A well-mixed 64-bit hash; the seed makes independent samples of one stream possible."""
    x = key + (seed + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@kernel
def _class_of_gap(last: np.uint32, now: np.uint32) -> int:
    """0 for a group never touched, else 1 + the half octave of the references since; ordinals may wrap."""
    if last == np.uint32(0):
        return 0
    bits = np.float64(np.uint32(now - last)).view(np.int64)  # read, not computed: this is done for every reference
    exponent = (bits >> _MANTISSA_BITS) - _EXPONENT_BIAS
    upper_half = np.int64((bits & ((1 << _MANTISSA_BITS) - 1)) >= _MANTISSA_OF_SQRT_HALF)
    return max(1, min(int(2 * exponent - 1 + upper_half), GAPS - 1))


@kernel
def _advance(state: ReuseState, now_ns: int) -> None:
    """Time that never runs backwards, with the decay weights kept in range."""
    head = state.head[0]
    if now_ns <= head["last_ns"]:
        return
    head["last_ns"] = now_ns
    rows = state.bins.shape[0] // PACES
    for pace in range(PACES):
        halvings = (now_ns - head["origin_ns"][pace]) / head["half_life_ns"][pace]
        if halvings > _EXPONENT_MAX:
            factor = 0.5**halvings
            for row in range(pace * rows, (pace + 1) * rows):
                for column in range(state.bins.shape[1]):
                    state.bins[row, column] *= factor
            head["origin_ns"][pace] = now_ns
            halvings = 0.0
        head["weight"][pace] = 2.0**halvings


@kernel
def _add_offers(state: ReuseState, size: int) -> None:
    """Count the references of keys that do not stand for themselves, followed or not; all of them weigh `size`."""
    head = state.head[0]
    column = state.bins.shape[1] + _OFFERED_COLUMN
    for gap_class in range(GAPS):
        if head["offers"][gap_class] > 0:
            _add(state, BY_SAMPLE, gap_class, column, size, head["offers"][gap_class] / head["stream_rate"], 0.0)
            head["offers"][gap_class] = 0


@kernel
def _add(state: ReuseState, stratum: int, gap_class: int, column: int, size: int, scale: float, sampled_share: float) -> None:
    """One reference's worth in every channel, and how much of its distance rests on the sample."""
    head = state.head[0]
    channels = head["channels"]
    for pace in range(PACES):
        row = ((pace * STRATA + stratum) * GAPS + gap_class) * (channels + 1)
        worth = head["weight"][pace] * scale
        state.bins[row + channels, column] += worth * sampled_share
        for channel in range(channels):
            state.bins[row + channel, column] += worth
            worth *= size


@kernel
def _scales(state: ReuseState) -> tuple[float, float]:
    """How many references of the whole stream one reference stands for: of a sampled key, of a hot one."""
    head = state.head[0]
    return 2.0**HASH_BITS / (np.float64(head["threshold"]) * head["stream_rate"]), 1.0 / head["stream_rate"]


@kernel
def _touch(state: ReuseState, key: np.uint64, hashed: np.uint64, slot: int, gap_class: int, size: int) -> float:
    """Reference of a followed key (`slot` NOBODY: from now on): its distance, its bin, its new place in the stack."""
    head = state.head[0]
    head["followed"] += 1
    now_ns = head["last_ns"]
    by_sample, for_itself = _scales(state)
    stratum = BY_SAMPLE
    distance, sampled_share = np.inf, 0.0
    back_soon = head["window_ns"] == 0
    if slot >= 0:
        entry = state.entries[slot]
        stratum = entry["stratum"]
        if stratum == FOR_ITSELF:
            entry["uses"] += 1
        back_soon = back_soon or now_ns - entry["seen_ns"] <= head["window_ns"]
        if entry["position"] >= 0:
            above_by_sample, above_for_itself = _above(state, entry["position"])
            sampled = above_by_sample * by_sample
            distance = sampled + above_for_itself * for_itself + entry["bytes"]
            sampled_share = sampled / distance if distance > 0.0 else 0.0  # a prefix of no whole block weighs nothing
            distance = max(distance, entry["barrier"])
            _unstack(state, slot)
    scale = for_itself if stratum == FOR_ITSELF else by_sample
    _add(state, stratum, gap_class, _column(state, distance), size, scale, sampled_share)
    if slot < 0:
        slot = _insert(state, key, hashed, False)
        if slot < 0:
            return distance
    entry = state.entries[slot]
    entry["seen_ns"] = now_ns
    entry["bytes"] = size
    if back_soon or distance <= head["capacity_max"]:
        entry["barrier"] = 0.0 if back_soon else distance
        _stack(state, slot)
    return distance


@kernel
def _column(state: ReuseState, distance: float) -> int:
    """Capacity equal to the distance is enough, so a bin holds its upper edge."""
    head = state.head[0]
    columns = int(state.bins.shape[1])
    if not np.isfinite(distance):
        return columns + _COLD_COLUMN
    return min(columns - 3, max(0, math.ceil(distance * int(head["bins"]) / float(head["capacity_max"])) - 1))


# --- hot keys -----------------------------------------------------------------------------


@kernel
def _hot_count(state: ReuseState) -> int:
    """References in this period that make a key hot: half of a followed key's share of the traffic."""
    return int(max(_HOT_COUNT_MIN, state.head[0]["period"] // (2 * state.entries.shape[0])))


@kernel
def _makes_hot(state: ReuseState, references: int) -> bool:
    """Whether there are `_hot_count` of them, and room for one more hot key; without divisions, as it is asked at every reference."""
    busy = references >= _HOT_COUNT_MIN and (references + 1) * (2 * state.entries.shape[0]) > state.head[0]["period"]
    return bool(busy and state.head[0]["hot"] * _HOT_SHARE_OF_KEYS < state.entries.shape[0])


@kernel
def _promote(state: ReuseState, key: np.uint64, hashed: np.uint64, size: int) -> None:
    """From its next reference on the key stands for itself; the present one still counts by the sample.

    Behind a doorkeeper it must first be seen to enter: of a key that was not followed it is not known whether it is
    in already. Sampled keys wait as well, or the sample would no longer be one.
    """
    head = state.head[0]
    slot = _find(state, key, hashed)
    unknown = slot < 0
    if unknown:
        slot = _insert(state, key, hashed, True)
        state.entries[slot]["seen_ns"] = head["last_ns"]
        state.entries[slot]["bytes"] = size
        state.entries[slot]["barrier"] = 0.0
    entry, place = state.entries[slot], state.places[_home(state, hashed)]
    place["hot"] += 1
    head["hot"] += 1
    entry["uses"] = place["references"]
    entry["waiting"] = head["window_ns"] > 0
    if head["window_ns"] == 0:
        _change_stratum(state, slot, FOR_ITSELF)
        if unknown:
            _stack(state, slot)


@kernel
def _entered_now(state: ReuseState, slot: int) -> bool:
    """Whether the doorkeeper let this key in at the reference just recorded."""
    entry = state.entries[slot]
    return bool(entry["position"] >= 0 and entry["barrier"] == 0.0)


@kernel
def _let_in(state: ReuseState, slot: int, size: int) -> None:
    """A waiting key that is not sampled came back: soon enough, and it stands for itself from now on."""
    head, entry = state.head[0], state.entries[slot]
    soon = head["window_ns"] == 0 or head["last_ns"] - entry["seen_ns"] <= head["window_ns"]
    entry["seen_ns"] = head["last_ns"]
    entry["bytes"] = size
    if soon:
        _change_stratum(state, slot, FOR_ITSELF)
        _stack(state, slot)


@kernel
def _age(state: ReuseState) -> None:
    """Halve all counts; hot keys that cooled to half of what made them hot go back to the sample."""
    head = state.head[0]
    least = _hot_count(state) // 2
    for slot in range(state.entries.shape[0]):
        entry = state.entries[slot]
        if entry["position"] == FREE or not _is_hot(state, slot):
            continue
        if entry["uses"] >= least:
            entry["uses"] >>= 1
        elif hash_of(entry["key"], head["seed"]) >> _HASH_SHIFT < head["threshold"]:
            _cool(state, slot)
        else:
            _remove(state, slot)
    for place in range(state.places.shape[0]):
        state.places[place]["references"] >>= 1
    head["period"] >>= 1


@kernel
def _is_hot(state: ReuseState, slot: int) -> bool:
    entry = state.entries[slot]
    return bool(entry["waiting"] or entry["stratum"] == FOR_ITSELF)


@kernel
def _cool(state: ReuseState, slot: int) -> None:
    """Back to the sample, or to being waited for no longer."""
    entry = state.entries[slot]
    state.places[_home(state, hash_of(entry["key"], state.head[0]["seed"]))]["hot"] -= 1
    state.head[0]["hot"] -= 1
    _change_stratum(state, slot, BY_SAMPLE)


@kernel
def _change_stratum(state: ReuseState, slot: int, stratum: int) -> None:
    entry = state.entries[slot]
    if entry["position"] >= 0:
        _weigh(state, entry["stratum"], entry["position"], -entry["bytes"])
        _weigh(state, stratum, entry["position"], entry["bytes"])
    entry["stratum"] = stratum
    entry["waiting"] = False


# --- followed keys ------------------------------------------------------------------------


@kernel
def _home(state: ReuseState, hashed: np.uint64) -> int:
    return int(np.int64(hashed & np.uint64(state.places.shape[0] - 1)))


@kernel
def _find(state: ReuseState, key: np.uint64, hashed: np.uint64) -> int:
    place = _home(state, hashed)
    slot = state.places[place]["slot"]
    while slot >= 0:
        if state.entries[slot]["key"] == key:
            return int(slot)
        place = (place + 1) & (state.places.shape[0] - 1)
        slot = state.places[place]["slot"]
    return NOBODY


@kernel
def _insert(state: ReuseState, key: np.uint64, hashed: np.uint64, hot: bool) -> int:
    """A slot for a new key; NOBODY if making room lowered the threshold below it and it is not hot."""
    head = state.head[0]
    if head["free"] == NOBODY:
        _make_room(state)
        if not hot and hashed >> _HASH_SHIFT >= head["threshold"]:
            return NOBODY
    place = _home(state, hashed)
    while state.places[place]["slot"] >= 0:
        place = (place + 1) & (state.places.shape[0] - 1)
    slot = head["free"]
    entry = state.entries[slot]
    head["free"] = entry["next_free"]
    head["used"] += 1
    state.places[place]["slot"] = slot
    entry["key"] = key
    entry["position"] = OUT_OF_STACK
    entry["stratum"] = BY_SAMPLE
    entry["waiting"] = False
    return int(slot)


@kernel
def _make_room(state: ReuseState) -> None:
    """Free an eighth of the slots: first keys only seen and too long ago, then by a lower threshold.

    An eighth at a time keeps the scan's cost per reference constant.
    """
    head = state.head[0]
    goal = state.entries.shape[0] - max(1, state.entries.shape[0] // 8)
    _forget_expired(state)
    while head["used"] > goal and head["threshold"] > np.uint64(1):
        head["threshold"] -= max(head["threshold"] >> np.uint64(3), np.uint64(1))
        for slot in range(state.entries.shape[0]):
            entry = state.entries[slot]
            by_sample = entry["position"] != FREE and entry["stratum"] == BY_SAMPLE
            if by_sample and hash_of(entry["key"], head["seed"]) >> _HASH_SHIFT >= head["threshold"]:
                _remove(state, slot)


@kernel
def _forget_expired(state: ReuseState) -> None:
    """Forget keys only seen, and too long ago to be let in at their next reference; none of those waits on."""
    head = state.head[0]
    for slot in range(state.entries.shape[0]):
        entry = state.entries[slot]
        if entry["position"] == FREE or head["last_ns"] - entry["seen_ns"] <= head["window_ns"]:
            continue
        if entry["position"] == OUT_OF_STACK:
            _remove(state, slot)
        elif entry["waiting"]:
            _cool(state, slot)


@kernel
def _remove(state: ReuseState, slot: int) -> None:
    """Forget a key, closing the gap it leaves in the probe sequence."""
    head, entry = state.head[0], state.entries[slot]
    _unstack(state, slot)
    if _is_hot(state, slot):
        _cool(state, slot)
    mask = state.places.shape[0] - 1
    hole = _home(state, hash_of(entry["key"], head["seed"]))
    while state.places[hole]["slot"] != slot:
        hole = (hole + 1) & mask
    place = (hole + 1) & mask
    while state.places[place]["slot"] >= 0:
        other = state.places[place]["slot"]
        home = _home(state, hash_of(state.entries[other]["key"], head["seed"]))
        if ((place - home) & mask) >= ((place - hole) & mask):
            state.places[hole]["slot"] = other
            hole = place
        place = (place + 1) & mask
    state.places[hole]["slot"] = NOBODY
    entry["position"] = FREE
    entry["next_free"] = head["free"]
    head["free"] = slot
    head["used"] -= 1


# --- recency stack ------------------------------------------------------------------------


@kernel
def _weigh(state: ReuseState, stratum: int, position: int, size: int) -> None:
    """Add a size at a position of a stratum's tree; a negative one takes it away."""
    head = state.head[0]
    node = np.int64(position) + 1
    if stratum == FOR_ITSELF:
        head["stacked_for_itself"] += size
        while node < state.stack.shape[0]:
            state.stack[node]["for_itself"] += size
            node += node & -node
    else:
        head["stacked_by_sample"] += size
        while node < state.stack.shape[0]:
            state.stack[node]["by_sample"] += size
            node += node & -node


@kernel
def _above(state: ReuseState, position: int) -> tuple[int, int]:
    """Bytes of the followed keys touched after a position, of the sample and of the hot ones."""
    by_sample, for_itself = state.head[0]["stacked_by_sample"], state.head[0]["stacked_for_itself"]
    node = np.int64(position) + 1
    while node > 0:
        by_sample -= state.stack[node]["by_sample"]
        for_itself -= state.stack[node]["for_itself"]
        node -= node & -node
    return by_sample, for_itself


@kernel
def _stack(state: ReuseState, slot: int) -> None:
    """Put a key on top, and forget what that pushes below the horizon."""
    head, entry = state.head[0], state.entries[slot]
    if head["next"] == state.stack.shape[0] - 1:
        _compact(state)
    position = head["next"]
    head["next"] += 1
    entry["position"] = position
    state.stack[position]["owner"] = slot
    _weigh(state, entry["stratum"], position, entry["bytes"])
    by_sample, for_itself = _scales(state)
    if head["horizon"] > 0.0 and head["stacked_by_sample"] * by_sample + head["stacked_for_itself"] * for_itself > head["horizon"]:
        _forget_deep(state, by_sample, for_itself)


@kernel
def _unstack(state: ReuseState, slot: int) -> None:
    entry = state.entries[slot]
    if entry["position"] >= 0:
        _weigh(state, entry["stratum"], entry["position"], -entry["bytes"])
        state.stack[entry["position"]]["owner"] = NOBODY
        entry["position"] = OUT_OF_STACK


@kernel
def _compact(state: ReuseState) -> None:
    """Renumber the stack from zero; a threshold that fell in a flood of keys may rise a step again."""
    head = state.head[0]
    for node in range(state.stack.shape[0]):
        state.stack[node]["by_sample"] = 0
        state.stack[node]["for_itself"] = 0
    upto = 0
    for position in range(state.stack.shape[0] - 1):
        slot = state.stack[position]["owner"]
        if slot >= 0:
            entry = state.entries[slot]
            state.stack[position]["owner"] = NOBODY
            state.stack[upto]["owner"] = slot
            entry["position"] = upto
            upto += 1
            if entry["stratum"] == FOR_ITSELF:
                state.stack[upto]["for_itself"] = entry["bytes"]
            else:
                state.stack[upto]["by_sample"] = entry["bytes"]
    for node in range(1, state.stack.shape[0]):
        parent = node + (node & -node)
        if parent < state.stack.shape[0]:
            state.stack[parent]["by_sample"] += state.stack[node]["by_sample"]
            state.stack[parent]["for_itself"] += state.stack[node]["for_itself"]
    head["next"] = upto
    head["tail"] = 0
    _forget_expired(state)
    if head["used"] < state.entries.shape[0] // 4:
        raised = head["threshold"] + (head["threshold"] >> np.uint64(3)) + np.uint64(1)
        head["threshold"] = min(raised, head["threshold_start"])


@kernel
def _forget_deep(state: ReuseState, by_sample: float, for_itself: float) -> None:
    """Drop keys from the deep end while those above them alone fill the horizon."""
    head = state.head[0]
    while head["tail"] < head["next"]:
        slot = state.stack[head["tail"]]["owner"]
        if slot >= 0:
            entry = state.entries[slot]
            total = head["stacked_by_sample"] * by_sample + head["stacked_for_itself"] * for_itself
            own = entry["bytes"] * (for_itself if entry["stratum"] == FOR_ITSELF else by_sample)
            if total - own <= head["horizon"]:
                return
            _unstack(state, slot)
            if head["window_ns"] == 0:
                _remove(state, slot)
        head["tail"] += 1
