"""The demo's traffic for the `cpu-demo` profile, and each regime alone.

Sizes follow from the pool: 1,024 pages of 64 KiB a node, a page being 256 rows or 64 tokens. At an even split
a node keeps 131 k of 400 k rows and four nodes keep 131 k tokens. Working sets are sized around these numbers,
so that each of the two caches has its knee inside the pool and the best split moves with the regime.
"""

import msgspec
import numpy as np

from agents.profiles import Profile
from agents.workloads.generators import Population, Purpose, Stream, SyntheticWorkload, VisitLaw, stream_of
from agents.workloads.popularity import PowerLaw, RowLaw, TwoLevelRows
from agents.workloads.regimes import Keyframe, Schedule, Traffic


class DemoParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every number of the demo's traffic. Frozen: what was tuned is what runs.

    Sources: in-visit gaps, revisit shape and events a request are KuaiRand-27K's; the rise of the hot-user share
    from 10 % to 30 %, arrivals x1.5-2 and histories growing by 15/8 are the paper's regimes; the sizes of the hot
    sets are ours, chosen by simulation so that knees lie inside the pool.
    """

    users: int = 4_000
    rows: int = 400_000
    candidates: int = 512
    tokens_max: int = 768
    actions: int = 8
    visits: VisitLaw = VisitLaw()
    steady: Traffic = Traffic(hot_rows=150_000.0, hot_row_ratio=0.9)
    trend: Traffic = Traffic(
        hot_request_ratio=0.30,
        hot_users=240.0,
        history_tokens_low=640.0,  # x 15/8, as 8K -> 15K
        history_tokens_high=768.0,
        events_per_request=12.0,
        hot_rows=45_000.0,  # attention narrows as it moves on, so the two demands cross over
        hot_row_ratio=0.85,
        hot_rows_drift_per_second=120.0,  # a sixth of the hot rows in a minute
        hot_users_drift_per_second=0.5,
    )
    burst: Traffic = Traffic(
        rate_factor=1.75,
        hot_request_ratio=0.30,
        hot_users=320.0,
        history_tokens_low=600.0,  # who comes at once when something happens are the loyal users, with long histories
        history_tokens_high=768.0,
        hot_rows=35_000.0,  # and all of them look at the same few things
        hot_row_ratio=0.85,
    )
    cold_flood: Traffic = Traffic(rate_factor=1.5, cold_request_ratio=0.6, hot_request_ratio=0.05, hot_rows=120_000.0)
    steady_seconds: float = 120.0
    trend_seconds: float = 150.0  # of rising; the end is held for `hold_seconds`
    hold_seconds: float = 100.0
    burst_onset_seconds: float = 4.0
    burst_hold_seconds: float = 110.0
    burst_decay_seconds: float = 30.0
    sessions_requests_mean: float = 10.0
    sessions_users: int = 40_000  # so many that a user who went does not come back within the stream

    @classmethod
    def for_profile(cls, profile: Profile) -> "DemoParameters":
        """Defaults with the sizes of a profile."""
        return cls(rows=profile.rows, candidates=profile.candidates, tokens_max=profile.model.tokens_max, actions=profile.model.actions)


REGIMES = ("demo", "steady", "trend", "burst", "sessions", "smooth", "cold-flood", "zero")


def synthetic_workload(
    name: str, seed: int, rate_per_second: float = 40.0, loop: bool = False, parameters: DemoParameters | None = None
) -> SyntheticWorkload:
    """Workload by name; `ValueError` lists the known ones. `rate_per_second` is the fleet's base rate."""
    if name not in REGIMES:
        raise ValueError(f"workload: unknown {name!r}, choose one of {', '.join(REGIMES)}")
    p = parameters or DemoParameters()
    population = Population(
        users=p.sessions_users if name == "sessions" else p.users,
        rows=p.rows,
        candidates=p.candidates,
        tokens_max=p.tokens_max,
        actions=p.actions,
    )
    visits = msgspec.structs.replace(p.visits, requests_mean=p.sessions_requests_mean) if name == "sessions" else p.visits
    stream = Stream(population=population, visits=visits, schedule=Schedule(keyframes(name, p)), smooth=name == "smooth")
    order = stream_of(seed, Purpose.ROW_ORDER)
    rows: RowLaw = PowerLaw(p.rows, stream.row_exponent, stream.row_shift, order) if stream.smooth else TwoLevelRows(p.rows, order)
    return SyntheticWorkload(name, stream, rows, rate_per_second, seed, loop)


def keyframes(name: str, p: DemoParameters) -> list[Keyframe]:
    """The schedule of one cycle of a named workload."""
    if name == "trend":
        return _sequence([(0.0, p.steady), (p.trend_seconds, p.trend), (p.hold_seconds, p.trend)])
    if name == "burst":
        return _sequence([(0.0, p.steady), (p.steady_seconds, p.steady), *_burst(p), (p.steady_seconds, p.steady)])
    if name == "cold-flood":
        flood = [(p.burst_onset_seconds, p.cold_flood), (p.burst_hold_seconds, p.cold_flood), (p.burst_decay_seconds, p.steady)]
        return _sequence([(0.0, p.steady), (p.hold_seconds, p.steady), *flood, (p.hold_seconds, p.steady)])
    if name == "zero":  # the silent middle of a stream, what an idle fleet sees
        silence = msgspec.structs.replace(p.steady, rate_factor=0.0)
        return _sequence([(0.0, p.steady), (60.0, p.steady), (0.1, silence), (120.0, silence), (0.1, p.steady), (60.0, p.steady)])
    if name == "sessions":
        return _sequence([(0.0, _no_hot(p.steady)), (300.0, _no_hot(p.steady))])
    if name == "demo":
        rise = [(p.trend_seconds, p.trend), (p.hold_seconds, p.trend), (p.hold_seconds / 2, p.steady)]
        return _sequence([(0.0, p.steady), (p.steady_seconds, p.steady), *rise, *_burst(p), (p.steady_seconds / 2, p.steady)])
    return _sequence([(0.0, p.steady), (300.0, p.steady)])


def _burst(p: DemoParameters) -> list[tuple[float, Traffic]]:
    return [(p.burst_onset_seconds, p.burst), (p.burst_hold_seconds, p.burst), (p.burst_decay_seconds, p.steady)]


def _no_hot(traffic: Traffic) -> Traffic:
    return msgspec.structs.replace(traffic, hot_request_ratio=0.0)


def _sequence(steps: list[tuple[float, Traffic]]) -> list[Keyframe]:
    """Keyframes from (seconds since the step before, traffic) pairs."""
    ends = np.cumsum([seconds for seconds, _ in steps])
    return [Keyframe(float(at), traffic) for at, (_, traffic) in zip(ends, steps, strict=True)]
