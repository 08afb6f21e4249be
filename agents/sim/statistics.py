"""What a run reports: latencies and counters after the warm-up, and a series for plots."""

from typing import TYPE_CHECKING, Any

import numpy as np

from agents.node.node import Node
from agents.pool.state import Counter
from agents.profiles import Profile

if TYPE_CHECKING:
    from agents.sim.scenario import Scenario

BUCKET_SECONDS = 5.0  # one point of the series


class RunStatistics:
    """Collects; every figure is computed at the end from what was collected."""

    def __init__(self, profile: Profile, nodes: list[Node], warmup_seconds: float) -> None:
        self._profile = profile
        self._nodes = nodes
        self._warmup_ns = int(warmup_seconds * 1e9)
        self._at_seconds: list[float] = []
        self._latency_ms: list[float] = []
        self._node_of: list[int] = []
        self._busy_ms = np.zeros(len(nodes))
        self._baseline: list[np.ndarray] | None = None
        self._samples: list[tuple[float, list[float], list[np.ndarray]]] = []
        self._moves = np.zeros(len(nodes), np.int64)
        self._decisions_us = 0.0
        self._refill_bytes = 0
        self.refused = 0
        self._end_ns = 0

    def finished(self, arrival_ns: int, done_ns: int, node: int) -> None:
        """One answered request."""
        if arrival_ns >= self._warmup_ns:
            self._at_seconds.append(arrival_ns / 1e9)
            self._latency_ms.append((done_ns - arrival_ns) / 1e6)
            self._node_of.append(node)

    def served(self, now_ns: int, node: int, service_ms: float) -> None:
        """One batch's device time."""
        if now_ns >= self._warmup_ns:
            self._busy_ms[node] += service_ms

    def moved(self, node: int) -> None:
        """One change of a node's target."""
        self._moves[node] += 1

    def refilled(self, size_bytes: int) -> None:
        """Bytes brought in by the background."""
        self._refill_bytes += size_bytes

    def sample(self, now_ns: int) -> None:
        """One point of the series; the first after the warm-up also sets the counters' baseline."""
        counters = [node.state.counters.copy() for node in self._nodes]
        if self._baseline is None and now_ns >= self._warmup_ns:
            self._baseline = counters
        self._samples.append((now_ns / 1e9, [node.ledger.emb_ratio for node in self._nodes], counters))
        self._end_ns = now_ns

    def cell(self, scenario: "Scenario") -> dict[str, Any]:
        """The run's figures under the names that benches use."""
        latency = np.array(self._latency_ms)
        seconds = max((self._end_ns - self._warmup_ns) / 1e9, 1e-9)
        utilisation = float(self._busy_ms.mean() / 1e3 / seconds)
        gained = self._gained()
        return {
            "profile": scenario.profile,
            "regime": scenario.workload if scenario.trace is None else "trace",
            "nodes": scenario.nodes,
            "admission": scenario.admission,
            "method": scenario.method,
            "router": scenario.router,
            "seed": scenario.seed,
            "requests": int(latency.size),
            "refused": self.refused,
            "overloaded": bool(utilisation >= 0.97 or self.refused > 0.01 * max(latency.size, 1)),
            "utilisation": utilisation,
            "latency_ms_mean": _or_none(latency, np.mean),
            "latency_ms_p50": _percentile(latency, 50),
            "latency_ms_p99": _percentile(latency, 99),
            "slo_ms": self._profile.slo_ms,
            "slo_ratio": float((latency <= self._profile.slo_ms).mean()) if latency.size else None,
            "throughput_per_second": latency.size / seconds,
            "emb_hit_ratio": _share(gained[:, Counter.EMB_HITS].sum(), gained[:, Counter.EMB_LOOKUPS].sum()),
            "kv_hit_ratio": _share(gained[:, Counter.KV_HITS].sum(), gained[:, Counter.KV_REQUESTS].sum()),
            "refill_bytes": self._refill_bytes,
            "moves": int(self._moves.sum()),
            "moved_pages": int(gained[:, Counter.MOVED_PAGES].sum()),
            "emb_ratio_min": min((min(ratios) for _, ratios, _ in self._samples), default=None),
            "emb_ratio_max": max((max(ratios) for _, ratios, _ in self._samples), default=None),
        }

    def per_node(self) -> list[dict[str, Any]]:
        """The same per node, shortened."""
        latency, owner = np.array(self._latency_ms), np.array(self._node_of)
        gained = self._gained()
        return [
            {
                "name": node.name,
                "requests": int((owner == index).sum()),
                "latency_ms_p50": _percentile(latency[owner == index], 50) if latency.size else None,
                "latency_ms_p99": _percentile(latency[owner == index], 99) if latency.size else None,
                "emb_ratio": node.ledger.emb_ratio,
                "emb_hit_ratio": _share(gained[index, Counter.EMB_HITS], gained[index, Counter.EMB_LOOKUPS]),
                "kv_hit_ratio": _share(gained[index, Counter.KV_HITS], gained[index, Counter.KV_REQUESTS]),
                "evictions": node.evictions(),
                "moves": int(self._moves[index]),
            }
            for index, node in enumerate(self._nodes)
        ]

    def series(self) -> dict[str, list[float | None]]:
        """Fleet means per bucket, and each node's ratio."""
        latency, at = np.array(self._latency_ms), np.array(self._at_seconds)
        out: dict[str, list[float | None]] = {
            name: []
            for name in (
                "at_seconds",
                "emb_ratio",
                "latency_ms_p50",
                "latency_ms_p99",
                "emb_hit_ratio",
                "kv_hit_ratio",
                "requests_per_second",
            )
        }
        for node in self._nodes:
            out[f"emb_ratio:{node.name}"] = []
        for (before_seconds, _, before), (seconds, ratios, after) in zip(self._samples, self._samples[1:], strict=False):
            inside = latency[(at >= before_seconds) & (at < seconds)] if latency.size else latency
            gained = np.array(after) - np.array(before)
            out["at_seconds"].append(seconds)
            out["emb_ratio"].append(float(np.mean(ratios)))
            out["latency_ms_p50"].append(_percentile(inside, 50))
            out["latency_ms_p99"].append(_percentile(inside, 99))
            out["emb_hit_ratio"].append(_share(gained[:, Counter.EMB_HITS].sum(), gained[:, Counter.EMB_LOOKUPS].sum()))
            out["kv_hit_ratio"].append(_share(gained[:, Counter.KV_HITS].sum(), gained[:, Counter.KV_REQUESTS].sum()))
            out["requests_per_second"].append(float(gained[:, Counter.KV_REQUESTS].sum() / max(seconds - before_seconds, 1e-9)))
            for node, ratio in zip(self._nodes, ratios, strict=True):
                out[f"emb_ratio:{node.name}"].append(ratio)
        return out

    def _gained(self) -> np.ndarray:
        """Counters since the end of the warm-up, [nodes, counters]."""
        newest = np.array([node.state.counters for node in self._nodes])
        return newest - (np.array(self._baseline) if self._baseline is not None else 0)


def _percentile(values: np.ndarray, level: float) -> float | None:
    return float(np.percentile(values, level)) if values.size else None


def _or_none(values: np.ndarray, function: Any) -> float | None:
    return float(function(values)) if values.size else None


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None
