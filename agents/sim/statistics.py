"""What a run reports: latencies and counters after the warm-up, and a series for plots."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.node.node import Effects, Node
from agents.pool.state import Counter
from agents.profiles import Profile
from agents.sim.world import ANSWER, World
from agents.wire.events import EventKind

BUCKET_SECONDS = 5  # one point of the series
REVERSAL_SECONDS = 60.0  # a move undone within it was a mistake
OVERLOAD_UTILISATION = 0.97
OVERLOAD_REFUSED_RATIO = 0.01
OVERLOAD_WINDOW_SECONDS = 30


class RunStatistics:
    """Collects; every figure is computed at the end from what was collected."""

    def __init__(self, profiles: list[Profile], nodes: list[Node], warmup_seconds: float, origin_ns: int, world: World) -> None:
        self._profiles = profiles
        self._names = [node.name for node in nodes]
        self._warmup_seconds = warmup_seconds
        self._origin_ns = origin_ns
        self._service_ms = world.service_ms
        self._parts: list[NDArray[Any]] = []
        self._seconds: list[float] = []
        self._ratios: list[list[float]] = []
        self._counters: list[NDArray[np.int64]] = []
        self._refused: list[int] = []
        self._moves: list[list[tuple[float, float]]] = [[] for _ in nodes]  # (seconds, signed step) per node
        self._alarms_seconds: list[list[float]] = [[] for _ in nodes]  # when recovery took over
        self._refill_bytes = np.zeros(len(nodes))
        self._answers: NDArray[Any] = np.zeros(0, ANSWER)

    # --- while running --------------------------------------------------------------------

    def take_answers(self, world: World) -> None:
        """Keep what was answered since the last call."""
        count = int(world.head[0]["answers"])
        if count:
            self._parts.append(world.answers[:count].copy())
            world.head["answers"] = 0

    def forget_answers(self) -> None:
        """What was answered before time started does not count."""
        self._parts.clear()

    def decided(self, now_ns: int, index: int, effects: Effects) -> None:
        """One tick of a node: its changes of target and its alarms are counted."""
        at_seconds = (now_ns - self._origin_ns) / 1e9
        for kind, facts in effects.events:
            if kind is EventKind.RATIO_MOVED:
                self._moves[index].append((at_seconds, float(facts["to"]) - float(facts["from"])))
            elif kind is EventKind.RECOVERY_STARTED:
                self._alarms_seconds[index].append(at_seconds)

    def refilled(self, index: int, size_bytes: float) -> None:
        """Bytes brought in by the background."""
        self._refill_bytes[index] += size_bytes

    def sample(self, now_ns: int, nodes: list[Node], world: World) -> None:
        """One point a second: ratios, counters, refusals."""
        self._seconds.append((now_ns - self._origin_ns) / 1e9)
        self._ratios.append([node.ledger.emb_ratio for node in nodes])
        self._counters.append(world.pool.counters.reshape(len(nodes), -1).copy())
        self._refused.append(int(world.head[0]["refused"]))

    def close(self, now_ns: int, nodes: list[Node], world: World) -> None:
        """The run is over."""
        self.sample(now_ns, nodes, world)
        self._answers = np.concatenate(self._parts) if self._parts else self._answers
        self._answers = self._answers[np.argsort(self._answers["number"], kind="stable")]

    @property
    def parts(self) -> list[NDArray[Any]]:
        """Answers so far, [answers] ANSWER each, in order of time; the list only grows while the fleet runs."""
        return self._parts

    # --- afterwards -----------------------------------------------------------------------

    @property
    def answers(self) -> NDArray[Any]:
        """[answered requests] ANSWER after the warm-up, in order of the stream."""
        return self._answers[self._answers["arrival_ns"] >= self._origin_ns + self._warmup_seconds * 1e9]

    @property
    def service_ms(self) -> NDArray[np.float64]:
        """[N, seconds, 2] device time by half of the requests, the warm-up included."""
        return self._service_ms

    @property
    def ratios(self) -> NDArray[np.float64]:
        """[samples, N] granted EMB shares, once a second."""
        return np.array(self._ratios)

    def cell(self) -> dict[str, Any]:
        """The run's figures under the names that benches use."""
        answers = self.answers
        latency = answers["latency_ms"]
        seconds = max(self._seconds[-1] - self._warmup_seconds, 1e-9)
        gained, refused = self._gained(), self._refused[-1] - self._refused[self._first()]
        slo_ms = np.array([profile.slo_ms for profile in self._profiles])[answers["node"]]
        counts = np.bincount(answers["node"], minlength=len(self._names))
        busy = self._busy_ratio()
        return {
            "requests": int(latency.size),
            "refused": refused,
            "overloaded": self._overloaded(busy, refused, latency.size),
            "utilisation": float(busy.mean()),
            "utilisation_peak_to_mean": _share(float(busy.max()), float(busy.mean())),
            "load_peak_to_mean": _share(float(counts.max()), float(counts.mean())),
            "latency_ms_mean": float(latency.mean()) if latency.size else None,
            "latency_ms_p50": _percentile(latency, 50),
            "latency_ms_p99": _percentile(latency, 99),
            "latency_ms_p999": _percentile(latency, 99.9),
            "slo_ms": self._profiles[0].slo_ms,
            "slo_ratio": _share(float((latency <= slo_ms).sum()), float(latency.size + refused)),
            "throughput_per_second": latency.size / seconds,
            "service_ms_mean": self._service_mean(latency.size),
            "emb_hit_ratio": _share(gained[:, Counter.EMB_HITS].sum(), gained[:, Counter.EMB_LOOKUPS].sum()),
            "kv_hit_ratio": _share(gained[:, Counter.KV_HITS].sum(), gained[:, Counter.KV_REQUESTS].sum()),
            "refill_bytes": int(self._refill_bytes.sum()),
            "moves": sum(len(moves) for moves in self._moves),
            "alarms_seconds": self._alarms_seconds,
            "reversals": sum(_reversals(moves) for moves in self._moves),
            "moved_pages": int(gained[:, Counter.MOVED_PAGES].sum()),
            "emb_ratio_min": float(self.ratios.min()),
            "emb_ratio_max": float(self.ratios.max()),
        }

    def per_node(self) -> list[dict[str, Any]]:
        """The same per node, shortened."""
        answers, gained, ratios = self.answers, self._gained(), self._ratios[-1]
        return [self._node_figures(index, answers[answers["node"] == index], gained[index], ratios[index]) for index in range(len(ratios))]

    def _node_figures(self, index: int, answers: NDArray[Any], gained: NDArray[np.int64], ratio: float) -> dict[str, Any]:
        evicted = (Counter.EMB_EVICTED_PRESSURE, Counter.EMB_EVICTED_SHRINK, Counter.KV_EVICTED_PRESSURE, Counter.KV_EVICTED_SHRINK)
        return {
            "name": self._names[index],
            "requests": int(answers.size),
            "latency_ms_p50": _percentile(answers["latency_ms"], 50),
            "latency_ms_p99": _percentile(answers["latency_ms"], 99),
            "utilisation": float(self._busy_ratio()[index]),
            "emb_ratio": ratio,
            "emb_hit_ratio": _share(gained[Counter.EMB_HITS], gained[Counter.EMB_LOOKUPS]),
            "kv_hit_ratio": _share(gained[Counter.KV_HITS], gained[Counter.KV_REQUESTS]),
            "evictions": int(sum(gained[counter] for counter in evicted)),
            "moves": len(self._moves[index]),
        }

    def series(self) -> dict[str, list[float | None]]:
        """Fleet means per bucket, and each node's ratio."""
        places = sorted({*range(0, len(self._seconds), BUCKET_SECONDS), len(self._seconds) - 1})
        bounds = [self._seconds[place] for place in places]
        at_seconds = (self._answers["arrival_ns"] - self._origin_ns) / 1e9
        owners = np.digitize(at_seconds, bounds) - 1
        out: dict[str, list[float | None]] = {"at_seconds": list(bounds[1:])}
        out["emb_ratio"] = [float(np.mean(self._ratios[place])) for place in places[1:]]
        buckets = [self._answers["latency_ms"][owners == bucket] for bucket in range(len(bounds) - 1)]
        out["latency_ms_p50"] = [_percentile(bucket, 50) for bucket in buckets]
        out["latency_ms_p99"] = [_percentile(bucket, 99) for bucket in buckets]
        gained = [(self._counters[after] - self._counters[before]).sum(axis=0) for before, after in pairwise(places)]
        out["emb_hit_ratio"] = [_share(part[Counter.EMB_HITS], part[Counter.EMB_LOOKUPS]) for part in gained]
        out["kv_hit_ratio"] = [_share(part[Counter.KV_HITS], part[Counter.KV_REQUESTS]) for part in gained]
        spans = np.maximum(np.diff(bounds), 1e-9)
        out["requests_per_second"] = [float(part[Counter.KV_REQUESTS] / span) for part, span in zip(gained, spans, strict=True)]
        for index, name in enumerate(self._names):
            out[f"emb_ratio:{name}"] = [self._ratios[place][index] for place in places[1:]]
        return out

    def _first(self) -> int:
        """First sample after the warm-up."""
        return min(int(np.searchsorted(self._seconds, self._warmup_seconds)), len(self._seconds) - 1)

    def _gained(self) -> NDArray[np.int64]:
        """Counters since the end of the warm-up, [nodes, counters]."""
        return np.asarray(self._counters[-1] - self._counters[self._first()])

    def _busy_ratio(self) -> NDArray[np.float64]:
        """Share of time each device worked after the warm-up; a batch counts where it began."""
        first, last = int(self._warmup_seconds), max(int(self._seconds[-1]), int(self._warmup_seconds) + 1)
        return np.asarray(self._service_ms[:, first:last].sum(axis=(1, 2)) / 1e3 / (last - first))

    def _service_mean(self, requests: int) -> float | None:
        first = int(self._warmup_seconds)
        return float(self._service_ms[:, first:].sum() / requests) if requests else None

    def _overloaded(self, busy: NDArray[np.float64], refused: int, answered: int) -> bool:
        return bool(
            max(float(busy.mean()), self._busiest_window()) >= OVERLOAD_UTILISATION or refused > OVERLOAD_REFUSED_RATIO * max(answered, 1)
        )

    def _busiest_window(self) -> float:
        """Fleet's mean utilisation in its busiest half minute after the warm-up: a burst that saturates is overload, whatever the mean."""
        busy = self._service_ms.sum(axis=2).mean(axis=0)[int(self._warmup_seconds) : int(self._seconds[-1])] / 1e3
        if busy.shape[0] < OVERLOAD_WINDOW_SECONDS:
            return 0.0
        share = np.full(OVERLOAD_WINDOW_SECONDS, 1.0 / OVERLOAD_WINDOW_SECONDS)
        return float(np.convolve(busy, share, mode="valid").max())


def _reversals(moves: list[tuple[float, float]]) -> int:
    """Moves against the direction of the one before, soon after it."""
    pairs = pairwise(moves)
    return sum(1 for (before, step), (after, back) in pairs if after - before <= REVERSAL_SECONDS and step * back < 0.0)


def _percentile(values: NDArray[Any], level: float) -> float | None:
    return float(np.percentile(values, level)) if values.size else None


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None
