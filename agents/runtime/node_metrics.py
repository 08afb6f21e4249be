"""`GET /metrics` of a node: gauges and totals read at the scrape, histograms fed as things happen."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from agents.pool.ledger import Ledger
from agents.pool.state import Counter as Total
from agents.runtime.engine import Engine
from agents.runtime.oip import SERVER_VERSION
from agents.runtime.ranking import RankResult
from agents.wire.messages import DecisionRecord, NodeTelemetry

REASONS_MAX = 32  # distinct label values; what comes later counts as "other"
LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.09, 0.12, 0.18, 0.25, 0.5, 1.0, 2.0, 5.0)
DECISION_BUCKETS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)


class NodeMetrics:
    """A registry of one node. `content()` is the exposition."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(engine, ledger))
        self._slo_seconds = engine.profile.slo_ms / 1e3
        self._reasons: set[str] = set()
        self._duration = Histogram(
            "helm_request_stage_seconds", "Time of a request by stage", ["stage"], registry=self._registry, buckets=LATENCY_BUCKETS
        )
        self._slo = Counter("helm_slo_requests", "Answered requests by whether they met the SLO", ["met"], registry=self._registry)
        self._decisions = Counter(
            "helm_decisions", "Decisions by mode, action and reason", ["mode", "action", "reason"], registry=self._registry
        )
        self._decision_seconds = Histogram(
            "helm_decision_duration_seconds",
            "Duration of a tick with a decision",
            ["layer"],
            registry=self._registry,
            buckets=DECISION_BUCKETS,
        )
        engine.on_answer.append(self._answered)
        engine.on_decision.append(self._decided)

    def content(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)

    def _answered(self, result: RankResult) -> None:
        self._duration.labels("queue").observe(result.queue_ms / 1e3)
        self._duration.labels("service").observe(result.service_ms / 1e3)
        self._duration.labels("emb").observe(result.emb_ms / 1e3)
        self._duration.labels("kv").observe(result.kv_ms / 1e3)
        self._duration.labels("compute").observe(result.compute_ms / 1e3)
        met = (result.queue_ms + result.service_ms) / 1e3 <= self._slo_seconds
        self._slo.labels("true" if met else "false").inc()

    def _decided(self, record: DecisionRecord) -> None:
        reason = record.reason
        if reason not in self._reasons:
            if len(self._reasons) < REASONS_MAX:
                self._reasons.add(reason)
            else:
                reason = "other"
        action = "hold" if record.emb_ratio_granted == record.emb_ratio_before else "move"
        self._decisions.labels(record.mode.value, action, reason).inc()
        self._decision_seconds.labels("all").observe(record.decision_us / 1e6)


class _NodeCollector(Collector):
    """Reads the engine and the ledger when scraped; runs on the loop that owns them."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger

    def describe(self) -> list[Metric]:
        return []  # nothing is read at registration

    def collect(self) -> Iterator[Metric]:
        status = self._engine.telemetry()
        yield _pool_bytes(status)
        yield _split(status)
        yield self._pool_requests()
        yield self._evictions()
        yield _tables(status)
        missed = {(reason,): count for reason, count in sorted(status.miss_reasons.items()) if reason != "hit"}
        yield _total("helm_kv_misses", "Requests without any reused prefix, by reason", ["reason"], missed)
        yield _total("helm_refill_bytes", "Bytes brought from the host by refill", ["pool"], {("emb",): status.refill_bytes_total})
        yield GaugeMetricFamily("helm_refill_backlog_bytes", "Bytes wanted and not yet in the arena", status.refill_backlog_bytes)
        rate = status.refill_bytes_per_second
        yield GaugeMetricFamily("helm_refill_bytes_per_second", "Refill over the last seconds", rate)
        yield _total("helm_refill_throttled_seconds", "Time refill was held back", [], {(): status.refill_throttled_seconds_total})
        yield GaugeMetricFamily("helm_node_queue_depth", "Requests waiting and in flight", status.queue_depth)
        yield GaugeMetricFamily("helm_node_ready", "1 while new requests are taken", float(status.phase == "ready"))
        yield _total("helm_requests", "Answered requests", [], {(): self._engine.requests_total})
        refused = {(code.value,): count for code, count in sorted(self._engine.rejections_total.items())}
        yield _total("helm_requests_refused", "Requests not answered, by error code", ["code"], refused)
        moved = {(): status.moved_pages_total}
        yield _total("helm_pool_moved_pages", "Pages that changed between the caches", [], moved)
        build = {"version": SERVER_VERSION, "profile": status.profile, "device": status.device, "emulated": str(status.emulated).lower()}
        yield InfoMetricFamily("helm_build", "What runs here", build)
        if status.policy_digest:
            policy = {"policy": status.controller, "version": status.policy_digest, "stage": self._engine.controller_mode.value}
            yield InfoMetricFamily("helm_policy", "The learned policy in force", policy)

    def _pool_requests(self) -> Metric:
        count = self._ledger.counter
        return _total(
            "helm_pool_requests",
            "Look-ups by cache and outcome",
            ["pool", "outcome"],
            {
                ("emb", "hit"): count(Total.EMB_HITS),
                ("emb", "miss"): count(Total.EMB_LOOKUPS) - count(Total.EMB_HITS),
                ("kv", "hit"): count(Total.KV_HITS),
                ("kv", "miss"): count(Total.KV_REQUESTS) - count(Total.KV_HITS),
            },
        )

    def _evictions(self) -> Metric:
        count = self._ledger.counter
        return _total(
            "helm_pool_evictions",
            "Rows and prefixes evicted",
            ["pool", "reason"],
            {
                ("emb", "pressure"): count(Total.EMB_EVICTED_PRESSURE),
                ("emb", "shrink"): count(Total.EMB_EVICTED_SHRINK),
                ("kv", "pressure"): count(Total.KV_EVICTED_PRESSURE),
                ("kv", "shrink"): count(Total.KV_EVICTED_SHRINK),
            },
        )


def _total(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def _pool_bytes(status: NodeTelemetry) -> Metric:
    family = GaugeMetricFamily("helm_node_pool_bytes", "Bytes by cache and state", labels=["node", "gpu", "pool", "state"])
    for pool, part in (("emb", status.emb), ("kv", status.kv)):
        family.add_metric([status.name, status.device, pool, "requested"], part.requested_bytes)
        family.add_metric([status.name, status.device, pool, "granted"], part.granted_bytes)
        family.add_metric([status.name, status.device, pool, "used"], part.used_bytes)
    return family


def _tables(status: NodeTelemetry) -> Metric:
    counted = {}
    for table in status.tables:
        counted[table.name, "hit"] = table.hits_total
        counted[table.name, "miss"] = table.lookups_total - table.hits_total
    return _total("helm_emb_table_requests", "Look-ups of rows by embedding table and outcome", ["table", "outcome"], counted)


def _split(status: NodeTelemetry) -> Metric:
    family = GaugeMetricFamily("helm_node_split_ratio", "Share of the pool given to EMB", labels=["node", "gpu", "kind"])
    for kind, value in (("target", status.target_emb_ratio), ("actual", status.emb_ratio), ("recommended", status.recommended_emb_ratio)):
        if value is not None:
            family.add_metric([status.name, status.device, kind], value)
    return family
