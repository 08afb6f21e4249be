"""What HELM would bring on a log, from the log alone: value curves, the best split, whether moving it pays, memory and nodes.

Everything comes from replaying static splits with real caches (`splits.py`) and a queue of one server per node, so a
router and batching can only do better. Three safeguards keep the answer honest. A schedule that follows the traffic is chosen on
one half of the requests and judged on the other, or noise would always seem worth following. It is clairvoyant, so a "no"
is a no. And every figure has an interval, from windows of the stream drawn again and again and from several nodes.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.caches.emb import ROW_MEMORY_MAX_NS
from agents.numerics.cost import Cost, kv_value_ms_per_second, row_hit_value_ms
from agents.numerics.jit import kernel
from agents.numerics.reuse import record_rows, record_user
from agents.numerics.reuse_curve import Pace, curve
from agents.numerics.reuse_state import new_reuse
from agents.profiles import Profile
from agents.sim.splits import NodeStream, SplitCost, node_stream, replay_splits
from agents.workloads.blocks import RequestBlock

ADMISSION_NS = 60_000_000_000  # as shipped: a user is in with the second request within a minute
REQUESTS_MAX = 40_000  # of one node replayed at once: a P99 then rests on some 300 requests, and a replay takes seconds
WARM_RATIO = 0.25  # of a replay that only fills the caches
RATIOS = np.linspace(0.1, 0.9, 9)
RATIOS_FINE = np.linspace(0.1, 0.9, 17)
POOL_FACTORS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NODES_MAX = 4096
NODE_SEARCH_STEPS = 6
WINDOW_SECONDS = 10.0  # of a schedule's decisions; also what the bootstrap draws
WINDOWS_MIN = 12
DRAWS = 400
PAYS_RATIO = 0.02  # a P99 or mean gain that a calm operator would get up for
_QUIET = (0.025, 0.975)


class Interval(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of work that a cache of each size saves per second, on one node."""

    capacity_gb: list[float]
    emb_ms_per_second: list[float]
    kv_ms_per_second: list[float]
    emb_share_at_pool: float  # of all that rows offer, saved by a whole pool of rows
    kv_share_at_pool: float


class SplitPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One static ratio."""

    emb_ratio: float
    service_ms_mean: float
    latency_ms_p99: float
    emb_hit_ratio: float
    kv_hit_ratio: float


class Adapting(msgspec.Struct, frozen=True, kw_only=True):
    """What a clairvoyant schedule within the actuator's limits would gain over the best static ratio."""

    pays: bool
    reason: str
    mean_gain_ratio: Interval
    p99_gain_ratio: Interval
    ratio_lowest: float
    ratio_highest: float
    at_seconds: list[float]
    emb_ratio: list[float]


class SizePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of this size on each node."""

    pool_gb: float
    emb_ratio: float
    utilisation: float
    latency_ms_p99: float
    meets_slo: bool


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    trace: str
    profile: str
    slo_ms: float
    requests: int
    requests_per_second: float
    nodes: int | None  # None: no number of nodes meets the SLO
    nodes_low: int
    nodes_high: int
    nodes_reason: str
    emb_ratio: float
    emb_ratio_low: float
    emb_ratio_high: float
    latency_ms_p99: Interval
    utilisation: float
    splits: list[SplitPoint]
    adapting: Adapting
    pools: list[SizePoint]
    pool_gb_needed: float | None
    curves: Curves
    notes: list[str]


class LogStream(Protocol):
    """A log's requests, whole or one node's share of them."""

    name: str
    duration_seconds: float
    row_shift: int

    @property
    def requests(self) -> int:
        """Requests of the whole stream."""
        ...

    def blocks(self, block_tokens: int, node: int = 0, nodes: int = 1) -> Iterator[RequestBlock]:
        """Blocks in order of time."""
        ...


class _Share(NamedTuple):
    """One node's replay, its warm-up cut off."""

    stream: NodeStream
    cost: SplitCost
    measured: NDArray[np.bool_]  # [R]
    per_second: float  # of the whole fleet, divided by the nodes: what a balancing router would send


def advise(log: LogStream, profile: Profile, slo_ms: float, notes: list[str], say: Callable[[str], None] = lambda _: None) -> Advice:
    """Advice on a log for one profile. `ValueError` if the log is too short to say anything."""
    if log.requests < 200:
        raise ValueError(f"trace: {log.requests} requests are too few to advise on, 200 are the least")
    fleet_per_second = log.requests / log.duration_seconds
    nodes, why = _nodes_needed(log, profile, slo_ms, fleet_per_second, say)
    at_nodes = nodes or max(1, math.ceil(fleet_per_second / 100.0))
    say(f"replaying {len(RATIOS_FINE)} static splits on {at_nodes} nodes")
    shares = [_share(log, profile, node, at_nodes, fleet_per_second, RATIOS_FINE) for node in range(min(3, at_nodes))]
    first = shares[0]
    best, low, high = _best_ratio(first)
    place = int(np.argmin(np.abs(RATIOS_FINE - best)))
    p99 = _p99_interval(shares, place)
    counts = [_nodes_for(share, place, slo_ms, at_nodes) for share in _thirds(shares)] if nodes else []
    say("judging whether moving the split pays")
    adapting = _adapting(first, profile)
    say("trying other sizes of the pool")
    pools = _pools(log, profile, slo_ms, at_nodes, first)
    return Advice(
        trace=log.name,
        profile=profile.name,
        slo_ms=slo_ms,
        requests=log.requests,
        requests_per_second=fleet_per_second,
        nodes=nodes,
        nodes_low=min([nodes or 0, *counts]),
        nodes_high=max([nodes or 0, *counts]),
        nodes_reason=why,
        emb_ratio=best,
        emb_ratio_low=low,
        emb_ratio_high=high,
        latency_ms_p99=p99,
        utilisation=_utilisation(first, place),
        splits=_points(first),
        adapting=adapting,
        pools=pools,
        pool_gb_needed=min((point.pool_gb for point in pools if point.meets_slo), default=None),
        curves=_curves(first.stream, profile),
        notes=notes,
    )


# --- replays ------------------------------------------------------------------------------


def _share(log: LogStream, profile: Profile, node: int, nodes: int, fleet_per_second: float, ratios: NDArray[np.float64]) -> _Share:
    stream = node_stream(_at_most(log.blocks(profile.block_tokens, node, nodes), REQUESTS_MAX), log.row_shift)
    cost = replay_splits(stream, profile, ratios=ratios, window_ns=ADMISSION_NS, recent_rows=_recent_rows(stream))
    measured = np.arange(stream.at_ns.shape[0]) >= int(WARM_RATIO * stream.at_ns.shape[0])
    return _Share(stream, cost, measured, fleet_per_second / nodes)


def _recent_rows(stream: NodeStream) -> NDArray[np.int64]:
    """Rows that a node finds in its cache when the log begins, as if before it the log had run backwards.

    Filling tens of gigabytes takes minutes of traffic, and a cache that is still filling has another best split.
    """
    rows, first, counts = np.unique(stream.candidate_rows, return_index=True, return_counts=True)
    again = counts > 1  # the doorkeeper lets nobody in who comes once
    return np.asarray(rows[again][np.argsort(first[again], kind="stable")])


def _at_most(blocks: Iterator[RequestBlock], requests: int) -> Iterator[RequestBlock]:
    taken = 0
    for block in blocks:
        yield block
        taken += block.at_ns.shape[0]
        if taken >= requests:
            return


def _latencies(share: _Share, service_ms: NDArray[np.float64], speed: float = 1.0) -> NDArray[np.float64]:
    """Wait and service of the measured requests in a queue of one server, arrivals brought to the node's mean rate times `speed`."""
    at_ms = (share.stream.at_ns - share.stream.at_ns[0]) / 1e6
    own_per_second = (at_ms.shape[0] - 1) / max(at_ms[-1] / 1e3, 1e-9)
    latencies = np.zeros(at_ms.shape[0])
    _queue(at_ms * (own_per_second / (share.per_second * speed)), service_ms, latencies)
    return np.asarray(latencies[share.measured])


@kernel
def _queue(at_ms: NDArray[np.float64], service_ms: NDArray[np.float64], latencies: NDArray[np.float64]) -> None:
    free_ms = 0.0
    for request in range(at_ms.shape[0]):
        free_ms = max(free_ms, at_ms[request]) + service_ms[request]
        latencies[request] = free_ms - at_ms[request]


def _p99(share: _Share, service_ms: NDArray[np.float64], speed: float = 1.0) -> float:
    return float(np.quantile(_latencies(share, service_ms, speed), 0.99))


def _utilisation(share: _Share, place: int) -> float:
    return float(share.cost.service_ms[place][share.measured].mean() * share.per_second / 1e3)


def _best_place(share: _Share) -> int:
    return int(share.cost.service_ms[:, share.measured].mean(axis=1).argmin())


def _points(share: _Share) -> list[SplitPoint]:
    cost, measured = share.cost, share.measured
    return [
        SplitPoint(
            emb_ratio=float(ratio),
            service_ms_mean=float(cost.service_ms[place][measured].mean()),
            latency_ms_p99=_p99(share, cost.service_ms[place]),
            emb_hit_ratio=float(1.0 - cost.missing_ratio[place][measured].mean()),
            kv_hit_ratio=float((cost.cached_ratio[place][measured] > 0.0).mean()),
        )
        for place, ratio in enumerate(cost.ratios)
    ]


# --- nodes and memory ---------------------------------------------------------------------


def _nodes_needed(
    log: LogStream, profile: Profile, slo_ms: float, fleet_per_second: float, say: Callable[[str], None]
) -> tuple[int | None, str]:
    """The fewest nodes that meet the SLO: caches and queue both change with their number, so it is found by trying."""
    nodes = max(1, math.ceil(fleet_per_second / 100.0))
    tried: dict[int, int] = {}
    for _ in range(NODE_SEARCH_STEPS):
        share = _share(log, profile, 0, nodes, fleet_per_second, RATIOS)
        place = _best_place(share)
        alone = float(np.quantile(share.cost.service_ms[place][share.measured], 0.99))
        say(f"{nodes} nodes: utilisation {_utilisation(share, place):.2f}, P99 {_p99(share, share.cost.service_ms[place]):.1f} ms")
        if alone > slo_ms:
            return None, f"a request alone takes {alone:.1f} ms at P99, with no queue: no number of nodes meets {slo_ms:g} ms"
        tried[nodes] = _nodes_for(share, place, slo_ms, nodes)
        wanted = min(max(1, tried[nodes]), NODES_MAX)
        if wanted == nodes or wanted in tried:
            return max(wanted, nodes) if tried.get(
                wanted, wanted
            ) > wanted else wanted, "the fewest that meet the SLO at the best static split"
        nodes = wanted
    return max(tried), "the largest tried: the number did not settle"


def _nodes_for(share: _Share, place: int, slo_ms: float, nodes: int) -> int:
    """Nodes that this share's service times would need, its caches left as they are."""
    service = share.cost.service_ms[place]
    slow, fast = 1e-3, 64.0
    for _ in range(30):
        middle = math.sqrt(slow * fast)
        slow, fast = (middle, fast) if _p99(share, service, middle) <= slo_ms else (slow, middle)
    return max(1, math.ceil(nodes / slow - 1e-6))


def _thirds(shares: list[_Share]) -> list[_Share]:
    """Every share's stream in three parts, for the spread over time."""
    parts = []
    for share in shares:
        count = share.measured.shape[0]
        begin = int(WARM_RATIO * count)
        for third in range(3):
            low, high = begin + (count - begin) * third // 3, begin + (count - begin) * (third + 1) // 3
            stream = share.stream._replace(at_ns=share.stream.at_ns[low:high])
            cost = share.cost._replace(service_ms=share.cost.service_ms[:, low:high])
            parts.append(share._replace(stream=stream, cost=cost, measured=np.ones(high - low, np.bool_)))
    return parts


def _pools(log: LogStream, profile: Profile, slo_ms: float, nodes: int, share: _Share) -> list[SizePoint]:
    points, recent = [], _recent_rows(share.stream)
    for factor in POOL_FACTORS:
        pages = max(2, round(profile.pages * factor))
        sized = msgspec.structs.replace(profile, pool_bytes=pages * profile.page_bytes)
        tried = share._replace(cost=replay_splits(share.stream, sized, ratios=RATIOS, window_ns=ADMISSION_NS, recent_rows=recent))
        place = _best_place(tried)
        p99 = _p99(tried, tried.cost.service_ms[place])
        points.append(
            SizePoint(
                pool_gb=sized.pool_bytes / 1e9,
                emb_ratio=float(RATIOS[place]),
                utilisation=_utilisation(tried, place),
                latency_ms_p99=p99,
                meets_slo=p99 <= slo_ms,
            )
        )
    return points


# --- intervals ----------------------------------------------------------------------------


def _window_seconds(share: _Share) -> float:
    """Width of a window: shorter in a short stream, as a handful of windows has no spread."""
    seconds = share.stream.at_ns[share.measured] / 1e9
    return float(min(WINDOW_SECONDS, max(seconds[-1] - seconds[0], 1e-9) / WINDOWS_MIN))


def _windows(share: _Share) -> NDArray[np.int64]:
    """Window of each measured request, [M] from 0."""
    seconds = share.stream.at_ns[share.measured] / 1e9
    return np.asarray((seconds - seconds[0]) / _window_seconds(share), dtype=np.int64)


def _per_window(share: _Share) -> NDArray[np.float64]:
    """Service time of each ratio in each window, [G, W]."""
    windows = _windows(share)
    return np.stack([np.bincount(windows, weights=service[share.measured]) for service in share.cost.service_ms])


def _drawn_windows(count: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64(0)).integers(0, count, (DRAWS, count))


def _best_ratio(share: _Share) -> tuple[float, float, float]:
    """The middle of the ratios within 1 % of the least work; the ends of those that are, or are best in some drawing of windows."""
    totals = _per_window(share)
    drawn = totals[:, _drawn_windows(totals.shape[1])].sum(axis=2)  # [G, DRAWS]
    winners = np.quantile(drawn.argmin(axis=0), _QUIET, method="nearest")
    level = np.flatnonzero(totals.sum(axis=1) <= 1.01 * totals.sum(axis=1).min())
    ratios, middle = share.cost.ratios, level[level.shape[0] // 2]
    return float(ratios[middle]), float(ratios[min(winners[0], level[0])]), float(ratios[max(winners[1], level[-1])])


def _p99_interval(shares: list[_Share], place: int) -> Interval:
    """P99 of the first node; the interval holds its thirds and the other nodes."""
    values = [_p99(share, share.cost.service_ms[place]) for share in [*shares, *_thirds(shares)]]
    return Interval(values[0], min(values), max(values))


# --- does moving pay? ---------------------------------------------------------------------


def _adapting(share: _Share, profile: Profile) -> Adapting:
    static = _best_place(share)
    windows, width = _windows(share), _window_seconds(share)
    service = share.cost.service_ms[:, share.measured]
    half = np.arange(windows.shape[0]) % 2
    schedules = [_schedule(service, windows, half == part, profile, share.cost.ratios, width) for part in (0, 1)]
    followed = np.where(half == 0, schedules[1][windows], schedules[0][windows])  # each half by the other's choice
    chosen = service[followed, np.arange(windows.shape[0])] + _transition_ms(schedules, windows, profile, share.cost.ratios)
    mean_gain = _gain(service[static], chosen, windows, np.mean)
    latencies = [_followed_latencies(share, values) for values in (service[static], chosen)]
    p99_gain = _gain(latencies[0], latencies[1], windows, lambda values: float(np.quantile(values, 0.99)))
    begin = float(share.stream.at_ns[share.measured][0] / 1e9)
    pays = max(mean_gain.low, p99_gain.low) > PAYS_RATIO and min(mean_gain.value, p99_gain.value) > -PAYS_RATIO
    ratios = share.cost.ratios[schedules[0]]
    return Adapting(
        pays=pays,
        reason=_verdict(pays, mean_gain, p99_gain, ratios),
        mean_gain_ratio=mean_gain,
        p99_gain_ratio=p99_gain,
        ratio_lowest=float(ratios.min()),
        ratio_highest=float(ratios.max()),
        at_seconds=[begin + width * window for window in range(schedules[0].shape[0])],
        emb_ratio=[float(value) for value in ratios],
    )


def _schedule(
    service: NDArray[np.float64],
    windows: NDArray[np.int64],
    part: NDArray[np.bool_],
    profile: Profile,
    ratios: NDArray[np.float64],
    window_seconds: float,
) -> NDArray[np.int64]:
    """The ratio of each window, [W], that costs a part of the requests least within the actuator's limits, known in advance."""
    count = int(windows[-1]) + 1
    costs = np.stack([np.bincount(windows[part], weights=row[part], minlength=count) for row in service])  # [G, W]
    step = max(1, round(profile.move_ratio_per_second * window_seconds / (ratios[1] - ratios[0])))
    places = np.arange(ratios.shape[0])
    moved = np.abs(places[:, None] - places[None, :])
    # half of the requests decide, so half of a move's price weighs on them
    price = np.where(moved <= step, moved * (ratios[1] - ratios[0]) * _move_ms(profile) / 2.0, np.inf)
    total, came_from = costs[:, 0].copy(), np.zeros((count, ratios.shape[0]), np.int64)
    for window in range(1, count):
        ways = total[:, None] + price
        came_from[window] = ways.argmin(axis=0)
        total = ways.min(axis=0) + costs[:, window]
    path = np.zeros(count, np.int64)
    path[-1] = total.argmin()
    for window in range(count - 1, 0, -1):
        path[window - 1] = came_from[window, path[window]]
    return path


def _move_ms(profile: Profile) -> float:
    """Price of moving the whole pool once: its bytes over the link, which the foreground waits for."""
    return profile.pool_bytes / profile.link_bytes_per_second * 1e3


def _transition_ms(
    schedules: list[NDArray[np.int64]], windows: NDArray[np.int64], profile: Profile, ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a request pays of the moves at its window's beginning, [M]: both schedules' mean, spread over the window."""
    moved = np.mean([np.abs(np.diff(ratios[path], prepend=ratios[path[0]])) for path in schedules], axis=0)
    per_window = np.bincount(windows, minlength=moved.shape[0])
    return np.asarray((moved * _move_ms(profile) / np.maximum(per_window, 1))[windows])


def _followed_latencies(share: _Share, service_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    measured = share._replace(
        stream=share.stream._replace(at_ns=share.stream.at_ns[share.measured]), measured=np.ones(service_ms.shape[0], np.bool_)
    )
    return _latencies(measured, service_ms)


def _gain(
    static: NDArray[np.float64], moving: NDArray[np.float64], windows: NDArray[np.int64], figure: Callable[[NDArray[np.float64]], float]
) -> Interval:
    """Share by which a figure falls; the interval from drawing windows."""
    starts = np.searchsorted(windows, np.arange(windows[-1] + 2))
    drawn = []
    for draw in islice(_drawn_windows(starts.shape[0] - 1), DRAWS // 2):
        rows = np.concatenate([np.arange(starts[window], starts[window + 1]) for window in draw])
        if rows.size:
            drawn.append(1.0 - figure(moving[rows]) / figure(static[rows]))
    low, high = np.quantile(drawn, _QUIET)
    return Interval(float(1.0 - figure(moving) / figure(static)), float(low), float(high))


def _verdict(pays: bool, mean: Interval, p99: Interval, ratios: NDArray[np.float64]) -> str:
    span = f"the best ratio moves between {ratios.min():.2f} and {ratios.max():.2f}"
    if pays:
        return f"{span}; knowing it in advance gains up to {p99.value:.0%} of P99 and {mean.value:.0%} of the mean"
    if ratios.max() - ratios.min() < 1e-9:
        return "one ratio is best throughout"
    if max(mean.high, p99.high) > PAYS_RATIO:
        return f"{span}, but the gain ({p99.value:+.0%} of P99, {mean.value:+.0%} of the mean) is not told apart from chance"
    return f"{span}, but even knowing it in advance gains {p99.value:+.1%} of P99 and {mean.value:+.1%} of the mean"


# --- value curves -------------------------------------------------------------------------


def _curves(stream: NodeStream, profile: Profile) -> Curves:
    """Both curves as a node measures them, over twice the pool; rows of histories aside, which only a missing prefix looks up."""
    cost = Cost.of(profile.cost)
    forever = 1e12  # seconds: the whole log weighs the same
    kv = new_reuse(
        2.0 * profile.pool_bytes / profile.kv_token_bytes,
        channels=3,
        window_ns=ADMISSION_NS,
        half_life_fast_seconds=forever,
        half_life_slow_seconds=forever,
        now_ns=int(stream.at_ns[0]),
    )
    emb = new_reuse(
        2.0 * profile.pool_bytes,
        keys_max=1 << 16,
        stream_rate=0.5**stream.row_shift,
        window_ns=ROW_MEMORY_MAX_NS,
        half_life_fast_seconds=forever,
        half_life_slow_seconds=forever,
        now_ns=int(stream.at_ns[0]),
    )
    for request in range(stream.at_ns.shape[0]):
        now_ns = int(stream.at_ns[request])
        held = int(stream.tokens[request]) // profile.block_tokens * profile.block_tokens
        record_user(kv, now_ns, np.uint64(stream.users[request] + 1), held)
        rows = stream.candidate_rows[stream.candidate_offsets[request] : stream.candidate_offsets[request + 1]]
        record_rows(emb, now_ns, rows, profile.row_bytes)
    end_ns = int(stream.at_ns[-1])
    users, items = curve(kv, end_ns, Pace.SLOW), curve(emb, end_ns, Pace.SLOW)
    row_ms = row_hit_value_ms(cost)
    saved = kv_value_ms_per_second(cost, 0.9, *(np.ascontiguousarray(part) for part in users.value))
    offered = kv_value_ms_per_second(cost, 0.9, *(np.array([part]) for part in users.offered))
    pool = items.edges.shape[0] // 2
    return Curves(
        capacity_gb=[float(edge) for edge in items.edges / 1e9],
        emb_ms_per_second=[float(value) for value in items.value[0] * row_ms],
        kv_ms_per_second=[float(value) for value in saved],
        emb_share_at_pool=float(items.value[0][pool] / max(items.offered[0], 1e-12)),
        kv_share_at_pool=float(saved[pool] / max(offered[0], 1e-12)),
    )
