"""Counters of the daemon and their Prometheus exposition. No user, request id or free text in a label."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agents.numerics import sketch
from agents.router.router import NodeView
from agents.runtime.router.attribution import Attribution

_PENDING_MAX = 100
PICK_BUCKETS_SECONDS = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 1e-3)
LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Histogram:
    """Fixed buckets: no locks, one thread."""

    def __init__(self, bounds_seconds: tuple[float, ...]) -> None:
        self._bounds = bounds_seconds
        self.counts = [0] * (len(bounds_seconds) + 1)
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.sum_seconds += seconds
        self.counts[bisect_left(self._bounds, seconds)] += 1

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus wants them."""
        total, rows = 0, []
        for bound, count in zip([*(str(b) for b in self._bounds), "+Inf"], self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class LatencyWindow:
    """Latencies of the last minute as a sketch; counted a hundred at a time, for each call of a kernel has its price."""

    def __init__(self) -> None:
        self._window = sketch.new_window()
        self._times_ns = np.zeros(_PENDING_MAX, dtype=np.int64)
        self._ms = np.zeros(_PENDING_MAX)
        self._pending = 0

    def add(self, now_ns: int, ms: float) -> None:
        """One latency."""
        self._times_ns[self._pending] = now_ns
        self._ms[self._pending] = ms
        self._pending += 1
        if self._pending == _PENDING_MAX:
            self._take_pending()

    def counts(self, now_ns: int) -> NDArray[np.int64]:
        """Buckets of the sketch."""
        self._take_pending()
        return sketch.window_counts(self._window, now_ns)

    def _take_pending(self) -> None:
        sketch.window_add_all(self._window, self._times_ns[: self._pending], self._ms[: self._pending])
        self._pending = 0


class Counters:
    """What the daemon counts; plain integers, read at scrape time."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = {}  # by status; 0: the client went away
        self.retries_total = 0
        self.hedges_total = 0  # second attempts while the first was still awaited
        self.hedges_won_total = 0
        self.failures_total = 0  # answers the router itself gave because no node could
        self.blind_total = 0  # sent although no node was known to be ready
        self.without_descriptor_total = 0  # connections to nodes not even tried: the process or the machine had no descriptor left
        self.cold_requests_total = 0  # inference without a readable user
        self.connections_total = 0
        self.stream_losses_total = 0
        self.gaps_total = 0
        self.pick_seconds = Histogram(PICK_BUCKETS_SECONDS)
        self.latency_seconds = Histogram(LATENCY_BUCKETS_SECONDS)


class Gauges(NamedTuple):
    """Values of the moment."""

    in_flight: int
    connections: int
    buffered_bytes: int
    users: int
    state_bytes: int
    totals: dict[str, int]
    nodes: list[NodeView]
    attribution: Attribution
    breakers_open: list[bool]


class _Exposition(Collector):
    def __init__(self, counters: Counters, gauges: Callable[[], Gauges]) -> None:
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """Everything, by family."""
        yield from self._router()
        yield from self._attribution()
        yield from self._nodes()

    def _router(self) -> Iterable[Metric]:
        counters, gauges = self._counters, self._gauges()
        requests = CounterMetricFamily("helm_router_requests", "Requests answered, by status (0: the client left)", labels=["code"])
        for status, count in sorted(counters.requests.items()):
            requests.add_metric([str(status)], count)
        yield requests
        for name, text, value in (
            ("helm_router_retries", "Attempts on a second or third node", counters.retries_total),
            ("helm_router_hedges", "Second attempts while the first was still awaited", counters.hedges_total),
            ("helm_router_hedges_won", "Of them those that answered first", counters.hedges_won_total),
            ("helm_router_failures", "Requests that no node answered", counters.failures_total),
            ("helm_router_blind_picks", "Requests sent although no node was known to be ready", counters.blind_total),
            (
                "helm_router_without_descriptor",
                "Connections to nodes not tried for want of a file descriptor",
                counters.without_descriptor_total,
            ),
            ("helm_router_cold_requests", "Inference requests without a readable user", counters.cold_requests_total),
            ("helm_router_connections", "Client connections accepted", counters.connections_total),
            ("helm_router_stream_losses", "Residency streams lost", counters.stream_losses_total),
            ("helm_router_residency_gaps", "Gaps noticed in residency sequences", counters.gaps_total),
            ("helm_router_users_refused", "Resident users told of by nodes beyond their share", gauges.totals["users_refused"]),
            ("helm_router_reservations_expired", "Reservations whose response was lost", gauges.totals["reservations_expired"]),
        ):
            yield CounterMetricFamily(name, text, value=value)
        for name, text, value in (
            ("helm_router_in_flight_requests", "Requests being answered", gauges.in_flight),
            ("helm_router_open_connections", "Client connections open", gauges.connections),
            ("helm_router_buffered_bytes", "Request bodies held", gauges.buffered_bytes),
            ("helm_router_users", "Users known", gauges.users),
            ("helm_router_state_bytes", "Memory of the routing state", gauges.state_bytes),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        picks, latency = counters.pick_seconds, counters.latency_seconds
        yield HistogramMetricFamily("helm_router_pick_duration_seconds", "One pick", picks.cumulative(), picks.sum_seconds)
        yield HistogramMetricFamily("helm_router_request_duration_seconds", "Whole requests", latency.cumulative(), latency.sum_seconds)

    def _attribution(self) -> Iterable[Metric]:
        told = self._gauges().attribution
        yield CounterMetricFamily("helm_router_compared_answers", "Answers held against their prediction", value=told.count)
        for name, text, sums in (
            ("helm_router_predicted_seconds", "Predicted time of the answers compared", told.predicted_ms),
            ("helm_router_observed_seconds", "Observed time of the answers compared", told.observed_ms),
            ("helm_router_prediction_error_seconds", "Absolute differences of the two", told.error_ms),
        ):
            family = CounterMetricFamily(name, text, labels=["component"])
            for component, total_ms in sums.items():
                family.add_metric([component], total_ms / 1e3)
            yield family

    def _nodes(self) -> Iterable[Metric]:
        gauges = self._gauges()
        picks = CounterMetricFamily("helm_router_picks", "Requests sent to a node", labels=["node"])
        failures = CounterMetricFamily(
            "helm_router_node_failures", "Attempts that a node broke off or answered with a failure", labels=["node"]
        )
        ready = GaugeMetricFamily("helm_router_node_ready", "1 while a node may be picked", labels=["node"])
        queued = GaugeMetricFamily("helm_router_node_queued_seconds", "Predicted work ahead on a node", labels=["node"])
        correction = GaugeMetricFamily("helm_router_node_correction_ratio", "Observed over predicted", labels=["node"])
        staleness = GaugeMetricFamily("helm_router_node_staleness_seconds", "Age of a node's last report", labels=["node"])
        for view, is_open in zip(gauges.nodes, gauges.breakers_open, strict=True):
            label = [view.name]
            picks.add_metric(label, view.picks_total)
            failures.add_metric(label, view.failures_total)
            ready.add_metric(label, float(view.phase == "ready" and not is_open))
            queued.add_metric(label, view.queued_ms / 1e3)
            correction.add_metric(label, view.correction)
            if view.staleness_ms is not None:
                staleness.add_metric(label, view.staleness_ms / 1e3)
        yield from (picks, failures, ready, queued, correction, staleness)


def exposition(counters: Counters, gauges: Callable[[], Gauges]) -> bytes:
    """The whole `/metrics` page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Exposition(counters, gauges))
    return generate_latest(registry)
