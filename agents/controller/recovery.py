"""The recovery layer: when arrivals or latency break out of their band, go to a safe split, then hand back.

Arrivals are judged by a cumulative sum of log-likelihood ratios for a rise by half (a Poisson count scaled by the
dispersion it shows in calm). It alarms after exp(9) steps of pure chance or more, which is hours, and within a step or
two of a real burst. What is calm is learned in calm alone, for ten seconds at least: traffic that begins is no burst,
and the second of two bursts stands out as the first did. Latency alarms when ln(P99 / SLO) stands three deviations above
its mean, and above the SLO, twice in a row.

    calm -> surge    the base may leave EMB no more than the safe split, refill gets a quarter of its budget; for ten
                     seconds, the onset, the base is asked at every look
    surge -> easing  after ten seconds at least, when both are back in their bands, or after three minutes
    easing -> calm   after twenty seconds in which the base decides again and refill has half its budget

The safe split is the one whose worst share of the best value is largest, over today's curves and the curves
with KV weighing more, by as much as returning users have become more frequent (at least half more); never further
than 0.15 from the present one.
"""

import math
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.controller.value import Curve, split_value
from agents.numerics.jit import kernel


class Phase(IntEnum):
    """Where the recovery layer stands."""

    CALM = 0
    SURGE = 1
    EASING = 2


_CALM, _SURGE, _EASING = int(Phase.CALM), int(Phase.SURGE), int(Phase.EASING)
RISE = 1.5  # the smallest burst worth taking over for
_LOG_RISE = math.log(RISE)
_ALARM = 9.0
_RISEN = 1.36  # of the reference, at the alarm: what changes over many minutes stays nearer to it, and what the router moves about
_CALMED = 1.3
_STEP_SECONDS_MAX = 10.0  # after a longer silence the count of the time in between is not known
_DISPERSION_START, _DISPERSION_MAX, _DISPERSION_GAIN = 2.0, 50.0, 0.02
_COUNT_MIN = 3.0  # expected arrivals in a step: fewer say nothing
_CALM_HALF_LIFE_SECONDS = 60.0
_CALM_SECONDS_MIN = 10.0  # of traffic, before a rise can be told from a beginning
_SILENT_PER_SECOND = 0.5
_BAND_SIGMAS, _BAND_MIN, _BAND_HALF_LIFE_SECONDS = 3.0, 0.25, 60.0
_BAND_SAMPLES_MIN = 30
_LATE_TURNS = 2
_ONSET_SECONDS = 10.0  # queues build in seconds: a base in its own time would be asked after the tail is made
_SURGE_SECONDS_MIN, _SURGE_SECONDS_MAX, _EASING_SECONDS = 10.0, 180.0, 20.0
_KV_WEIGHT_MIN, _KV_WEIGHT_MAX = 1.5, 3.0
_REVISIT_HALF_LIFE_SECONDS = 300.0
_SAFE_POINTS = 33
SAFE_DISTANCE_MAX = 0.15  # an alarm may be false, and a split far away costs as much as many bursts
REFILL_SHARES = (1.0, 0.25, 0.5)  # of the refill budget, by phase

RECOVERY = np.dtype(
    [
        ("phase", "i8"),
        ("since_ns", "i8"),
        ("safe_ratio", "f8"),
        ("seen_ns", "i8"),  # 0: never
        ("sum", "f8"),  # of log-likelihood ratios
        ("reference", "f8"),  # arrivals per second in calm
        ("watched_seconds", "f8"),  # of traffic in calm, that the reference comes from
        ("dispersion", "f8"),
        ("timed_out", "i8"),  # 1: handed back while still high; not taken again before it was calm
        ("band_mean", "f8"),
        ("band_variance", "f8"),
        ("band_samples", "i8"),
        ("late_turns", "i8"),
        ("revisit_slow", "f8"),
        ("by_latency", "i8"),  # 1: latency raised the present alarm
    ],
    align=True,
)


def reset(recoveries: NDArray[Any]) -> None:
    """Calm, nothing learned."""
    recoveries[:] = np.zeros(1, RECOVERY)[0]
    recoveries["dispersion"] = _DISPERSION_START
    recoveries["revisit_slow"] = math.nan


@kernel
def judge(recovery: Any, moment: Any, emb_value: Curve, kv_value: Curve, emb_ratio_min: float, emb_ratio_max: float) -> int:
    """Phase after this decision; `safe_ratio` is valid in a surge."""
    seconds = 0.0 if recovery.seen_ns == 0 else (moment.now_ns - recovery.seen_ns) / 1e9
    recovery.seen_ns = max(moment.now_ns, recovery.seen_ns, 1)
    seconds = min(max(seconds, 0.0), _STEP_SECONDS_MAX)
    arrivals = _arrivals_break_out(recovery, moment, seconds)
    latency = _latency_breaks_out(recovery, moment, seconds)
    _remember_revisits(recovery, moment, seconds)
    if not (arrivals or latency):
        recovery.timed_out = 0
    if recovery.phase == _SURGE:
        _perhaps_ease(recovery, moment, arrivals or latency)
    elif (arrivals or latency) and recovery.timed_out == 0:
        recovery.phase, recovery.since_ns, recovery.by_latency = _SURGE, moment.now_ns, 0 if arrivals else 1
        weight = moment.revisit_ratio / recovery.revisit_slow if recovery.revisit_slow > 0.0 else 0.0
        weight = min(max(_KV_WEIGHT_MIN if math.isnan(weight) else weight, _KV_WEIGHT_MIN), _KV_WEIGHT_MAX)
        safe = safe_split(emb_value, kv_value, emb_ratio_min, emb_ratio_max, moment.emb_ratio, weight)
        recovery.safe_ratio = min(max(safe, moment.emb_ratio - SAFE_DISTANCE_MAX), moment.emb_ratio + SAFE_DISTANCE_MAX)
    elif recovery.phase == _EASING and moment.now_ns - recovery.since_ns >= _EASING_SECONDS * 1e9:
        recovery.phase, recovery.since_ns = _CALM, moment.now_ns
    return int(recovery.phase)


@kernel
def is_onset(recovery: Any, now_ns: int) -> bool:
    """Whether a surge began so lately that its queues are still building."""
    return bool(recovery.phase == _SURGE and now_ns - recovery.since_ns < _ONSET_SECONDS * 1e9)


@kernel
def _perhaps_ease(recovery: Any, moment: Any, high: bool) -> None:
    lasted = (moment.now_ns - recovery.since_ns) / 1e9
    if lasted >= _SURGE_SECONDS_MAX or (lasted >= _SURGE_SECONDS_MIN and not high):
        recovery.timed_out = 1 if high else 0
        recovery.phase, recovery.since_ns = _EASING, moment.now_ns
        recovery.sum = 0.0


@kernel
def _arrivals_break_out(recovery: Any, moment: Any, seconds: float) -> bool:
    """True at an alarm, and after it until arrivals are back near their reference."""
    fast, slow = moment.requests_per_second_fast, moment.requests_per_second_slow
    if math.isnan(fast + slow):
        return bool(recovery.phase == _SURGE and recovery.by_latency == 0)
    known = recovery.watched_seconds >= _CALM_SECONDS_MIN
    if recovery.phase == _SURGE or recovery.timed_out == 1:
        if recovery.timed_out == 1:
            recovery.reference = max(recovery.reference, slow / RISE)  # what lasts becomes the new calm
        return bool(known and fast > _CALMED * recovery.reference)
    expected = recovery.reference * seconds
    _learn_calm(recovery, fast, seconds)
    if not known or expected < _COUNT_MIN:
        return False
    spread = min(max(recovery.dispersion, 1.0), _DISPERSION_MAX)
    recovery.sum = max(0.0, recovery.sum + (fast * seconds * _LOG_RISE - (RISE - 1.0) * expected) / spread)
    if recovery.sum < 0.5 * _ALARM:  # what may be the beginning of a burst is no measure of calm
        surprise = fast * seconds - expected
        recovery.dispersion += _DISPERSION_GAIN * (surprise * surprise / expected - recovery.dispersion)
    return bool(recovery.sum >= _ALARM and fast >= _RISEN * recovery.reference)


@kernel
def _learn_calm(recovery: Any, fast: float, seconds: float) -> None:
    """The mean of what was seen first, then one that lags a burst by a minute and follows what changes over minutes."""
    if fast < _SILENT_PER_SECOND:
        recovery.watched_seconds = 0.0  # after a silence traffic begins anew
    if fast < _SILENT_PER_SECOND or seconds == 0.0:
        return
    recovery.watched_seconds += seconds
    follow = max(seconds / recovery.watched_seconds, 1.0 - 0.5 ** (seconds / _CALM_HALF_LIFE_SECONDS))
    recovery.reference += follow * (fast - recovery.reference)


@kernel
def _latency_breaks_out(recovery: Any, moment: Any, seconds: float) -> bool:
    """True above the band and the SLO twice in a row; in calm the band follows what is seen."""
    if not (moment.latency_ms_p99 > 0.0 and moment.slo_ms > 0.0):
        recovery.late_turns = 0
        return False
    level = math.log(moment.latency_ms_p99 / moment.slo_ms)
    away = level - recovery.band_mean
    width = max(_BAND_SIGMAS * math.sqrt(recovery.band_variance), _BAND_MIN)
    late = recovery.band_samples >= _BAND_SAMPLES_MIN and away > width and level > 0.0
    recovery.late_turns = recovery.late_turns + 1 if late else 0
    if (recovery.phase != _SURGE and not late) or recovery.timed_out == 1:
        follow = 1.0 if recovery.band_samples == 0 else 1.0 - 0.5 ** (seconds / _BAND_HALF_LIFE_SECONDS)
        recovery.band_mean += follow * away
        recovery.band_variance = (1.0 - follow) * (recovery.band_variance + follow * away * away)
        recovery.band_samples += 1
    return bool(recovery.late_turns >= _LATE_TURNS)


@kernel
def _remember_revisits(recovery: Any, moment: Any, seconds: float) -> None:
    if math.isnan(moment.revisit_ratio) or recovery.phase == _SURGE:
        return
    if math.isnan(recovery.revisit_slow):
        recovery.revisit_slow = moment.revisit_ratio
    follow = 1.0 - 0.5 ** (seconds / _REVISIT_HALF_LIFE_SECONDS)
    recovery.revisit_slow += follow * (moment.revisit_ratio - recovery.revisit_slow)


@kernel
def safe_split(emb_value: Curve, kv_value: Curve, emb_ratio_min: float, emb_ratio_max: float, present: float, kv_weight: float) -> float:
    """Largest worst share of the best value over calm and surge; the present ratio where nothing is worth anything."""
    calm_best, surge_best = 0.0, 0.0
    for point in range(_SAFE_POINTS):
        ratio = emb_ratio_min + (emb_ratio_max - emb_ratio_min) * point / (_SAFE_POINTS - 1)
        calm_best = max(calm_best, split_value(emb_value, kv_value, ratio, 1.0))
        surge_best = max(surge_best, split_value(emb_value, kv_value, ratio, kv_weight))
    if not (calm_best > 0.0 and surge_best > 0.0):
        return present
    safe, most = present, -1.0
    for point in range(_SAFE_POINTS):
        ratio = emb_ratio_min + (emb_ratio_max - emb_ratio_min) * point / (_SAFE_POINTS - 1)
        share = min(
            split_value(emb_value, kv_value, ratio, 1.0) / calm_best, split_value(emb_value, kv_value, ratio, kv_weight) / surge_best
        )
        if share > most + 1e-12 or (share >= most - 1e-12 and abs(ratio - present) < abs(safe - present)):
            safe, most = ratio, share
    return safe
