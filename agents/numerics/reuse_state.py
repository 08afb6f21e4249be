"""The memory of a reuse estimator: five arrays, allocated once.

Records keep together what one reference touches, and few arrays make a kernel's call cheap.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KEYS_MAX = 8192  # about 3 MB of state
BINS = 128  # a bin is then under half of the actuator's largest step per second
HASH_BITS = 53  # sampled hashes are exact in float64, so rates are too
GAPS = 56  # classes of references by the gap since the key's group was last touched, two per octave; 0: never
HASHED_AT_ONCE = 64  # rows whose places are asked for before the first is needed: as many lines as wait beside each other
OUT_OF_STACK = -1
FREE = -2
NOBODY = -1
MARGIN = 4  # a quarter of the bins lies beyond the largest capacity of interest: corrections move distances
_PLACES_PER_KEY = 8  # with fewer, keys share counters and cold ones pass for hot

# how a followed key stands in the stack and in the bins: for its share of the sample, or for itself
BY_SAMPLE = 0
FOR_ITSELF = 1
STRATA = 2
PACES = 2

ENTRY = np.dtype(
    [
        ("key", np.uint64),
        ("bytes", np.int64),  # or tokens: the unit of the capacities
        ("seen_ns", np.int64),
        ("barrier", np.float64),  # smallest capacity that holds the key
        ("position", np.int32),  # in the stack; OUT_OF_STACK: only seen
        ("uses", np.int32),  # references of a hot key in this period
        ("stratum", np.int16),
        ("waiting", np.int16),  # hot, but not yet seen to pass the doorkeeper
        ("next_free", np.int32),
    ],
    align=True,
)
PLACE = np.dtype(
    [
        ("slot", np.int32),  # open addressing: entry of a key whose probing reaches this place, or NOBODY
        ("references", np.int32),  # to all keys whose home is here, halved now and then
        ("hot", np.int32),  # hot keys whose home is here
        ("last", np.uint32),  # ordinal of the last reference to any of them; 0: never
    ],
    align=True,
)
POSITION = np.dtype(
    [("by_sample", np.int64), ("for_itself", np.int64), ("owner", np.int32)], align=True
)  # Fenwick nodes, and who stands there
HEAD = np.dtype(
    [
        ("used", np.int64),  # followed keys, in the stack or only seen
        ("free", np.int64),  # first free entry
        ("hot", np.int64),  # followed keys that stand for themselves
        ("next", np.int64),  # next free position
        ("tail", np.int64),  # no stacked key lies below this position
        ("stacked_by_sample", np.int64),  # sums of stacked bytes
        ("stacked_for_itself", np.int64),
        ("references", np.int64),
        ("followed", np.int64),  # references of followed keys
        ("period", np.int64),  # references since the counters were halved, counted like them
        ("window_ns", np.int64),
        ("started_ns", np.int64),
        ("last_ns", np.int64),
        ("threshold", np.uint64),  # keys whose hash lies below are in the sample
        ("threshold_start", np.uint64),
        ("seed", np.uint64),
        ("stream_rate", np.float64),
        ("horizon", np.float64),  # bytes; 0: none
        ("capacity_max", np.float64),
        ("bins", np.int64),  # up to capacity_max
        ("channels", np.int64),
        ("offers", np.int64, GAPS),  # scratch: references by class of gap, until they are added to the bins
        ("hashes", np.uint64, HASHED_AT_ONCE),  # scratch: of the rows at hand
        ("origin_ns", np.int64, PACES),  # times at which a contribution weighs 1
        ("half_life_ns", np.float64, PACES),
        ("weight", np.float64, PACES),  # of a contribution now
    ],
    align=True,
)


class ReuseState(NamedTuple):
    """All of an estimator's memory; only the kernels of `reuse` write it.

    `bins` has a row per (pace, stratum, gap class, channel) and columns for distance bins up to a quarter beyond
    `capacity_max`, then for what lies deeper, for what is cold, and for what the stream offered, followed or not.
    One channel more than asked for sums the share of the distances that rests on the sample.
    """

    head: NDArray[np.void]  # [1] HEAD
    entries: NDArray[np.void]  # [K] ENTRY
    places: NDArray[np.void]  # [power of two] PLACE
    stack: NDArray[np.void]  # [4 K + 1] POSITION
    bins: NDArray[np.float64]  # [PACES * STRATA * GAPS * (V + 1), bins + bins / MARGIN + 3], decayed


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

    Channel 0 sums references, channel 1 their sizes, channel 2 the squares of these.
    `sampling_rate` is the total one: of a stream that was itself thinned to `stream_rate` by key, the
    rest is taken here, so that a thinned simulation and a full live stream follow equally many keys.
    Keys deeper than `horizon_ratio * capacity_max` are forgotten (0: never): no capacity of
    interest holds them, and remembering them would drive the rate down for the life of the process.
    """
    if not (np.isfinite(capacity_max) and capacity_max > 0):
        raise ValueError("capacity_max must be finite and > 0")
    if bins < 1 or not 1 <= channels <= 3 or keys_max < 8:
        raise ValueError("bins must be >= 1, channels 1..3 and keys_max >= 8")
    if not 0.0 < sampling_rate <= 1.0 or not 0.0 < stream_rate <= 1.0:
        raise ValueError("sampling_rate and stream_rate must be in (0, 1]")
    if window_ns < 0 or horizon_ratio < 0 or 0 < horizon_ratio < 1:
        raise ValueError("window_ns must be >= 0 and horizon_ratio 0 or >= 1")
    if not (half_life_fast_seconds > 0 and half_life_slow_seconds > 0):
        raise ValueError("half-lives must be > 0 seconds")
    threshold = np.uint64(round(min(1.0, sampling_rate / stream_rate) * 2**HASH_BITS))
    head = np.zeros(1, HEAD)
    head["window_ns"], head["started_ns"], head["last_ns"], head["origin_ns"] = window_ns, now_ns, now_ns, now_ns
    head["threshold"], head["threshold_start"], head["seed"] = threshold, threshold, seed
    head["stream_rate"], head["horizon"] = stream_rate, horizon_ratio * capacity_max
    head["capacity_max"], head["bins"], head["channels"] = capacity_max, bins, channels
    head["half_life_ns"] = np.array([half_life_fast_seconds, half_life_slow_seconds]) * 1e9
    head["weight"] = 1.0
    return ReuseState(
        head=head,
        entries=_free_entries(keys_max),
        places=_empty_places(1 << (_PLACES_PER_KEY * keys_max - 1).bit_length()),
        stack=_empty_stack(4 * keys_max),  # a compaction then pays for at least three keys_max references
        bins=np.zeros((PACES * STRATA * GAPS * (channels + 1), bins + bins // MARGIN + 3)),
    )


def _free_entries(keys_max: int) -> NDArray[np.void]:
    entries = np.zeros(keys_max, ENTRY)
    entries["position"] = FREE
    entries["next_free"] = np.arange(1, keys_max + 1)
    entries["next_free"][-1] = NOBODY
    return entries


def _empty_places(count: int) -> NDArray[np.void]:
    places = np.zeros(count, PLACE)
    places["slot"] = NOBODY
    return places


def _empty_stack(positions: int) -> NDArray[np.void]:
    stack = np.zeros(positions + 1, POSITION)
    stack["owner"] = NOBODY
    return stack
