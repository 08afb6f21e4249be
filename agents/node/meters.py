"""What a node counts of every batch, as a few arrays and two kernels: one when booked, one when served.

The kernels are the whole of a request's bookkeeping beside the caches, so that the live engine and a simulated
fleet feed the same numbers. What is derived from them (curves, observations, reports) is `estimators`' business.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.caches import kv
from agents.caches.emb import ROW_MEMORY_MAX_NS
from agents.caches.policy import CachePolicy
from agents.node.batch import MissReason
from agents.numerics import cost as cost_model
from agents.numerics.cost import Cost
from agents.numerics.ewma import add_mean, add_rate, new_meters
from agents.numerics.jit import kernel
from agents.numerics.regression import RegressionState, coefficient, learn, new_regression
from agents.numerics.reuse import record_rows
from agents.numerics.reuse_state import ReuseState, new_reuse
from agents.numerics.sketch import WindowState, new_window, window_add
from agents.pool.state import Counter, PoolState
from agents.profiles import Profile
from agents.router.load import HeardLoad

HALF_LIFE_SECONDS = 30.0  # of the row curve; the cluster's KV statistics forget at the same pace
ROW_SAMPLING_RATE_MAX = 1.0 / 16.0  # of rows that are not hot; some 2,000 samples a second on a busy demo node, under 1 % of its CPU
ROW_KEYS_MAX = 16_384


class Meter(IntEnum):
    """Places in `Meters.meters`."""

    ARRIVALS_FAST = 0
    ARRIVALS_SLOW = 1
    EMB_BYTES = 2  # of distinct rows touched
    KV_BYTES = 3  # of histories asked for
    BUSY = 4  # seconds of service
    EMB_BUSY = 5  # of them with rows
    REVISITS = 6  # means from here on
    TOKENS = 7
    STAGE_QUEUE = 8
    STAGE_EMB = 9
    STAGE_KV = 10
    STAGE_COMPUTE = 11


_HALF_LIVES_SECONDS = (1.0, 60.0, 60.0, 60.0, 10.0, 10.0, 60.0, 60.0, 10.0, 10.0, 10.0, 10.0)


class Total(IntEnum):
    """Places in `Meters.totals`; one per miss reason follows."""

    REQUESTS = 0
    LAST_ARRIVAL_NS = 1
    MISS_REASONS = 2


class Known(IntEnum):
    """Places in `Meters.known`: what the last tick found, and constants of the profile."""

    EMB_HIT_RATIO = 0  # last minute, NaN before any
    KV_HIT_RATIO = 1
    QUEUED_MS = 2
    REFILL_BACKLOG_BYTES = 3
    ROW_BYTES = 4
    KV_TOKEN_BYTES = 5
    MS_PER_HIT_ROW = 6
    MS_KV_HIT_FLOOR = 7
    KV_HIT_COMPUTE_RATIO = 8
    ROWS_PER_SAMPLED_ROW = 9
    KV_WINDOW_NS = 10


# Plain ints: Numba freezes them, and an IntEnum member inside a kernel would not compile.
_FAST, _SLOW = int(Meter.ARRIVALS_FAST), int(Meter.ARRIVALS_SLOW)
_EMB_BYTES, _KV_BYTES, _BUSY, _EMB_BUSY = int(Meter.EMB_BYTES), int(Meter.KV_BYTES), int(Meter.BUSY), int(Meter.EMB_BUSY)
_REVISITS, _TOKENS = int(Meter.REVISITS), int(Meter.TOKENS)
_QUEUE, _EMB, _KV, _COMPUTE = (
    int(Meter.STAGE_QUEUE),
    int(Meter.STAGE_EMB),
    int(Meter.STAGE_KV),
    int(Meter.STAGE_COMPUTE),
)
_REQUESTS, _LAST_ARRIVAL_NS, _MISS_REASONS = int(Total.REQUESTS), int(Total.LAST_ARRIVAL_NS), int(Total.MISS_REASONS)
_EMB_HIT, _ROW_BYTES, _KV_TOKEN_BYTES = int(Known.EMB_HIT_RATIO), int(Known.ROW_BYTES), int(Known.KV_TOKEN_BYTES)
_HIT_ROW_MS, _FLOOR_MS, _COMPUTE_RATIO = int(Known.MS_PER_HIT_ROW), int(Known.MS_KV_HIT_FLOOR), int(Known.KV_HIT_COMPUTE_RATIO)
_ROWS_PER_SAMPLE, _WINDOW_NS = int(Known.ROWS_PER_SAMPLED_ROW), int(Known.KV_WINDOW_NS)
_BACKLOG_BYTES = int(Known.REFILL_BACKLOG_BYTES)
_KV_PAGES, _KV_PAGES_USED = int(Counter.KV_PAGES), int(Counter.KV_PAGES_USED)
HIT_RATIO_UNKNOWN = 0.5  # for predictions, only until the first minute has data


class Meters(NamedTuple):
    """All of it bounded and allocated once. Only kernels write, and the tick writes `known`."""

    meters: NDArray[np.void]  # [Meter] METER
    totals: NDArray[np.int64]  # [Total and miss reasons]
    known: NDArray[np.float64]  # [Known]
    features: NDArray[np.float64]  # [5] scratch: of compute, then of rows
    compute: RegressionState  # ms on [1, new tokens, their squares, candidates]
    rows: RegressionState  # ms on [missing rows]
    row_curve: ReuseState
    latencies: WindowState


def new_node_meters(profile: Profile, row_sampling_rate: float, policy: CachePolicy) -> Meters:
    """Empty meters of one node; `row_sampling_rate` is the share of rows its stream was thinned to (simulation)."""
    cost = profile.cost
    tokens, candidates = float(profile.model.tokens_max), float(profile.candidates)
    known = np.zeros(len(Known))
    known[[Known.EMB_HIT_RATIO, Known.KV_HIT_RATIO]] = np.nan
    known[Known.ROW_BYTES], known[Known.KV_TOKEN_BYTES] = profile.row_bytes, profile.kv_token_bytes
    known[Known.MS_PER_HIT_ROW], known[Known.MS_KV_HIT_FLOOR] = cost.ms_per_hit_row, cost.ms_kv_hit_floor
    known[Known.KV_HIT_COMPUTE_RATIO] = cost.kv_hit_compute_ratio
    known[Known.ROWS_PER_SAMPLED_ROW] = 1.0 / row_sampling_rate
    known[Known.KV_WINDOW_NS] = policy.kv_window_ns
    totals = np.zeros(Total.MISS_REASONS + len(MissReason), np.int64)
    totals[Total.LAST_ARRIVAL_NS] = -1
    return Meters(
        meters=new_meters(_HALF_LIVES_SECONDS),
        totals=totals,
        known=known,
        features=np.zeros(5),
        compute=new_regression(
            np.array([cost.ms_fixed, cost.ms_per_token, cost.ms_per_token_squared, cost.ms_per_candidate]),
            np.array([1.0, tokens, tokens * tokens, candidates]),
        ),
        rows=new_regression(np.array([cost.ms_per_missing_row]), np.array([candidates])),
        row_curve=new_reuse(
            float(profile.pool_bytes),
            sampling_rate=min(row_sampling_rate, _row_curve_rate(profile)),
            stream_rate=row_sampling_rate,
            keys_max=ROW_KEYS_MAX,
            window_ns=ROW_MEMORY_MAX_NS if policy.rows_wait else 0,
            half_life_fast_seconds=HALF_LIFE_SECONDS,
        ),
        latencies=new_window(),
    )


def _row_curve_rate(profile: Profile) -> float:
    """A pool of 80 GB holds 160 million rows: as many are followed as the estimator can remember, no more."""
    return min(ROW_SAMPLING_RATE_MAX, ROW_KEYS_MAX * profile.row_bytes / profile.pool_bytes)


@kernel
def cost_of(meters: Meters) -> Cost:
    """The cost model as learned so far."""
    return Cost(
        coefficient(meters.compute, 0),
        meters.known[_HIT_ROW_MS],
        coefficient(meters.rows, 0),
        coefficient(meters.compute, 1),
        coefficient(meters.compute, 2),
        coefficient(meters.compute, 3),
        meters.known[_FLOOR_MS],
        meters.known[_COMPUTE_RATIO],
    )


@kernel
def emb_hit_ratio_of(meters: Meters) -> float:
    """Share of rows found lately, with a guess before anything is known."""
    ratio = meters.known[_EMB_HIT]
    return float(HIT_RATIO_UNKNOWN if np.isnan(ratio) else ratio)


@kernel
def predict_ms(meters: Meters, cached_tokens: int, history_tokens: int, candidates: int) -> float:
    """Expected service time of a request here."""
    return cost_model.request_ms(cost_of(meters), float(history_tokens), float(cached_tokens), float(candidates), emb_hit_ratio_of(meters))


@kernel
def predict_here_ms(meters: Meters, pool: PoolState, block_tokens: int, key: np.uint64, history_tokens: int, candidates: int) -> float:
    """The same for a user (0: nobody), with what is resident of the history."""
    entry = kv.find_entry(pool, key) if key != 0 else -1
    cached = pool.entries[entry].blocks * block_tokens if entry != -1 else 0
    return predict_ms(meters, min(cached, history_tokens), history_tokens, candidates)


@kernel
def batch_booked(
    meters: Meters,
    now_ns: int,
    rows: NDArray[np.int64],
    history_tokens: NDArray[np.int64],
    reuse_gap_ns: NDArray[np.int64],
    miss_reasons: NDArray[np.int8],
) -> None:
    """A batch of B requests with U distinct rows was admitted: streams and arrivals."""
    requests = history_tokens.shape[0]
    meters.totals[_REQUESTS] += requests
    meters.totals[_LAST_ARRIVAL_NS] = now_ns
    add_rate(meters.meters, _FAST, now_ns, requests)
    add_rate(meters.meters, _SLOW, now_ns, requests)
    record_rows(meters.row_curve, now_ns, rows, int(meters.known[_ROW_BYTES]))
    add_rate(meters.meters, _EMB_BYTES, now_ns, rows.shape[0] * meters.known[_ROWS_PER_SAMPLE] * meters.known[_ROW_BYTES])
    for request in range(requests):
        meters.totals[_MISS_REASONS + miss_reasons[request]] += 1
        add_rate(meters.meters, _KV_BYTES, now_ns, history_tokens[request] * meters.known[_KV_TOKEN_BYTES])
        add_mean(meters.meters, _TOKENS, now_ns, float(history_tokens[request]))
        gap_ns = reuse_gap_ns[request]
        add_mean(meters.meters, _REVISITS, now_ns, 1.0 if 0 <= gap_ns <= meters.known[_WINDOW_NS] else 0.0)


@kernel
def batch_completed(
    meters: Meters,
    now_ns: int,
    history_tokens: NDArray[np.int64],
    cached_tokens: NDArray[np.int64],
    candidates: NDArray[np.int64],
    rows: int,
    missing: int,
    queue_ms: NDArray[np.float64],
    emb_ms: float,
    kv_ms: float,
    compute_ms: NDArray[np.float64],
    service_ms: float,
) -> None:
    """A batch was served: costs and latencies, from what the body measured. `rows` of which `missing` as booked."""
    requests = history_tokens.shape[0]
    add_rate(meters.meters, _BUSY, now_ns, service_ms / 1e3)
    add_rate(meters.meters, _EMB_BUSY, now_ns, emb_ms / 1e3)
    if missing > 0:
        scale = meters.known[_ROWS_PER_SAMPLE]
        meters.features[4] = missing * scale
        learn(meters.rows, meters.features[4:], max(0.0, emb_ms - (rows - missing) * scale * meters.known[_HIT_ROW_MS]))
    saved = 1.0 - meters.known[_COMPUTE_RATIO]
    for request in range(requests):
        total, cached = float(history_tokens[request]), float(cached_tokens[request])
        meters.features[0] = 1.0
        meters.features[1] = total - saved * cached
        meters.features[2] = total * total - saved * cached * cached
        meters.features[3] = candidates[request]
        learn(meters.compute, meters.features[:4], compute_ms[request] + kv_ms / requests)
        window_add(meters.latencies, now_ns, queue_ms[request] + service_ms)
        add_mean(meters.meters, _QUEUE, now_ns, queue_ms[request])
        add_mean(meters.meters, _EMB, now_ns, emb_ms / requests)
        add_mean(meters.meters, _KV, now_ns, kv_ms / requests)
        add_mean(meters.meters, _COMPUTE, now_ns, compute_ms[request])


@kernel
def load_of(meters: Meters, pool: PoolState, block_tokens: int, phase: int, queue_depth: int, queued_ms: float) -> HeardLoad:
    """What a router needs to predict this node's milliseconds; `phase` is a router's `NodePhase`."""
    cost = cost_of(meters)
    return HeardLoad(
        phase,
        queued_ms,
        queue_depth,
        emb_hit_ratio_of(meters),
        cost.ms_fixed,
        cost.ms_per_missing_row,
        cost.ms_per_token,
        cost.ms_per_token_squared,
        cost.ms_per_candidate,
        cost.kv_hit_compute_ratio,
        meters.known[_BACKLOG_BYTES],
        pool.counters[_KV_PAGES] * block_tokens,
        pool.counters[_KV_PAGES_USED] * block_tokens,
        meters.totals[_REQUESTS],
    )
