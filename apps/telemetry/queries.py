"""Series, the fleet's headline figures, decisions."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
from django.db.models import F, QuerySet
from django.db.models.functions import Mod

from agents.numerics import sketch
from agents.wire.messages import Phase
from apps.fleet import queries as fleet
from apps.fleet.models import Cluster, Node
from apps.fleet.presence import phase_of
from apps.telemetry import percentiles
from apps.telemetry.models import Decision, Point
from apps.telemetry.resolutions import WINDOWS, Window

NODE_COLUMNS = [
    "emb_ratio",
    "target_emb_ratio",
    "recommended_emb_ratio",
    "emb_hit_ratio",
    "kv_hit_ratio",
    "latency_ms_p50",
    "latency_ms_p99",
    "slo_ratio",
    "requests_per_second",
    "queue_depth",
    "utilisation",
    "queue_ms",
    "emb_ms",
    "kv_ms",
    "compute_ms",
    "refill_backlog_bytes",
    "migrating_bytes",
]
RATIO_QUANTILES = (10, 25, 50, 75, 90)


def fleet_document(cluster: Cluster, nodes: Iterable[Node], now: datetime) -> dict[str, Any]:
    """The fleet now: sums, merged percentiles and shares weighted by requests, over the nodes that are there."""
    everyone = list(nodes)
    phases = {node.pk: _phase(node, now) for node in everyone}
    frames = [node.status.frame for node in everyone if phases[node.pk] is not Phase.OFFLINE and node.status.frame]
    counts = sketch.new_sketch()
    for frame in frames:
        np.add.at(counts, np.asarray(frame["sketch"]["indexes"], dtype=np.int64), np.asarray(frame["sketch"]["counts"], dtype=np.int64))
    slo_ms = max((frame["slo_ms"] for frame in frames), default=None)
    return {
        "name": cluster.name,
        "nodes_total": len(everyone),
        "nodes_ready": sum(phase is Phase.READY for phase in phases.values()),
        "nodes_offline": sum(phase is Phase.OFFLINE for phase in phases.values()),
        "latency_ms_p50": percentiles.p50(counts),
        "latency_ms_p99": percentiles.p99(counts),
        "slo_ms": slo_ms,
        "slo_ratio": percentiles.slo_ratio(counts, slo_ms) if slo_ms else None,
        "requests_per_second": sum(frame["requests_per_second"] for frame in frames) if frames else None,
        "emb_hit_ratio": _weighted(frames, "emb_hit_ratio"),
        "kv_hit_ratio": _weighted(frames, "kv_hit_ratio"),
        "emb_ratio_mean": sum(frame["emb_ratio"] for frame in frames) / len(frames) if frames else None,
        "modes": dict(Counter(frame["mode"] for frame in frames)),
        "at": fleet.iso(now),
    }


def node_series(node: Node, range_name: str, now: datetime) -> dict[str, Any]:
    """Columns of one node's history; a gap in time is one row of nulls, so that no line is drawn across it."""
    window = WINDOWS[range_name]
    names = ["at_seconds", "mode", "slo_ms", *NODE_COLUMNS]
    points = list(_points(window, now).filter(node=node).order_by("at_seconds").values_list(*names))
    rows = with_gaps([list(point) for point in points], window.resolution_seconds)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    table = dict(zip(names, map(list, columns), strict=True))
    slos = [value for value in table.pop("slo_ms") if value is not None]
    return {"at": _times(table.pop("at_seconds")), "step_seconds": window.resolution_seconds, "slo_ms": slos[-1] if slos else None, **table}


def fleet_series(range_name: str, now: datetime) -> dict[str, Any]:
    """Columns of the fleet's history: percentiles from merged sketches, the spread of ratios as quantiles over nodes."""
    window = WINDOWS[range_name]
    names = ("at_seconds", "emb_ratio", "emb_hit_ratio", "kv_hit_ratio", "requests_per_second", "slo_ms", "sketch")
    points = _points(window, now)
    if window.resolution_seconds < window.fleet_step_seconds:
        points = points.alias(phase=Mod(F("at_seconds"), window.fleet_step_seconds)).filter(phase=0)
    rows = [
        _fleet_row(at_seconds, [dict(zip(names, point, strict=True)) for point in group])
        for at_seconds, group in groupby(points.order_by("at_seconds").values_list(*names), key=lambda point: point[0])
    ]
    return _fleet_columns(with_gaps(rows, window.fleet_step_seconds), window)


def decisions(node: Node) -> QuerySet[Decision]:
    """Decisions of a node, newest first."""
    return Decision.objects.filter(node=node).order_by("-id")


def with_gaps(rows: list[list[Any]], step_seconds: int) -> list[list[Any]]:
    """Rows whose first value is a time, with a row of nulls where more than two steps are missing (pure)."""
    out: list[list[Any]] = []
    for row in rows:
        if out and row[0] - out[-1][0] > 3 * step_seconds:
            out.append([out[-1][0] + step_seconds, *[None] * (len(row) - 1)])
        out.append(row)
    return out


_FLEET_COLUMNS = [
    "at",
    "slo_ms",
    "latency_ms_p50",
    "latency_ms_p99",
    "requests_per_second",
    "emb_hit_ratio",
    "kv_hit_ratio",
    *[f"emb_ratio_p{quantile}" for quantile in RATIO_QUANTILES],
]


def _fleet_row(at_seconds: int, points: list[dict[str, Any]]) -> list[Any]:
    counts = percentiles.merge(point["sketch"] for point in points if point["sketch"] is not None)
    ratios = [point["emb_ratio"] for point in points if point["emb_ratio"] is not None]
    quantiles = np.percentile(ratios, RATIO_QUANTILES).tolist() if ratios else [None] * len(RATIO_QUANTILES)
    return [
        at_seconds,
        max((point["slo_ms"] for point in points if point["slo_ms"] is not None), default=None),
        percentiles.p50(counts),
        percentiles.p99(counts),
        sum(point["requests_per_second"] or 0.0 for point in points),
        _weighted(points, "emb_hit_ratio"),
        _weighted(points, "kv_hit_ratio"),
        *quantiles,
    ]


def _fleet_columns(rows: list[list[Any]], window: Window) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_FLEET_COLUMNS)
    table = dict(zip(_FLEET_COLUMNS, map(list, columns), strict=True))
    slos = [value for value in table.pop("slo_ms") if value is not None]
    return {**table, "at": _times(table["at"]), "step_seconds": window.fleet_step_seconds, "slo_ms": slos[-1] if slos else None}


def _points(window: Window, now: datetime) -> QuerySet[Point]:
    since = int(now.timestamp()) - window.span_seconds
    return Point.objects.filter(resolution_seconds=window.resolution_seconds, at_seconds__gte=since)


def _phase(node: Node, now: datetime) -> Phase:
    status = fleet.status_of(node)
    if status is None:
        return Phase.OFFLINE
    return phase_of(bool(status.link_id), status.received_at, status.frame["phase"] if status.frame else None, now)


def _weighted(rows: list[dict[str, Any]], name: str) -> float | None:
    known = [(row[name], row["requests_per_second"] or 0.0) for row in rows if row[name] is not None]
    total = sum(weight for _, weight in known)
    if not known:
        return None
    if total <= 0:
        return float(sum(value for value, _ in known) / len(known))
    return float(sum(value * weight for value, weight in known) / total)


def _times(seconds: list[int]) -> list[str]:
    return [datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in seconds]
