"""B7: plan half a minute ahead with forecast values, and take the beginning of the best plan.

Each pool's offered value per second is forecast by Holt's linear method on buckets of 5 s; the shape of its
curve is today's. A plan has 15 steps of 2 s over ratios a hundredth apart around the present one. A shrink
takes effect at once; a growth fills at the refill budget plus what misses bring in, so the usable bytes lag.
Every step counts what the usable bytes save, the interference of the refill, and predicted misses of the SLO above
1 %; the end counts the standing value of its ratio for two minutes. The best path into each ratio is kept with
its usable bytes, an approximation that keeps the plan one-dimensional.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation, Proposal
from agents.controller.tail import TailModel, slo_miss_cost, slo_miss_ratio, tail_model
from agents.controller.value import Curve, value_at
from agents.numerics.jit import kernel
from agents.wire.messages import GuardRails

STEPS = 15
STEP_SECONDS = 2.0
REACH = 2  # grid points a step can move: the spacing is half of what the actuator can do, for a finer end point
_LEAD_STEPS = 3  # steps of the plan that are proposed: the actuator gets no further before the next decision
_BUCKET_SECONDS = 5.0
_TERMINAL_SECONDS = 120.0
_GAIN_RATIO_MIN = 0.002  # of the value of holding still; under it the curves' noise decides
_SLO_MISS_TARGET_RATIO = 0.01
_STATES_MAX = 201


class Supply(NamedTuple):
    """How fast a grown cache fills, as pool shares per second, and what a refilled share of the pool costs."""

    emb_refill_ratio: float  # background refill
    emb_miss_ratio: float  # rows that misses bring in
    kv_miss_ratio: float  # prefixes that misses recompute
    refill_cost_ms: float  # interference of refilling one whole pool
    emb_usable: float  # share of the pool that holds rows now
    kv_usable: float


class B7:
    """Model-predictive splitter."""

    name = "b7"
    period_ns = 5_000_000_000
    uses_cluster_reuse = True

    def __init__(self, rails: GuardRails) -> None:
        self._rails = rails
        self._emb, self._kv = Holt(), Holt()
        self._forecast = np.ones((STEPS, 2))
        self._paths = np.empty((2, _STATES_MAX, 4))

    def propose(self, observation: Observation) -> Proposal:
        """Where the best plan is when the next decision comes; the present ratio when holding is as good."""
        present = observation.emb_ratio
        self._foresee(observation)
        lead, planned, held = plan(
            observation.emb_value,
            observation.kv_value,
            self._forecast,
            self._paths,
            self._rails.emb_ratio_min,
            self._rails.emb_ratio_max,
            min(max(present, self._rails.emb_ratio_min), self._rails.emb_ratio_max),
            observation.move_ratio_per_second * STEP_SECONDS,
            _supply(observation),
            tail_model(observation),
        )
        if not math.isfinite(planned - held):
            return Proposal(present, "curves_not_finite", {})
        layers = {"best": lead, "gain_ms": planned - held}
        if not planned - held > _GAIN_RATIO_MIN * abs(held):
            return Proposal(present, "gain_small", layers)
        return Proposal(lead, "plan", layers)

    def _foresee(self, observation: Observation) -> None:
        """Factors on today's curves, per pool and step."""
        for row, holt, total in ((0, self._emb, observation.emb_value_total), (1, self._kv, observation.kv_value_total)):
            holt.add(observation.now_ns, total)
            for step in range(STEPS):
                self._forecast[step, row] = holt.ahead((step + 1) * STEP_SECONDS) / total if total > 0.0 else 1.0


class Holt:
    """Holt's linear forecast of a level and its trend, one sample per bucket."""

    def __init__(self, level_gain: float = 0.3, trend_gain: float = 0.1, bucket_seconds: float = _BUCKET_SECONDS) -> None:
        self._level_gain = level_gain
        self._trend_gain = trend_gain
        self._bucket_seconds = bucket_seconds
        self._level = math.nan
        self._trend = 0.0
        self._at_ns = 0

    def add(self, now_ns: int, value: float) -> None:
        """Take a sample when a bucket has passed; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        if math.isnan(self._level):
            self._level, self._at_ns = value, now_ns
            return
        buckets = round((now_ns - self._at_ns) / 1e9 / self._bucket_seconds)
        if buckets < 1:
            return
        before = self._level
        self._level = self._level_gain * value + (1.0 - self._level_gain) * (before + buckets * self._trend)
        self._trend = self._trend_gain * (self._level - before) / buckets + (1.0 - self._trend_gain) * self._trend
        self._at_ns = now_ns

    def ahead(self, seconds: float) -> float:
        """Forecast, never below nothing; NaN before the first sample."""
        return float(np.maximum(0.0, self._level + self._trend * seconds / self._bucket_seconds))


def _supply(observation: Observation) -> Supply:
    pool = float(observation.pool_bytes)
    backlog = min(observation.refill_backlog_bytes / pool, observation.emb_ratio)
    kv_granted = 1.0 - observation.emb_ratio
    return Supply(
        emb_refill_ratio=observation.refill_bytes_per_second / pool,
        emb_miss_ratio=_missing(observation.emb_hit_ratio) * observation.emb_bytes_touched_per_second / pool,
        kv_miss_ratio=_missing(observation.kv_hit_ratio) * observation.kv_bytes_touched_per_second / pool,
        refill_cost_ms=observation.interference_ms_per_byte * pool,
        emb_usable=observation.emb_ratio - backlog,
        kv_usable=kv_granted * min(max(observation.kv_used_ratio, 0.0), 1.0),
    )


def _missing(hit_ratio: float) -> float:
    return 1.0 - hit_ratio if math.isfinite(hit_ratio) else 0.0


@kernel
def plan(
    emb_value: Curve,
    kv_value: Curve,
    forecast: NDArray[np.float64],
    paths: NDArray[np.float64],
    emb_ratio_min: float,
    emb_ratio_max: float,
    present: float,
    step_ratio_max: float,
    supply: Supply,
    tail: TailModel,
) -> tuple[float, float, float]:
    """Ratio a few steps along the best plan, and the values of that plan and of holding still, in ms.

    `forecast` [STEPS, 2] multiplies the EMB and KV curves. `paths` [2, states, 4] is scratch: value, usable EMB, usable
    KV and the state at the lead step of the best path into each state, for the last step and this one.
    """
    spacing = max(step_ratio_max / REACH, (emb_ratio_max - emb_ratio_min) / (paths.shape[1] - 1))
    below, above = int((present - emb_ratio_min) / spacing + 1e-9), int((emb_ratio_max - present) / spacing + 1e-9)
    states, first = below + above + 1, present - below * spacing
    paths[0, :states, 0] = -np.inf
    paths[0, below, 0], paths[0, below, 1], paths[0, below, 2], paths[0, below, 3] = 0.0, supply.emb_usable, supply.kv_usable, below
    held, held_emb, held_kv = 0.0, supply.emb_usable, supply.kv_usable
    for step in range(STEPS):
        old, new = paths[step % 2], paths[(step + 1) % 2]
        for state in range(states):
            _best_way_into(
                emb_value, kv_value, forecast[step], old, new, state, states, first + state * spacing, step < _LEAD_STEPS, supply, tail
            )
        gained, held_emb, held_kv = _step(emb_value, kv_value, forecast[step], present, held_emb, held_kv, supply, tail)
        held += gained
    last, end = paths[STEPS % 2], forecast[STEPS - 1]
    best, lead = -np.inf, below
    for state in range(states):
        value = last[state, 0] + _TERMINAL_SECONDS * _standing(emb_value, kv_value, end, first + state * spacing)
        if value > best:
            best, lead = value, int(last[state, 3])
    return first + lead * spacing, best, held + _TERMINAL_SECONDS * _standing(emb_value, kv_value, end, present)


@kernel
def _best_way_into(
    emb_value: Curve,
    kv_value: Curve,
    factors: NDArray[np.float64],
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    state: int,
    states: int,
    ratio: float,
    leading: bool,
    supply: Supply,
    tail: TailModel,
) -> None:
    """Among the states that reach this one in a step the best; standing still wins ties."""
    new[state, 0] = -np.inf
    for origin in range(max(0, state - REACH), min(states, state + REACH + 1)):
        if old[origin, 0] == -np.inf:
            continue
        gained, emb, kv = _step(emb_value, kv_value, factors, ratio, old[origin, 1], old[origin, 2], supply, tail)
        value = old[origin, 0] + gained
        tie = 1e-12 * abs(value)
        if value > new[state, 0] + (tie if origin != state else -tie):
            new[state, 0], new[state, 1], new[state, 2] = value, emb, kv
            new[state, 3] = state if leading else old[origin, 3]


@kernel
def _step(
    emb_value: Curve,
    kv_value: Curve,
    factors: NDArray[np.float64],
    ratio: float,
    emb_usable: float,
    kv_usable: float,
    supply: Supply,
    tail: TailModel,
) -> tuple[float, float, float]:
    """Milliseconds gained in one step at `ratio`, and the usable shares of the pool after it."""
    room = max(0.0, ratio - emb_usable)
    by_misses = min(room, supply.emb_miss_ratio * STEP_SECONDS)
    refilled = min(room - by_misses, supply.emb_refill_ratio * STEP_SECONDS)
    emb = min(emb_usable, ratio) + by_misses + refilled
    kv = min(min(kv_usable, 1.0 - ratio) + supply.kv_miss_ratio * STEP_SECONDS, 1.0 - ratio)
    emb_saved, kv_saved = value_at(emb_value, emb), value_at(kv_value, kv)
    late = slo_miss_cost(tail, slo_miss_ratio(tail, emb_saved, kv_saved, max(factors[0], factors[1])), _SLO_MISS_TARGET_RATIO, 1.0)
    return (factors[0] * emb_saved + factors[1] * kv_saved - late) * STEP_SECONDS - refilled * supply.refill_cost_ms, emb, kv


@kernel
def _standing(emb_value: Curve, kv_value: Curve, factors: NDArray[np.float64], ratio: float) -> float:
    """Value per second of a ratio once its caches are full."""
    emb = value_at(emb_value, ratio)
    return float(factors[0] * emb + factors[1] * value_at(kv_value, 1.0 - ratio))
