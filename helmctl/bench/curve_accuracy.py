"""How far sampled value curves are from exact ones: worst of ten hashes, in hits and in milliseconds.

The rate is what it says: a key is sampled if its hash lies below the rate. Beside the sample, keys found hot are
followed for themselves (at most half of the estimator's places); which share of the references comes to be followed
by both together is printed beside each error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agents.numerics.cost import Cost, kv_value_ms_per_second
from agents.numerics.jit import kernel
from agents.numerics.reuse import record_user
from agents.numerics.reuse_curve import Pace, curve
from agents.numerics.reuse_state import KEYS_MAX, ReuseState, new_reuse
from agents.profiles import Profile
from helmctl.bench.exact_reuse import exact_hits
from helmctl.bench.report import Result, Say, result_of

HASHES = 10
BINS = 128
RATE = 1.0 / 8.0
ROWS_KEYS_MAX = 32_768  # as many places as the rate needs, or it would fall by itself
BIG_IDS, BIG_REFERENCES, BIG_CAPACITY = 10_000_000, 10_000_000, 2_000_000
BIG_RATE, BIG_KEYS_MAX = 1.0 / 256.0, 65_536  # likewise
EMB_HIT_RATIO = 0.5  # at which a prefix's rows are priced
_FOREVER_SECONDS = 1e9  # a half-life under which nothing fades, as nothing fades in an exact curve


class Stream(NamedTuple):
    """References [N] in order: dense keys and sizes; `cost` prices sizes as tokens, without it all hits are equal."""

    keys: NDArray[np.int64]
    sizes: NDArray[np.int64]
    cost: Cost | None

    def saved_ms(self, moments: NDArray[np.float64]) -> NDArray[np.float64]:
        """What references, sums of sizes and of their squares [3, ...] save."""
        if self.cost is None:
            return np.asarray(moments[0])
        return kv_value_ms_per_second(self.cost, EMB_HIT_RATIO, moments[0], moments[1], moments[2])


class Errors(NamedTuple):
    """Of one hash, over all capacities, as shares of all references and of all milliseconds."""

    hits_max: float
    hits_mean: float
    ms_max: float
    followed_ratio: float


def synthetic(profile: Profile, say: Say) -> list[Result]:
    """The demo's kind of rows and users at 1/8, and ten million ids at 1/256."""
    emb = errors(demo_rows(profile, 400_000, 0), RATE, keys_max=ROWS_KEYS_MAX)
    kv = errors(demo_users(profile, 200_000, 0), RATE)
    return [
        result_of("curve_mean_abs_error_emb", [error.hits_mean for error in emb], "hit ratio"),
        result_of("curve_mean_abs_error_kv", [error.hits_mean for error in kv], "hit ratio"),
        *_results("demo_rows", emb, say),
        *_results("demo_users", kv, say),
        *_results("10m_ids", errors(ten_million_ids(BIG_REFERENCES), BIG_RATE, BIG_CAPACITY, BIG_KEYS_MAX), say),
    ]


def logged(profile: Profile, paths: Sequence[Path], say: Say) -> list[Result]:
    """Items as rows and users as prefixes of every log (Parquet with `user, item, ts`, in order of time), at 1/8."""
    results = []
    for path in paths:
        table = pq.read_table(path, columns=["user", "item"])
        items, users = (_dense(table[name].to_numpy()) for name in ("item", "user"))
        results += _results(f"{path.stem}_items", errors(Stream(items, np.ones_like(items), None), RATE), say)
        results += _results(f"{path.stem}_users", errors(_as_users(profile, users), RATE), say)
    return results


def _results(name: str, found: list[Errors], say: Say) -> list[Result]:
    worst, worst_ms = max(error.hits_max for error in found), max(error.ms_max for error in found)
    followed = float(np.mean([error.followed_ratio for error in found]))
    say(
        f"curves: {name}: worst of {len(found)} hashes {worst:.4f} in hits, {worst_ms:.4f} in ms, {followed:.0%} of the references followed"
    )
    return [
        result_of(f"curve_max_abs_error_{name}", [error.hits_max for error in found], "hit ratio"),
        result_of(f"curve_max_abs_error_ms_{name}", [error.ms_max for error in found], "share of ms"),
        result_of(f"curve_followed_ratio_{name}", [error.followed_ratio for error in found], "ratio"),
    ]


def errors(stream: Stream, rate: float, capacity: int = 0, keys_max: int = KEYS_MAX) -> list[Errors]:
    """Of ten hashes against the exact curves, over 128 capacities up to `capacity` (0: what all keys take)."""
    capacity = capacity or _distinct_size(stream)
    edges = np.linspace(0.0, capacity, BINS + 1)
    moments = stream.sizes.astype(np.float64) ** np.arange(3)[:, None]
    hits, saved = (exact_hits(stream.keys, stream.sizes, worth, edges) / worth.sum() for worth in (moments[0], stream.saved_ms(moments)))
    found = []
    for seed in range(HASHES):
        state = new_reuse(
            float(capacity),
            bins=BINS,
            channels=3,
            keys_max=keys_max,
            sampling_rate=rate,
            half_life_fast_seconds=_FOREVER_SECONDS,
            half_life_slow_seconds=_FOREVER_SECONDS,
            seed=seed,
        )
        _record_all(state, stream.keys, stream.sizes)
        found.append(_compared(state, stream, hits, saved))
    return found


def _compared(state: ReuseState, stream: Stream, hits: NDArray[np.float64], saved: NDArray[np.float64]) -> Errors:
    read = curve(state, 0, Pace.FAST)
    off = np.abs(read.value[0] / read.offered[0] - hits)
    off_ms = np.abs(stream.saved_ms(read.value) / stream.saved_ms(read.offered) - saved)
    return Errors(float(off.max()), float(off.mean()), float(off_ms.max()), float(state.head[0]["followed"]) / stream.keys.shape[0])


@kernel
def _record_all(state: ReuseState, keys: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
    for i in range(keys.shape[0]):
        record_user(state, 0, np.uint64(keys[i]), sizes[i])


def _distinct_size(stream: Stream) -> int:
    last = np.zeros(int(stream.keys.max()) + 1, np.int64)
    last[stream.keys] = stream.sizes
    return int(last.sum())


# --- streams ------------------------------------------------------------------------------


def demo_rows(profile: Profile, references: int, seed: int) -> Stream:
    """Zipf-Mandelbrot rows of the demo's table (exponent 0.9, shift 100, between those measured on public logs)."""
    keys = zipf_mandelbrot(profile.rows, 0.9, 100.0, references, seed)
    return Stream(keys, np.ones_like(keys), None)


def demo_users(profile: Profile, references: int, seed: int) -> Stream:
    """20,000 users of uneven popularity whose histories grow to the model's maximum."""
    return _as_users(profile, zipf_mandelbrot(20_000, 0.7, 20.0, references, seed))


def ten_million_ids(references: int) -> Stream:
    """A table too big to follow in full: exponent 0.9, shift 100."""
    keys = zipf_mandelbrot(BIG_IDS, 0.9, 100.0, references, 1)
    return Stream(keys, np.ones_like(keys), None)


def zipf_mandelbrot(ids: int, exponent: float, shift: float, count: int, seed: int) -> NDArray[np.int64]:
    """Ranks drawn by inverting the integral of (rank + shift) ** -exponent; popular ones have low numbers."""
    power = 1.0 - exponent
    low, high = shift**power, (ids + shift) ** power
    drawn = (np.random.default_rng(seed).random(count) * (high - low) + low) ** (1.0 / power) - shift
    return np.asarray(np.clip(drawn, 0, ids - 1), dtype=np.int64)


def _as_users(profile: Profile, keys: NDArray[np.int64]) -> Stream:
    """A user's history starts at a third of the maximum or more and grows by a block a visit, in whole blocks."""
    block, most = profile.block_tokens, profile.model.tokens_max // profile.block_tokens
    started = most // 3 + keys * 7 % max(1, most - most // 3)
    blocks = np.minimum(started + _visit_number(keys), most)
    cost = profile.cost
    return Stream(
        keys,
        blocks * block,
        Cost(
            cost.ms_fixed,
            cost.ms_per_hit_row,
            cost.ms_per_missing_row,
            cost.ms_per_token,
            cost.ms_per_token_squared,
            cost.ms_per_candidate,
            cost.ms_kv_hit_floor,
            cost.kv_hit_compute_ratio,
        ),
    )


def _visit_number(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], keys[order])
    number = np.empty_like(keys)
    number[order] = np.arange(keys.shape[0]) - first
    return number


def _dense(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.unique(keys, return_inverse=True)[1], dtype=np.int64)
