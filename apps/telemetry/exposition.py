"""`/metrics`: the fleet in Prometheus' text format, read from the database on each scrape.

Labels are node names and fixed words only; a node that is deleted takes its series with it.
"""

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from agents.wire.messages import Phase
from apps.fleet import queries
from apps.fleet.models import Node
from apps.fleet.presence import phase_of
from apps.outbox.models import OutboxMessage

VERSION = "0.1.0"
_GAUGES = {
    "helm_node_latency_p50_seconds": ("latency_ms_p50", 1e-3, "Median latency of the last minute."),
    "helm_node_latency_p99_seconds": ("latency_ms_p99", 1e-3, "99th percentile of latency of the last minute."),
    "helm_node_slo_ratio": ("slo_ratio", 1.0, "Share of requests within the objective."),
    "helm_node_requests_per_second": ("requests_per_second", 1.0, "Requests served per second."),
    "helm_node_queue_depth": ("queue_depth", 1.0, "Requests waiting."),
    "helm_refill_backlog_bytes": ("refill_backlog_bytes", 1.0, "Bytes wanted from the host and not yet copied."),
}
_COUNTERS = {
    "helm_node_requests": ("requests_total", "Requests served since the node started."),
    "helm_node_failures": ("failures_total", "Requests failed since the node started."),
    "helm_refill_bytes": ("refill_bytes_total", "Bytes refilled from the host."),
    "helm_refill_throttled_seconds": ("refill_throttled_seconds_total", "Time a refill waited for the foreground."),
}


class FleetCollector(Collector):
    """Reads status rows when asked; holds nothing between scrapes."""

    def collect(self) -> Iterator[Metric]:
        """All families."""
        nodes = list(queries.nodes())
        yield InfoMetricFamily("helm_build", "The control plane's version.", value={"version": VERSION})
        yield _up(nodes)
        frames = [(node.name, node.status.frame) for node in nodes if queries.status_of(node) and node.status.frame]
        for name, (field, scale, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["node"])
            for node, frame in frames:
                if frame[field] is not None:
                    gauge.add_metric([node], frame[field] * scale)
            yield gauge
        for name, (field, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["node"])
            for node, frame in frames:
                counter.add_metric([node], frame[field])
            yield counter
        yield from _pools(frames)
        yield _policies(nodes)
        yield _rejected(nodes)
        waiting = OutboxMessage.objects.filter(state__in=["pending", "sent"]).count()
        yield GaugeMetricFamily("helm_outbox_open_messages", "Facts waiting for delivery or acknowledgement.", value=waiting)


def _up(nodes: list[Node]) -> Metric:
    now = timezone.now()
    gauge = GaugeMetricFamily("helm_node_up", "1 when the node's frames arrive.", labels=["node"])
    for node in nodes:
        status = queries.status_of(node)
        said = status.frame["phase"] if status and status.frame else None
        phase = phase_of(bool(status and status.link_id), status.received_at if status else None, said, now)
        gauge.add_metric([node.name], float(phase is not Phase.OFFLINE))
    return gauge


def _pools(frames: list[tuple[str, dict[str, object]]]) -> Iterator[Metric]:
    split = GaugeMetricFamily("helm_node_split_ratio", "Share of the pool given to EMB.", labels=["node", "gpu", "kind"])
    pool = GaugeMetricFamily("helm_node_pool_bytes", "Bytes of a cache.", labels=["node", "gpu", "pool", "state"])
    hits = GaugeMetricFamily("helm_node_hit_ratio", "Hit ratio of a cache.", labels=["node", "pool"])
    for node, frame in frames:
        kinds = {"actual": "emb_ratio", "target": "target_emb_ratio", "recommended": "recommended_emb_ratio"}
        for kind, field in kinds.items():
            if frame[field] is not None:
                split.add_metric([node, "0", kind], float(frame[field]))  # type: ignore[arg-type]
        for name in ("emb", "kv"):
            for state in ("requested", "granted", "used"):
                pool.add_metric([node, "0", name, state], frame[name][f"{state}_bytes"])  # type: ignore[index]
            if frame[f"{name}_hit_ratio"] is not None:
                hits.add_metric([node, name], float(frame[f"{name}_hit_ratio"]))  # type: ignore[arg-type]
    yield from (split, pool, hits)


def _policies(nodes: list[Node]) -> Metric:
    info = InfoMetricFamily("helm_policy", "The learned policy in force on a node.", labels=["node"])
    for node in nodes:
        frame = node.status.frame if queries.status_of(node) else None
        if frame and frame.get("policy_digest"):
            info.add_metric([node.name], {"policy": frame["controller"], "version": frame["policy_digest"], "stage": node.controller})
    return info


def _rejected(nodes: list[Node]) -> Metric:
    counter = CounterMetricFamily("helm_link_rejected_frames", "Frames of a node that did not decode.", labels=["node"])
    for node in nodes:
        status = queries.status_of(node)
        counter.add_metric([node.name], status.rejected_frames_total if status else 0)
    return counter


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """One scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
