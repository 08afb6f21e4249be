"""What a node learns from its own traffic and the cluster's: costs, rates, latencies, value curves."""

import math
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.caches.policy import CachePolicy
from agents.controller.interface import Observation
from agents.node.batch import Batch, BatchPlan, MissReason, StageTimings
from agents.numerics import cost as cost_model
from agents.numerics import sketch
from agents.numerics.cost import Cost
from agents.numerics.ewma import EwmaMean, EwmaRate, RatePair
from agents.numerics.regression import CostRegression
from agents.numerics.reuse import Pace, ReuseState, curve, histogram_per_second, new_reuse, reference_rows, reference_users
from agents.pool.state import Counter, PoolState
from agents.profiles import Profile
from agents.wire.messages import ClusterReuse, NodeLoad, Phase

GRID_POINTS = 129  # of the curves handed to controllers, as B5's grid
ROW_SAMPLING_RATE = 1.0 / 16.0  # of rows that are not hot; some 2,000 samples a second on a busy demo node, under 1 % of its CPU
ROW_KEYS_MAX = 16_384
HALF_LIFE_SECONDS = 30.0  # of the row curve; the cluster's KV statistics forget at the same pace
HIT_WINDOW_SECONDS = 60
REUSE_FORGOTTEN_NS = 60_000_000_000  # a router silent for so long no longer counts in the sum
NEVER_NS = 1 << 62


class Stages(NamedTuple):
    """Mean milliseconds per request, decayed with a half-life of 10 s."""

    queue: EwmaMean
    emb: EwmaMean
    kv: EwmaMean
    compute: EwmaMean


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
        constants = profile.cost
        self._hit_row_ms = constants.ms_per_hit_row
        self._floor_ms = constants.ms_kv_hit_floor
        tokens, candidates = float(profile.model.tokens_max), float(profile.candidates)
        self._compute = CostRegression(
            np.array([constants.ms_fixed, constants.ms_per_token, constants.ms_per_token_squared, constants.ms_per_candidate]),
            np.array([1.0, tokens, tokens * tokens, candidates]),
        )
        self._rows = CostRegression(np.array([constants.ms_per_missing_row]), np.array([candidates]))
        self._row_curve = new_reuse(
            float(profile.pool_bytes),
            sampling_rate=ROW_SAMPLING_RATE,
            stream_rate=row_sampling_rate,
            keys_max=ROW_KEYS_MAX,
            window_ns=0 if policy.admit_all else policy.emb_window_ns,
            half_life_fast_seconds=HALF_LIFE_SECONDS,
        )
        self._one = np.ones(1)
        self._valuation = valuation
        self._own_users = self._own_stream(profile, policy) if valuation.kv_stream == "node" else None
        self._window_ns = policy.kv_window_ns
        self._reuse: dict[str, tuple[int, ClusterReuse]] = {}
        self._arrivals = RatePair(0)
        self._revisits = EwmaMean(60.0)
        self._tokens = EwmaMean(60.0)
        self._emb_touched = EwmaRate(60.0, 0)
        self._kv_touched = EwmaRate(60.0, 0)
        self._busy = EwmaRate(10.0, 0)
        self._emb_busy = EwmaRate(10.0, 0)
        self._latencies = sketch.new_window()
        self.stages = Stages(EwmaMean(10.0), EwmaMean(10.0), EwmaMean(10.0), EwmaMean(10.0))
        self.miss_reasons = np.zeros(len(MissReason), np.int64)
        self.requests_total = 0
        self._second_ns = -1
        self._history: deque[NDArray[np.int64]] = deque(maxlen=HIT_WINDOW_SECONDS + 1)
        self._hits = (math.nan, math.nan)
        self._queued_ms = 0.0
        self._refill_backlog_bytes = 0
        self._last_move_ns = -NEVER_NS
        self.moves_total = 0
        self._last_arrival_ns = -1
        self.costs: Cost = self._current_costs()

    def _own_stream(self, profile: Profile, policy: CachePolicy) -> ReuseState:
        window_ns = 0 if policy.admit_all else policy.kv_window_ns
        capacity_tokens = profile.pool_bytes / profile.kv_token_bytes
        return new_reuse(
            capacity_tokens, channels=3, keys_max=USERS_FOLLOWED, window_ns=window_ns, half_life_fast_seconds=HALF_LIFE_SECONDS
        )

    # --- inputs ---------------------------------------------------------------------------

    def booked(self, now_ns: int, batch: Batch, plan: BatchPlan) -> None:
        """A batch was admitted: streams and arrivals."""
        requests = batch.user_keys.shape[0]
        self.requests_total += requests
        self._last_arrival_ns = now_ns
        self._arrivals.add(now_ns, requests)
        reference_rows(self._row_curve, now_ns, plan.rows, self._profile.row_bytes, self._one)
        self._emb_touched.add(now_ns, float(plan.rows.shape[0] * self._profile.row_bytes))
        self._kv_touched.add(now_ns, float(batch.history_tokens.sum() * self._profile.kv_token_bytes))
        self.miss_reasons += np.bincount(plan.miss_reasons, minlength=len(MissReason))
        for request in range(requests):
            self._tokens.add(now_ns, float(batch.history_tokens[request]))
            gap_ns = int(batch.reuse_gap_ns[request])
            self._revisits.add(now_ns, 1.0 if 0 <= gap_ns <= self._window_ns else 0.0)
        if self._own_users is not None:
            held = (batch.history_tokens // self._profile.block_tokens * self._profile.block_tokens).astype(np.float64)
            reference_users(
                self._own_users, now_ns, batch.user_keys, held.astype(np.int64), np.stack([np.ones(requests), held, held * held], axis=1)
            )

    def completed(self, now_ns: int, batch: Batch, plan: BatchPlan, timings: StageTimings) -> None:
        """A batch was served: costs and latencies, from what the body measured."""
        self._busy.add(now_ns, timings.service_ms / 1e3)
        self._emb_busy.add(now_ns, timings.emb_ms / 1e3)
        missing = plan.missing.shape[0]
        hits_ms = (plan.rows.shape[0] - missing) * self._hit_row_ms
        if missing:
            self._rows.add(np.array([float(missing)]), max(0.0, timings.emb_ms - hits_ms))
        requests = batch.user_keys.shape[0]
        for request in range(requests):
            total, cached = float(batch.history_tokens[request]), float(plan.cached_tokens[request])
            candidates = float(batch.candidate_offsets[request + 1] - batch.candidate_offsets[request])
            features = np.array([1.0, total - cached, total * total - cached * cached, candidates])
            self._compute.add(features, float(timings.compute_ms[request]) + timings.kv_ms / requests)
            sketch.window_add(self._latencies, now_ns, float(timings.queue_ms[request]) + timings.service_ms)
            self.stages.queue.add(now_ns, float(timings.queue_ms[request]))
            self.stages.emb.add(now_ns, timings.emb_ms / requests)
            self.stages.kv.add(now_ns, timings.kv_ms / requests)
            self.stages.compute.add(now_ns, float(timings.compute_ms[request]))
        self.costs = self._current_costs()

    def ticked(self, now_ns: int, state: PoolState, queue_depth: int, queued_ms: float, refill_backlog_bytes: int) -> None:
        """A tick: once a second the counters are kept for the sliding hit ratios."""
        del queue_depth
        self._queued_ms = queued_ms
        self._refill_backlog_bytes = refill_backlog_bytes
        if self._second_ns < 0 or now_ns - self._second_ns >= 1_000_000_000:
            self._second_ns = now_ns
            self._history.append(state.counters.copy())
            gained = self._history[-1] - self._history[0]
            self._hits = (
                _ratio(gained[Counter.EMB_HITS], gained[Counter.EMB_LOOKUPS]),
                _ratio(gained[Counter.KV_HITS], gained[Counter.KV_REQUESTS]),
            )

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
        return self._hits[0]

    @property
    def kv_hit_ratio(self) -> float:
        """Share of requests that reused some prefix, last minute; NaN before any."""
        return self._hits[1]

    def latency_counts(self, now_ns: int) -> NDArray[np.int64]:
        """Sketch of the last minute's latencies."""
        return sketch.window_counts(self._latencies, now_ns)

    def requests_per_second(self, now_ns: int) -> float:
        """Arrivals of the last seconds (half-life 1 s is jumpy, so the pair's slow part is not used either)."""
        return self._arrivals.fast.per_second(now_ns)

    def data_age_ns(self, now_ns: int) -> int:
        """Time since the last request; before the first it counts as forever."""
        return NEVER_NS if self._last_arrival_ns < 0 else now_ns - self._last_arrival_ns

    def utilisation(self, now_ns: int) -> float:
        """Share of time the device works."""
        return self._busy.per_second(now_ns)

    def predict_ms(self, cached_tokens: int, history_tokens: int, candidates: int) -> float:
        """Expected service time of a request here."""
        return cost_model.request_ms(self.costs, float(history_tokens), float(cached_tokens), float(candidates), self._emb_hit_or(0.5))

    def load(self, state: PoolState, queue_depth: int, queued_ms: float, phase: Phase, at_unix_ns: int) -> NodeLoad:
        """Coefficients and load for a router."""
        counters, block_tokens, costs = state.counters, self._profile.block_tokens, self.costs
        return NodeLoad(
            at_unix_ns=at_unix_ns,
            phase=phase,
            queued_ms=queued_ms,
            queue_depth=queue_depth,
            emb_hit_ratio=self._emb_hit_or(0.5),
            ms_fixed=costs.ms_fixed,
            ms_per_missing_row=costs.ms_per_missing_row,
            ms_per_token=costs.ms_per_token,
            ms_per_token_squared=costs.ms_per_token_squared,
            ms_per_candidate=costs.ms_per_candidate,
            refill_backlog_bytes=self._refill_backlog_bytes,
            kv_tokens_capacity=int(counters[Counter.KV_PAGES]) * block_tokens,
            kv_tokens_used=int(counters[Counter.KV_PAGES_USED]) * block_tokens,
            served_total=self.requests_total,
        )

    def observation(self, now_ns: int, emb_ratio: float, state: PoolState) -> Observation:
        """Everything a controller may see, at one moment."""
        profile = self._profile
        grid = np.linspace(0.0, 1.0, GRID_POINTS)
        rows = curve(self._row_curve, now_ns, Pace.FAST)  # as the cluster's KV statistics: one sum, one memory
        row_ms = cost_model.row_hit_value_ms(self.costs) if self._valuation.unit == "ms" else 1.0
        kv_value, kv_total, reuse_age_ns = self._kv_curve(now_ns, grid)
        counts = self.latency_counts(now_ns)
        within_slo = sketch.share_at_most(counts, profile.slo_ms)
        kv_pages = max(1, int(state.counters[Counter.KV_PAGES]))
        return Observation(
            now_ns=now_ns,
            emb_ratio=emb_ratio,
            pool_bytes=profile.pool_bytes,
            requests_per_second_fast=self._arrivals.fast.per_second(now_ns),
            requests_per_second_slow=self._arrivals.slow.per_second(now_ns),
            emb_hit_ratio=self.emb_hit_ratio,
            kv_hit_ratio=self.kv_hit_ratio,
            utilisation=self.utilisation(now_ns),
            queue_ms=self._queued_ms,
            latency_ms_p99=sketch.quantile(counts, 0.99),
            slo_ms=profile.slo_ms,
            slo_violation_ratio=1.0 - within_slo if within_slo == within_slo else math.nan,
            tokens_per_request=self._tokens.mean,
            revisit_ratio=self._revisits.mean,
            refill_backlog_bytes=self._refill_backlog_bytes,
            refill_bytes_per_second=profile.refill_bytes_per_second,
            interference_ms_per_byte=1e3 / profile.link_bytes_per_second * min(1.0, self._emb_busy.per_second(now_ns)),
            since_last_move_ns=min(now_ns - self._last_move_ns, NEVER_NS),
            reuse_age_ns=reuse_age_ns,
            capacity_ratio=grid,
            emb_value=np.interp(grid * profile.pool_bytes, rows.edges, rows.value[0]) * row_ms,
            kv_value=kv_value,
            emb_value_total=float(rows.total[0]) * row_ms,
            kv_value_total=kv_total,
            emb_bytes_touched_per_second=self._emb_touched.per_second(now_ns),
            kv_bytes_touched_per_second=self._kv_touched.per_second(now_ns),
            kv_used_ratio=int(state.counters[Counter.KV_PAGES_USED]) / kv_pages,
        )

    def _kv_curve(self, now_ns: int, grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, int]:
        """This node's share of the cluster's KV value, summed over routers; its total; the age of the oldest part."""
        value, total, age_ns = np.zeros(grid.shape[0]), 0.0, -1
        capacities = grid * self._profile.pool_bytes / self._profile.kv_token_bytes
        for received_ns, edges, histogram, nodes in self._kv_streams(now_ns):
            per_bin = self._kv_value(histogram)
            value += cost_model.node_share_of_cluster_value(edges, per_bin, nodes, capacities)
            total += float(per_bin[:-1].sum()) / nodes
            age_ns = max(age_ns, now_ns - received_ns)
        return value, total, age_ns if age_ns >= 0 else NEVER_NS

    def _kv_streams(self, now_ns: int) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64], int]]:
        """(received, edges, histogram [3, bins], nodes that share it) of every stream that counts."""
        if self._own_users is not None:
            return [(now_ns, self._own_users.edges, histogram_per_second(self._own_users, now_ns), 1)]
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
        return cost_model.kv_value_ms_per_second(self.costs, self._emb_hit_or(0.5), references, tokens, squared)

    def _current_costs(self) -> Cost:
        fixed, per_token, per_token_squared, per_candidate = self._compute.coefficients
        return Cost(
            float(fixed),
            self._hit_row_ms,
            float(self._rows.coefficients[0]),
            float(per_token),
            float(per_token_squared),
            float(per_candidate),
            self._floor_ms,
        )

    def _emb_hit_or(self, fallback: float) -> float:
        """Hit ratio for predictions; the fallback only until the first minute has data."""
        return fallback if math.isnan(self.emb_hit_ratio) else self.emb_hit_ratio


def _ratio(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole > 0 else math.nan
