"""Fleet traffic by name: a catalogue (whose shop) times a regime (what happens), for nodes with some 80 GB of pool.

Sources. [T] Taobao UserBehavior, full log of 9 days: 987,991 users, 4,161,138 items, 100,095,182 events. [K] KuaiRand-27K, full
log of 31 days. [A] Amazon review sets, 5-core, 2014: Books 603,668 users, 367,982 items; Video Games 24,303 users, 10,672 items;
skew and revisits were measured on Grocery, their nearest kin, and are taken from there. [F] The published benchmarks of
the HELM paper's author. [P] The paper's regimes: histories growing from 8K to 15K, a hot-user share rising from 10 % to 30 %,
arrivals x1.5-2. [O] Ours: working sets are counted per node and sized so that each of the two caches has its knee inside
an 80 GB pool, and checked by replaying static splits (`docs/workloads.md` shows the result).

What a request carries. Its *history* is one row per token, the items' main rows, drawn by the catalogue's measured
Zipf-Mandelbrot skew (weights (rank + q) ** -a). Public histories are far shorter than 8K tokens, so they are synthesised: a
user's first request carries 3/4 to all of the user's window, a length for life between the regime's low and high bound; each
later one appends the events since, and at the window's end the history slides by a quarter of it, as the model does. Its
*candidates* are 8,000 rows (candidates x features per item): a share of them from a hot set of equally popular rows that
takes 90 % in the published benchmarks [F], the rest from the tail. The hot set may drift; histories keep what was popular.

Who comes. Hot users form a set per node that returns all the time, regular users come for visits (gaps and revisits from the
logs, log time compressed 48-fold), cold users come once. Revisit laws give their shape only: the scale follows from
users and rate, so that a stream is stationary.
"""

import math

import msgspec

from agents.workloads.fleet_workload import FleetStream, FleetWorkload
from agents.workloads.generators import VisitLaw
from agents.workloads.regimes import Keyframe, Traffic

REGIMES = (
    "steady",
    "trend",
    "burst",
    "cold-flood",
    "scan-flood",
    "diurnal-swap",
    "sessions",
    "smooth",
    "version-flip",
    "zero-traffic",
)
DURATION_SECONDS = 300.0
ROW_SHIFT = 8

_TABLE_ROWS = 1 << 28  # 137 GB of 512 B rows: 1.7 times the pool and more, small enough to sample
_GB_ROWS = 1_953_125.0  # rows of 512 B in 1e9 bytes
_NEW_TOKENS = 64.0  # [F] delta of a request that comes again
_DAY_POINTS = 24


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shop: its stream, and its traffic in the regimes' three states."""

    stream: FleetStream
    steady: Traffic
    calm: Traffic  # before a burst: few users return soon
    trend_begin: Traffic
    trend_end: Traffic
    burst: Traffic


def _visits(gap_mu: float, gap_sigma: float, revisit_sigma: float, requests_mean: float) -> VisitLaw:
    return VisitLaw(gap_mu=gap_mu, gap_sigma=gap_sigma, revisit_sigma=revisit_sigma, requests_mean=requests_mean)


def _stream(items: int, exponent: float, shift: float, visits: VisitLaw) -> FleetStream:
    return FleetStream(
        users_per_node=20_000,  # so many that a regular user's revisit rarely falls into a 5-minute stream [O]
        items=items,
        rows=_TABLE_ROWS,
        candidates=8_000,  # [F]
        tokens_max=16_384,  # [F]
        item_exponent=exponent,
        item_shift=shift,
        visits=visits,
    )


def _traffic(
    hot_users: float, hot_request_ratio: float, tokens: tuple[float, float], hot_gb: float, hot_row_ratio: float, **other: float
) -> Traffic:
    return Traffic(
        hot_users=hot_users,
        hot_request_ratio=hot_request_ratio,
        history_tokens_low=tokens[0],
        history_tokens_high=tokens[1],
        hot_rows=hot_gb * _GB_ROWS,
        hot_row_ratio=hot_row_ratio,
        events_per_request=other.pop("new_tokens", _NEW_TOKENS),
        **other,
    )


_WINDOW_8K, _WINDOW_10K, _WINDOW_12K, _WINDOW_15K = (8_000.0, 10_300.0), (9_500.0, 13_500.0), (11_500.0, 15_500.0), (15_000.0, 16_384.0)

CATALOGUES = {
    # Items: Zipf-Mandelbrot a 1.0-1.2, q 100-1000 estimated [T]. Gaps inside a visit LN(4.16, 1.56), 71 % of all gaps, hence
    # 3.4 requests a visit; revisit shape 1.16 [T]. 190 hot users at 70 % and 40 GB of hot rows: a quick check of ours had
    # its optimum at 0.50 with them.
    "taobao": Catalogue(
        stream=_stream(4_161_138, 1.1, 550.0, _visits(4.16, 1.56, 1.16, 3.4)),
        steady=_traffic(190, 0.70, _WINDOW_10K, 40.0, 0.90),
        calm=_traffic(100, 0.50, _WINDOW_8K, 60.0, 0.90),
        trend_begin=_traffic(150, 0.50, _WINDOW_8K, 58.0, 0.90),
        trend_end=_traffic(330, 0.75, _WINDOW_15K, 26.0, 0.90, new_tokens=96.0),
        burst=_traffic(300, 0.80, _WINDOW_12K, 34.0, 0.90),
    ),
    # Items: a 0.88, q 31, revisit shape 1.63 of Grocery [A]. The review sets have one timestamp a day and so no visits: gaps
    # inside a visit LN(4.26, 1.49) are [K]'s, 3 requests a visit the lower end of the author's 3-6 [F]. A wide
    # catalogue: more hot rows, which take less; readers return slowly, so fewer requests are hot.
    "amazon-books": Catalogue(
        stream=_stream(367_982, 0.88, 31.0, _visits(4.26, 1.49, 1.63, 3.0)),
        steady=_traffic(150, 0.60, _WINDOW_10K, 48.0, 0.85),
        calm=_traffic(90, 0.40, _WINDOW_8K, 64.0, 0.85),
        trend_begin=_traffic(120, 0.45, _WINDOW_8K, 62.0, 0.85),
        trend_end=_traffic(300, 0.70, _WINDOW_15K, 30.0, 0.85, new_tokens=96.0),
        burst=_traffic(270, 0.75, _WINDOW_12K, 38.0, 0.85),
    ),
    # Items: a 0.88, q 31 of Grocery over 10,672 items [A]; visits as for books. A small catalogue with loyal users: fewer
    # hot rows, which take more, and a wider hot set of users.
    "amazon-video-games": Catalogue(
        stream=_stream(10_672, 0.88, 31.0, _visits(4.26, 1.49, 1.63, 4.5)),
        steady=_traffic(230, 0.75, _WINDOW_10K, 28.0, 0.92),
        calm=_traffic(130, 0.55, _WINDOW_8K, 52.0, 0.92),
        trend_begin=_traffic(180, 0.55, _WINDOW_8K, 48.0, 0.92),
        trend_end=_traffic(370, 0.80, _WINDOW_15K, 18.0, 0.92, new_tokens=96.0),
        burst=_traffic(360, 0.85, _WINDOW_12K, 26.0, 0.92),
    ),
}


def fleet_workload(
    catalogue: str,
    regime: str,
    *,
    nodes: int,
    rate_per_second: float,
    seed: int,
    duration_seconds: float = DURATION_SECONDS,
    row_shift: int = ROW_SHIFT,
) -> FleetWorkload:
    """A stream by name; `rate_per_second` is the fleet's mean rate outside bursts. `ValueError` names a bad argument."""
    if catalogue not in CATALOGUES:
        raise ValueError(f"workload: unknown {catalogue!r}, choose one of {', '.join(CATALOGUES)}")
    if regime not in REGIMES:
        raise ValueError(f"regime: unknown {regime!r}, choose one of {', '.join(REGIMES)}")
    if not (math.isfinite(duration_seconds) and duration_seconds >= 1.0):
        raise ValueError("duration_seconds: must be a finite number >= 1")
    given = CATALOGUES[catalogue]
    stream = given.stream
    if regime == "smooth":
        stream = msgspec.structs.replace(stream, smooth=True)
    if regime == "sessions":  # several requests in a row, then gone for good [F: 3-6 a session]
        visits = msgspec.structs.replace(stream.visits, requests_mean=6.0)
        stream = msgspec.structs.replace(stream, visits=visits, users_per_node=60_000)
    if regime == "version-flip":
        stream = msgspec.structs.replace(stream, flips_seconds=(duration_seconds / 2,))
    return FleetWorkload(
        f"{catalogue}/{regime}",
        stream,
        keyframes(given, regime, duration_seconds),
        nodes=nodes,
        rate_per_second=rate_per_second,
        seed=seed,
        row_shift=row_shift,
    )


def keyframes(shop: Catalogue, regime: str, seconds: float) -> list[Keyframe]:
    """A regime's schedule: slow changes are shares of the duration, an onset takes four seconds whatever the duration."""
    steady = shop.steady
    if regime == "trend":
        return _trend(shop, seconds)
    if regime == "burst":
        return _bursts(shop.calm, msgspec.structs.replace(shop.burst, rate_factor=1.6), seconds)
    if regime == "cold-flood":  # newcomers take over: an advertisement, a bot
        flood = msgspec.structs.replace(steady, cold_request_ratio=0.7, hot_request_ratio=0.1)
        return _flood(steady, flood, seconds)
    if regime == "scan-flood":  # somebody reads the whole catalogue: rows that nobody asks for again
        scan = msgspec.structs.replace(steady, cold_request_ratio=0.2, hot_request_ratio=0.8 * steady.hot_request_ratio, hot_row_ratio=0.5)
        return _flood(steady, scan, seconds)
    if regime == "diurnal-swap":
        return _days(shop, seconds)
    if regime == "sessions":
        return _held(msgspec.structs.replace(steady, hot_request_ratio=0.0), seconds)
    if regime == "zero-traffic":  # the silent middle of a stream
        silent = msgspec.structs.replace(steady, rate_factor=0.0)
        return _flood(steady, silent, seconds, onset_seconds=0.1)
    return _held(steady, seconds)


def _held(traffic: Traffic, seconds: float) -> list[Keyframe]:
    return [Keyframe(0.0, traffic), Keyframe(seconds, traffic)]


def _trend(shop: Catalogue, seconds: float) -> list[Keyframe]:
    """Histories from 8K to 15K, hot users and their share up, hot rows down, hot sets drifting, over 80 % of the stream [P]."""
    drift = {"hot_rows_drift_per_second": shop.trend_begin.hot_rows / 1200.0, "hot_users_drift_per_second": 0.15}  # a quarter in 5 min [O]
    begin, end = (msgspec.structs.replace(traffic, **drift) for traffic in (shop.trend_begin, shop.trend_end))
    return [Keyframe(0.0, begin), Keyframe(0.1 * seconds, begin), Keyframe(0.9 * seconds, end), Keyframe(seconds, end)]


def _bursts(calm: Traffic, burst: Traffic, seconds: float) -> list[Keyframe]:
    """Two bursts: arrivals x1.6 and three times the returning users within four seconds, held, then decaying [P]."""
    onset = min(4.0, 0.02 * seconds)
    frames = [Keyframe(0.0, calm)]
    for rise in burst_onsets_seconds(seconds):
        frames += [
            Keyframe(rise, calm),
            Keyframe(rise + onset, burst),
            Keyframe(rise + 0.12 * seconds, burst),
            Keyframe(rise + 0.25 * seconds, calm),
        ]
    return [*frames, Keyframe(seconds, calm)]


def burst_onsets_seconds(seconds: float) -> tuple[float, ...]:
    """When the bursts of a stream of the regime `burst` begin."""
    return 0.25 * seconds, 0.65 * seconds


def _flood(before: Traffic, flood: Traffic, seconds: float, onset_seconds: float = 4.0) -> list[Keyframe]:
    onset = min(onset_seconds, 0.02 * seconds)
    begin, end = 0.3 * seconds, 0.7 * seconds
    return [
        Keyframe(0.0, before),
        Keyframe(begin, before),
        Keyframe(begin + onset, flood),
        Keyframe(end, flood),
        Keyframe(end + onset, before),
        Keyframe(seconds, before),
    ]


def _days(shop: Catalogue, seconds: float) -> list[Keyframe]:
    """Two days of 24 steps, from night (newcomers browse widely) to evening (regulars return) and back.

    The logs' hour peak is 2.0 and 1.65 times the mean and their trough 0.12 and 0.19 [T, K]; 1.2 and 0.8 here, or the
    stream would only show saturation at one end and idleness at the other.
    """
    night, evening = shop.calm, shop.trend_end
    frames = []
    for step in range(2 * _DAY_POINTS + 1):
        share = (1.0 - math.cos(2.0 * math.pi * step / _DAY_POINTS)) / 2.0
        frames.append(Keyframe(seconds * step / (2 * _DAY_POINTS), _blend(night, evening, round(share, 6))))
    return frames


def _blend(low: Traffic, high: Traffic, share: float) -> Traffic:
    fields = Traffic.__struct_fields__
    mixed = {name: (1.0 - share) * getattr(low, name) + share * getattr(high, name) for name in fields}
    return Traffic(**{**mixed, "rate_factor": 0.8 + 0.4 * share})
