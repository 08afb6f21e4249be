"""What the load generator saw, counted as it comes: totals for the summary, one second for the status."""

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np

from agents.numerics import sketch
from agents.runtime.load.client import Answer

SATURATED_CPU_RATIO = 0.90  # beyond it a latency is the machine's queue for its cores, not the fleet's


class NodeCount(msgspec.Struct):
    """Answers of one node."""

    requests: int = 0
    hits: int = 0
    partial: int = 0
    misses: int = 0


class LoadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the load generator, in `.helm/load.json`."""

    at_unix_ns: int
    pid: int
    phase: str  # waiting | running | done
    workload: str
    seed: int
    elapsed_seconds: float
    requests_total: int
    failures_total: int
    shed_total: int
    requests_per_second: float
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    in_flight: int
    pace: float
    pace_reason: str
    host_cpu_ratio: float | None
    saturated: bool
    saturated_seconds: int
    message: str


class Report:
    """Totals of a run. Latency is counted from the moment a request was sent; lateness of the generator itself apart."""

    def __init__(self) -> None:
        self.requests = 0
        self.answered = 0
        self.shed = 0
        self.failures: Counter[str] = Counter()
        self.nodes: dict[str, NodeCount] = {}
        self.saturated_seconds = 0
        self.cpu_over_seconds = 0
        self.seconds = 0
        self.lag_ms_max = 0.0
        self._cpu_sum, self._cpu_count = 0.0, 0
        self._latency = sketch.new_sketch()
        self._calm_latency = sketch.new_sketch()  # of seconds in which the host was not saturated
        self._second_latency = sketch.new_sketch()
        self._recent: list[Any] = []
        sketch.add(sketch.new_sketch(), 1.0)  # compiled before the run, not inside its first second
        sketch.quantile(self._latency, 0.5)

    def answer(self, answer: Answer, latency_ms: float) -> None:
        """Count one answer."""
        self.requests += 1
        if answer.shed:
            self.shed += 1
            return
        if answer.failure:
            self.failures[answer.failure] += 1
            return
        self.answered += 1
        sketch.add(self._second_latency, latency_ms)
        node = self.nodes.setdefault(answer.node or "unknown", NodeCount())
        node.requests += 1
        node.hits += answer.kv == "hit"
        node.partial += answer.kv == "partial"
        node.misses += answer.kv == "miss"

    def failed(self, reason: str) -> None:
        """Count a request without an answer."""
        self.requests += 1
        self.failures[reason] += 1

    def second(self, cpu_ratio: float, cpu_ratio_max: float, starved: bool) -> bool:
        """Close a second of the run; True if the host was saturated in it."""
        self.seconds += 1
        saturated = starved or cpu_ratio >= SATURATED_CPU_RATIO
        self.saturated_seconds += saturated
        if not math.isnan(cpu_ratio):
            self._cpu_sum += cpu_ratio
            self._cpu_count += 1
            self.cpu_over_seconds += cpu_ratio > cpu_ratio_max
        self._latency += self._second_latency
        if not saturated:
            self._calm_latency += self._second_latency
        self._recent = [*self._recent[-9:], self._second_latency]
        self._second_latency = sketch.new_sketch()
        return saturated

    @property
    def failures_total(self) -> int:
        """Requests that got no good answer, those shed not counted."""
        return self.failures.total()

    def recent_ms(self, q: float, least: int) -> float:
        """Quantile of the last ten closed seconds; NaN under `least` answers."""
        merged = np.sum(self._recent, axis=0) if self._recent else sketch.new_sketch()
        return float(sketch.quantile(merged, q)) if int(merged.sum()) >= least else math.nan

    def summary(self, elapsed_seconds: float) -> dict[str, Any]:
        """The run in figures; null where nothing was measured."""
        everything = self._latency + self._second_latency
        hits = sum(node.hits + node.partial for node in self.nodes.values())
        said = hits + sum(node.misses for node in self.nodes.values())
        return {
            "duration_seconds": round(elapsed_seconds, 3),
            "requests": self.requests,
            "answered": self.answered,
            "failures": self.failures_total,
            "failures_by_reason": dict(sorted(self.failures.items())),
            "shed": self.shed,
            "requests_per_second": _ratio(self.answered, elapsed_seconds),
            "latency_ms_p50": _ms(everything, 0.50),
            "latency_ms_p99": _ms(everything, 0.99),
            "latency_ms_p99_unsaturated": _ms(self._calm_latency, 0.99),
            "saturated_seconds": self.saturated_seconds,
            "cpu_over_target_seconds": self.cpu_over_seconds,
            "host_cpu_ratio_mean": _ratio(self._cpu_sum, self._cpu_count),
            "generator_lag_ms_max": round(self.lag_ms_max, 1),
            "kv_hit_ratio": _ratio(hits, said),
            "nodes": {name: self._node(count) for name, count in sorted(self.nodes.items())},
        }

    def _node(self, count: NodeCount) -> dict[str, Any]:
        said = count.hits + count.partial + count.misses
        return {
            "requests": count.requests,
            "share": _ratio(count.requests, self.answered),
            "kv_hit_ratio_client": _ratio(count.hits + count.partial, said),
            "kv_hits": count.hits,
            "kv_partial": count.partial,
            "kv_misses": count.misses,
        }


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _ms(counts: Any, q: float) -> float | None:
    value = float(sketch.quantile(counts, q))
    return None if math.isnan(value) else round(value, 2)
