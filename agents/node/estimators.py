"""What a node learns from its own traffic and the cluster's: costs, rates, latencies, value curves."""

import math
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.caches.emb import door_open, row_memory_ns
from agents.caches.policy import CachePolicy
from agents.controller.interface import Observation
from agents.controller.landscape import Measured
from agents.node.batch import Batch, BatchPlan, StageTimings
from agents.node.meters import (
    HALF_LIFE_SECONDS,
    Known,
    Meter,
    Meters,
    Total,
    batch_booked,
    batch_completed,
    cost_of,
    emb_hit_ratio_of,
    load_of,
    new_node_meters,
)
from agents.numerics import cost as cost_model
from agents.numerics import sketch
from agents.numerics.cost import Cost
from agents.numerics.ewma import mean_of, rate_of
from agents.numerics.jit import bound_by_first_call
from agents.numerics.regression import residual_ms_sigma, samples
from agents.numerics.reuse import record_user
from agents.numerics.reuse_curve import Pace, curve, edges, histogram_per_second
from agents.numerics.reuse_state import ReuseState, new_reuse
from agents.pool.state import Counter, PoolState
from agents.profiles import Profile
from agents.wire.messages import ClusterReuse, NodeLoad, Phase

GRID_POINTS = 129  # of the curves handed to controllers, as B5's grid
HIT_WINDOW_SECONDS = 60
P99_COUNT_MIN = 300  # below it the 99th percentile is one of three requests
REGRESSION_MEMORY = 1_000.0  # samples that a forgetting of 0.999 amounts to
REUSE_FORGOTTEN_NS = 60_000_000_000  # a router silent for so long no longer counts in the sum
NEVER_NS = 1 << 62


class Stages(NamedTuple):
    """Mean milliseconds per request, decayed with a half-life of 10 s; NaN before any."""

    queue: float
    emb: float
    kv: float
    compute: float


class Valuation(NamedTuple):
    """Which curves a controller wants to see. All but the first of each are known mistakes, kept for comparison."""

    unit: str = "ms"  # or "hits"
    kv_stream: str = "cluster"  # or "node": what the router sends here, which depends on what is resident here


PROPER = Valuation()
USERS_FOLLOWED = 8_192  # by the node-stream variant


class NodeEstimators:
    """All of it streaming, bounded, and told the time."""

    def __init__(self, profile: Profile, row_sampling_rate: float, policy: CachePolicy, valuation: Valuation = PROPER) -> None:
        self._profile = profile
        self.meters: Meters = new_node_meters(profile, row_sampling_rate, policy)
        self._batch_booked, self._batch_completed = bound_by_first_call(batch_booked), bound_by_first_call(batch_completed)
        self._cost_of = bound_by_first_call(cost_of)
        self._rows_wait = policy.rows_wait
        self._valuation = valuation
        self._own_users = self._own_stream(profile, policy) if valuation.kv_stream == "node" else None
        self._reuse: dict[str, tuple[int, ClusterReuse]] = {}
        self._next_second_ns = 0
        self._history: deque[NDArray[np.int64]] = deque(maxlen=HIT_WINDOW_SECONDS + 1)
        self._last_move_ns = -NEVER_NS
        self.moves_total = 0

    def _own_stream(self, profile: Profile, policy: CachePolicy) -> ReuseState:
        window_ns = policy.user_window_ns
        capacity_tokens = profile.pool_bytes / profile.kv_token_bytes
        return new_reuse(
            capacity_tokens, channels=3, keys_max=USERS_FOLLOWED, window_ns=window_ns, half_life_fast_seconds=HALF_LIFE_SECONDS
        )

    # --- inputs ---------------------------------------------------------------------------

    def booked(self, now_ns: int, batch: Batch, plan: BatchPlan) -> None:
        """A batch was admitted: streams and arrivals."""
        self._batch_booked(self.meters, now_ns, plan.rows, batch.history_tokens, batch.reuse_gap_ns, plan.miss_reasons)
        if self._own_users is not None:
            block_tokens = self._profile.block_tokens
            for key, tokens in zip(batch.user_keys, batch.history_tokens, strict=True):
                record_user(self._own_users, now_ns, key, int(tokens) // block_tokens * block_tokens)

    def completed(self, now_ns: int, batch: Batch, plan: BatchPlan, timings: StageTimings) -> None:
        """A batch was served: costs and latencies, from what the body measured."""
        self._batch_completed(
            self.meters,
            now_ns,
            batch.history_tokens,
            plan.cached_tokens,
            np.diff(batch.candidate_offsets),
            plan.rows.shape[0],
            plan.missing.shape[0],
            timings.queue_ms,
            timings.emb_ms,
            timings.kv_ms,
            timings.compute_ms,
            timings.service_ms,
        )

    def ticked(self, now_ns: int, state: PoolState, queue_depth: int, queued_ms: float, refill_backlog_bytes: int) -> None:
        """A tick: once a second the counters are kept for the sliding hit ratios."""
        del queue_depth
        known = self.meters.known
        known[Known.QUEUED_MS], known[Known.REFILL_BACKLOG_BYTES] = queued_ms, refill_backlog_bytes
        if now_ns >= self._next_second_ns:
            self._next_second_ns = now_ns + 1_000_000_000
            self._history.append(state.counters.copy())
            gained = self._history[-1] - self._history[0]
            known[Known.EMB_HIT_RATIO] = _ratio(gained[Counter.EMB_HITS], gained[Counter.EMB_LOOKUPS])
            known[Known.KV_HIT_RATIO] = _ratio(gained[Counter.KV_HITS], gained[Counter.KV_REQUESTS])
            if self._rows_wait and len(self._history) > 1:
                misses = int(gained[Counter.EMB_LOOKUPS] - gained[Counter.EMB_HITS])
                window_ns = 0 if door_open(state) else row_memory_ns(state, misses, (len(self._history) - 1) * 1_000_000_000)
                self.meters.row_curve.head["window_ns"] = window_ns

    @property
    def next_second_ns(self) -> int:
        """When a tick keeps the counters next."""
        return self._next_second_ns

    def retargeted(self, now_ns: int, moved: bool) -> None:
        """A decision was taken; `moved` if it changed the target."""
        if moved:
            self._last_move_ns = now_ns
            self.moves_total += 1

    def reuse(self, now_ns: int, message: ClusterReuse) -> None:
        """Keep the newest statistics of each router."""
        self._reuse[message.router_id] = (now_ns, message)
        self._reuse = {name: kept for name, kept in self._reuse.items() if now_ns - kept[0] <= REUSE_FORGOTTEN_NS}

    # --- outputs --------------------------------------------------------------------------

    @property
    def emb_hit_ratio(self) -> float:
        """Share of distinct rows per batch found in the pool, last minute; NaN before any."""
        return float(self.meters.known[Known.EMB_HIT_RATIO])

    @property
    def kv_hit_ratio(self) -> float:
        """Share of requests that reused some prefix, last minute; NaN before any."""
        return float(self.meters.known[Known.KV_HIT_RATIO])

    def latency_counts(self, now_ns: int) -> NDArray[np.int64]:
        """Sketch of the last minute's latencies."""
        return sketch.window_counts(self.meters.latencies, now_ns)

    def requests_per_second(self, now_ns: int) -> float:
        """Arrivals of the last seconds (half-life 1 s is jumpy, so the pair's slow part is not used either)."""
        return self._rate(Meter.ARRIVALS_FAST, now_ns)

    def _rate(self, meter: Meter, now_ns: int) -> float:
        return rate_of(self.meters.meters, int(meter), now_ns)  # of an enum's member a kernel's call looks at all members

    def _mean(self, meter: Meter) -> float:
        return mean_of(self.meters.meters, int(meter))

    def data_age_ns(self, now_ns: int) -> int:
        """Time since the last request; before the first it counts as forever."""
        last_ns = int(self.meters.totals[Total.LAST_ARRIVAL_NS])
        return NEVER_NS if last_ns < 0 else now_ns - last_ns

    def utilisation(self, now_ns: int) -> float:
        """Share of time the device works."""
        return self._rate(Meter.BUSY, now_ns)

    @property
    def costs(self) -> Cost:
        """The cost model as learned so far."""
        return self._cost_of(self.meters)

    @property
    def requests_total(self) -> int:
        """Requests admitted so far."""
        return int(self.meters.totals[Total.REQUESTS])

    @property
    def miss_reasons(self) -> NDArray[np.int64]:
        """Requests per `MissReason` so far."""
        return self.meters.totals[Total.MISS_REASONS :]

    @property
    def stages(self) -> Stages:
        """Where a request's time goes."""
        places = (Meter.STAGE_QUEUE, Meter.STAGE_EMB, Meter.STAGE_KV, Meter.STAGE_COMPUTE)
        return Stages(*(self._mean(place) for place in places))

    def load(self, state: PoolState, queue_depth: int, queued_ms: float, phase: Phase, at_unix_ns: int) -> NodeLoad:
        """Coefficients and load for a router."""
        heard = load_of(self.meters, state, self._profile.block_tokens, 0, queue_depth, queued_ms)._asdict()
        heard |= {"phase": phase, "refill_backlog_bytes": int(heard["refill_backlog_bytes"])}
        return NodeLoad(at_unix_ns=at_unix_ns, profile=self._profile.name, **heard)

    def observation(self, now_ns: int, emb_ratio: float, state: PoolState) -> Observation:
        """Everything a controller may see, at one moment."""
        profile, costs = self._profile, self.costs
        pool_bytes = int(state.counters[Counter.POOL_PAGES]) * profile.page_bytes
        grid = np.linspace(0.0, 1.0, GRID_POINTS)
        rows = curve(self.meters.row_curve, now_ns, Pace.FAST)  # as the cluster's KV statistics: one sum, one memory
        row_ms = cost_model.row_hit_value_ms(costs) if self._valuation.unit == "ms" else 1.0
        kv_value, kv_total, reuse_age_ns = self._kv_curve(now_ns, grid * pool_bytes)
        counts = self.latency_counts(now_ns)
        within_slo = sketch.share_at_most(counts, profile.slo_ms)
        kv_pages = max(1, int(state.counters[Counter.KV_PAGES]))
        return Observation(
            now_ns=now_ns,
            emb_ratio=emb_ratio,
            pool_bytes=pool_bytes,
            requests_per_second_fast=self._rate(Meter.ARRIVALS_FAST, now_ns),
            requests_per_second_slow=self._rate(Meter.ARRIVALS_SLOW, now_ns),
            emb_hit_ratio=self.emb_hit_ratio,
            kv_hit_ratio=self.kv_hit_ratio,
            utilisation=self.utilisation(now_ns),
            queue_ms=float(self.meters.known[Known.QUEUED_MS]),
            latency_ms_p99=sketch.quantile(counts, 0.99),
            slo_ms=profile.slo_ms,
            slo_violation_ratio=1.0 - within_slo if within_slo == within_slo else math.nan,
            tokens_per_request=self._mean(Meter.TOKENS),
            revisit_ratio=self._mean(Meter.REVISITS),
            refill_backlog_bytes=int(self.meters.known[Known.REFILL_BACKLOG_BYTES]),
            refill_bytes_per_second=profile.refill_bytes_per_second,
            interference_ms_per_byte=1e3 / profile.link_bytes_per_second * min(1.0, self._rate(Meter.EMB_BUSY, now_ns)),
            since_last_move_ns=min(now_ns - self._last_move_ns, NEVER_NS),
            reuse_age_ns=reuse_age_ns,
            capacity_ratio=grid,
            emb_value=np.interp(grid * pool_bytes, rows.edges, rows.value[0]) * row_ms,
            kv_value=kv_value,
            emb_value_total=float(rows.total[0]) * row_ms,
            kv_value_total=kv_total,
            emb_bytes_touched_per_second=self._rate(Meter.EMB_BYTES, now_ns),
            kv_bytes_touched_per_second=self._rate(Meter.KV_BYTES, now_ns),
            kv_used_ratio=int(state.counters[Counter.KV_PAGES_USED]) / kv_pages,
            move_ratio_per_second=profile.move_ratio_per_second,
            service_ms=sum(self.stages[1:]),
        )

    def measured(self, now_ns: int) -> Measured:
        """What the landscape starts from beside an observation; NaN where nothing is known yet."""
        stages, meters, counts = self.stages, self.meters, self.latency_counts(now_ns)
        return Measured(
            # curves that count hits say nothing about milliseconds
            service_ms=stages.emb + stages.kv + stages.compute if self._valuation.unit == "ms" else math.nan,
            latency_ms=sketch.mean(counts),
            latency_ms_p99=sketch.quantile(counts, 0.99) if counts.sum() >= P99_COUNT_MIN else math.nan,
            residual_ms_sigma=residual_ms_sigma(meters.compute),
            residual_samples=min(float(samples(meters.compute)), REGRESSION_MEMORY),
            emb_samples=float(meters.row_curve.head[0]["used"]),
            kv_samples=self._users_behind_curve(),
        )

    def _users_behind_curve(self) -> float:
        """Sampled requests that the routers' statistics remember; one user's requests are not independent, but few."""
        remembered_seconds = HALF_LIFE_SECONDS / math.log(2.0)
        return sum(message.requests_per_second * message.sampling_rate for _, message in self._reuse.values()) * remembered_seconds

    def _kv_curve(self, now_ns: int, capacity_bytes: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, int]:
        """This node's share of the cluster's KV value, summed over routers; its total; the age of the oldest part."""
        value, total, age_ns = np.zeros(capacity_bytes.shape[0]), 0.0, -1
        capacities = capacity_bytes / self._profile.kv_token_bytes
        for received_ns, edges_tokens, histogram, nodes in self._kv_streams(now_ns):
            per_bin = self._kv_value(histogram)
            value += cost_model.node_share_of_cluster_value(edges_tokens, per_bin, nodes, capacities)
            total += float(per_bin[:-1].sum()) / nodes
            age_ns = max(age_ns, now_ns - received_ns)
        return value, total, age_ns if age_ns >= 0 else NEVER_NS

    def _kv_streams(self, now_ns: int) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64], int]]:
        """(received, edges, histogram [3, bins], nodes that share it) of every stream that counts."""
        if self._own_users is not None:
            return [(now_ns, edges(self._own_users), histogram_per_second(self._own_users, now_ns), 1)]
        return [
            (
                received_ns,
                np.array(message.edges_tokens),
                np.array([message.references_per_second, message.tokens_per_second, message.tokens_squared_per_second]),
                max(1, message.nodes),
            )
            for received_ns, message in self._reuse.values()
        ]

    def _kv_value(self, histogram: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value per second of re-references per bin: milliseconds saved, or mere hits."""
        references, tokens, squared = histogram
        if self._valuation.unit == "hits":
            return np.asarray(references)
        return cost_model.kv_value_ms_per_second(self.costs, emb_hit_ratio_of(self.meters), references, tokens, squared)


def _ratio(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole > 0 else math.nan
