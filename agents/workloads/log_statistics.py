"""What a log of events is like, in the terms in which the generators are stated, and which of them is nearest.

Pure arithmetic on (users, items, times); reading files is `trace.py`'s and `trace_file.py`'s business.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.workloads.trace import Log

VISIT_SECONDS = 1800.0  # a longer gap ends a visit: the convention of web logs, and of the figures we compare with
COARSE_SECONDS = 3600.0  # a clock this coarse shows neither visits nor hours
_DAY_SECONDS = 86_400.0
_EXPONENTS = np.arange(0.3, 2.01, 0.02)
_SHIFTS = np.array([0.0, *np.geomspace(0.5, 5000.0, 41)])
_RANKS_FITTED = 64
_WINDOW_EVENTS = 50.0  # in a thinner window a Poisson stream would already seem to burst
_BURST_RATIO = 2.0  # beyond what the hour of day explains; the paper's bursts multiply arrivals by 1.5-2 on top of returning users


class LogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a log; NaN where it cannot show them. Gap laws are LN(mu, sigma) in ln seconds."""

    users: int
    items: int
    events: int
    span_seconds: float
    events_per_second: float
    events_per_user_p50: float
    events_per_user_p90: float
    events_per_user_ln_mu: float
    events_per_user_ln_sigma: float
    item_exponent: float  # Zipf-Mandelbrot a
    item_shift: float  # Zipf-Mandelbrot q
    item_fit_error: float  # largest distance of the cumulative shares
    item_top_1pct_ratio: float
    item_top_10pct_ratio: float
    items_seen_once_ratio: float
    user_top_1pct_ratio: float
    user_top_10pct_ratio: float
    clock_seconds: float  # step of the log's clock
    in_visit_ratio: float  # of a user's gaps
    events_per_visit: float
    gap_ln_mu: float
    gap_ln_sigma: float
    revisit_ln_mu: float
    revisit_ln_sigma: float
    revisit_hours_p50: float
    returned_next_day_ratio: float
    hour_peak_ratio: float  # events of the busiest hour of day over the mean
    hour_trough_ratio: float
    window_seconds: float  # of the two below: a minute, or as many as bring 50 events
    window_fano: float  # variance over mean of events per window; 1 is Poisson
    burst_peak_ratio: float  # busiest 1 % of the windows over their median
    hot_set_jaccard: float  # of the top 100 items of the log's two halves: 1 no drift


class Match(NamedTuple):
    """A generator and how far the log is from what it states, in log-ratios averaged over what the log can show."""

    generator: str
    distance: float


class Stated(NamedTuple):
    """What a catalogue states of its source's log; NaN where the source does not say."""

    users: float
    items: float
    events: float
    item_exponent: float
    item_shift: float
    in_visit_ratio: float
    revisit_hours: float
    revisit_sigma: float


# The table in docs/workloads.md. Books and Video Games have their published sizes and Grocery's laws.
STATED = {
    "taobao": Stated(987_991, 4_161_138, 100_095_182, 1.1, 550.0, 0.71, 4.3, 1.16),
    "amazon-books": Stated(603_668, 367_982, 8_898_041, 0.88, 31.0, math.nan, 52 * 24.0, 1.63),
    "amazon-video-games": Stated(24_303, 10_672, 231_780, 0.88, 31.0, math.nan, 52 * 24.0, 1.63),
}


def facts_of(log: Log) -> LogFacts:
    """Facts of a log of events in order of time."""
    seconds = (log.ts_ns - log.ts_ns[0]) / 1e9
    span = float(seconds[-1])
    per_user = np.bincount(log.users, minlength=log.user_count)
    per_item = np.sort(np.bincount(log.items, minlength=log.item_ids.shape[0]))[::-1]
    exponent, shift, error = fit_zipf_mandelbrot(per_item)
    return LogFacts(
        users=log.user_count,
        items=int(per_item.size),
        events=int(seconds.size),
        span_seconds=span,
        events_per_second=seconds.size / span if span > 0 else math.nan,
        events_per_user_p50=float(np.quantile(per_user, 0.5)),
        events_per_user_p90=float(np.quantile(per_user, 0.9)),
        events_per_user_ln_mu=float(np.log(per_user).mean()),
        events_per_user_ln_sigma=float(np.log(per_user).std()),
        item_exponent=exponent,
        item_shift=shift,
        item_fit_error=error,
        item_top_1pct_ratio=_top(per_item, 0.01),
        item_top_10pct_ratio=_top(per_item, 0.10),
        items_seen_once_ratio=float((per_item == 1).mean()),
        user_top_1pct_ratio=_top(np.sort(per_user)[::-1], 0.01),
        user_top_10pct_ratio=_top(np.sort(per_user)[::-1], 0.10),
        **_gaps(log, seconds),
        **_rhythm(log, seconds),
        hot_set_jaccard=_drift(log),
    )


def fit_zipf_mandelbrot(descending: NDArray[np.int64]) -> tuple[float, float, float]:
    """Exponent a and shift q of weights `(rank + q) ** -a` nearest to counts in descending order, and the error.

    Nearest in the largest distance of the cumulative shares at ranks evenly spread in their logarithm: a fit of the
    frequencies themselves would be decided by the thousands of ids seen once. A grid cannot get caught anywhere.
    """
    if descending.size < 3:
        return math.nan, math.nan, math.nan
    ranks = np.unique(np.geomspace(1, descending.size, _RANKS_FITTED).round().astype(np.int64))
    measured = np.cumsum(descending)[ranks - 1] / descending.sum()
    best = (math.inf, math.nan, math.nan)
    for shift in _SHIFTS:
        modelled = np.stack([_cumulative(ranks, descending.size, exponent, shift) for exponent in _EXPONENTS])
        errors = np.abs(modelled - measured).max(axis=1)
        place = int(errors.argmin())
        best = min(best, (float(errors[place]), float(_EXPONENTS[place]), float(shift)))
    return best[1], best[2], best[0]


def matches(facts: LogFacts) -> list[Match]:
    """Catalogues by distance, nearest first."""
    found = [Match(name, _distance(facts, stated)) for name, stated in STATED.items()]
    return sorted(found, key=lambda match: match.distance)


def regime_of(facts: LogFacts) -> str:
    """The regime a log resembles most: `burst` if its busiest windows stand out from the day, `trend` if its hot items change."""
    daily = facts.hour_peak_ratio if facts.hour_peak_ratio > 1.0 else 1.0
    if facts.burst_peak_ratio >= _BURST_RATIO * daily:
        return "burst"
    if facts.hour_peak_ratio >= 1.5:
        return "diurnal-swap"
    return "trend" if facts.hot_set_jaccard < 0.3 else "steady"


def _distance(facts: LogFacts, stated: Stated) -> float:
    pairs = [
        (facts.events / facts.users, stated.events / stated.users),
        (facts.events / facts.items, stated.events / stated.items),
        (facts.item_exponent, stated.item_exponent),
        (facts.item_shift / facts.items + 1e-4, stated.item_shift / stated.items + 1e-4),
        (facts.in_visit_ratio, stated.in_visit_ratio),
        (facts.revisit_hours_p50, stated.revisit_hours),
        (facts.revisit_ln_sigma, stated.revisit_sigma),
    ]
    ratios = [abs(math.log(measured / wanted)) for measured, wanted in pairs if measured > 0 and wanted > 0]
    return sum(ratios) / len(ratios) if ratios else math.inf


def _cumulative(ranks: NDArray[np.int64], ids: int, exponent: float, shift: float) -> NDArray[np.float64]:
    """Share of the first ranks, by the law's integral."""
    edges = np.concatenate(([0.5], ranks + 0.5, [ids + 0.5])) + shift
    power = 1.0 - exponent
    integral = np.log(edges) if abs(power) < 1e-9 else edges**power / power
    return np.asarray((integral[1:-1] - integral[0]) / (integral[-1] - integral[0]))


def _gaps(log: Log, seconds: NDArray[np.float64]) -> dict[str, float]:
    """Gaps between a user's events: inside a visit and between visits."""
    order = np.lexsort((seconds, log.users))
    same = np.diff(log.users[order]) == 0
    gaps = np.diff(seconds[order])[same]
    steps = log.ts_ns - log.ts_ns[0]
    clock = float(np.gcd.reduce(steps)) / 1e9 if steps.size > 1 else 0.0
    coarse = clock >= COARSE_SECONDS
    inside, between = gaps[(gaps > 0) & (gaps <= VISIT_SECONDS)], gaps[gaps > max(VISIT_SECONDS, 0.0)]
    in_visit = math.nan if coarse or not gaps.size else float((gaps <= VISIT_SECONDS).mean())
    gap_law, revisit_law = _lognormal(inside if not coarse else inside[:0]), _lognormal(between)
    return {
        "clock_seconds": clock,
        "in_visit_ratio": in_visit,
        "events_per_visit": 1.0 / (1.0 - in_visit) if in_visit < 1.0 else math.nan,
        "gap_ln_mu": gap_law[0],
        "gap_ln_sigma": gap_law[1],
        "revisit_ln_mu": revisit_law[0],
        "revisit_ln_sigma": revisit_law[1],
        "revisit_hours_p50": float(np.median(between)) / 3600.0 if between.size else math.nan,
        "returned_next_day_ratio": _returned_next_day(log, seconds),
    }


def _returned_next_day(log: Log, seconds: NDArray[np.float64]) -> float:
    """Share of (user, day) pairs, the last day aside, whose user also came the day after."""
    days = (seconds // _DAY_SECONDS).astype(np.int64)
    width = int(days[-1]) + 2
    pairs = np.unique(log.users * width + days)
    early = pairs[pairs % width < width - 2]
    return float(np.isin(early + 1, pairs).mean()) if early.size else math.nan


def _rhythm(log: Log, seconds: NDArray[np.float64]) -> dict[str, float]:
    """Arrivals by the hour of day and by windows; a coarse clock shows neither."""
    found = dict.fromkeys(("hour_peak_ratio", "hour_trough_ratio", "window_seconds", "window_fano", "burst_peak_ratio"), math.nan)
    steps = log.ts_ns - log.ts_ns[0]
    if steps.size < 2 or not steps[-1] or float(np.gcd.reduce(steps)) / 1e9 >= COARSE_SECONDS:
        return found
    if seconds[-1] >= _DAY_SECONDS:
        hours = np.bincount((log.ts_ns // 3_600_000_000_000 % 24).astype(np.int64), minlength=24)
        found["hour_peak_ratio"], found["hour_trough_ratio"] = float(hours.max() / hours.mean()), float(hours.min() / hours.mean())
    width = max(60.0, _WINDOW_EVENTS * seconds[-1] / seconds.size)
    windows = np.bincount((seconds // width).astype(np.int64))
    whole = windows[:-1] if windows.size > 1 else windows  # the last one is cut off
    busiest = np.sort(whole)[-max(1, round(0.01 * whole.size)) :].mean()
    found["window_seconds"], found["window_fano"] = float(width), float(whole.var() / whole.mean())
    found["burst_peak_ratio"] = float(busiest / np.median(whole)) if np.median(whole) > 0 else math.nan
    return found


def _drift(log: Log) -> float:
    half = log.items.size // 2
    first, second = (np.bincount(part, minlength=log.item_ids.shape[0]) for part in (log.items[:half], log.items[half:]))
    top = min(100, max(1, log.item_ids.shape[0] // 10))
    tops = [set(np.argsort(-part, kind="stable")[:top].tolist()) for part in (first, second)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def _lognormal(values: NDArray[np.float64]) -> tuple[float, float]:
    if values.size < 2:
        return math.nan, math.nan
    logs = np.log(values)
    return float(logs.mean()), float(logs.std())


def _top(descending: NDArray[np.int64], ratio: float) -> float:
    return float(descending[: max(1, round(descending.size * ratio))].sum() / descending.sum())
