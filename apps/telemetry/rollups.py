"""Coarser points from finer ones, again and again: the open bucket too, so that a long range is never empty."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from apps.telemetry import percentiles
from apps.telemetry.ingest import POINT_KEYS, POINT_VALUES
from apps.telemetry.models import Decision, Point
from apps.telemetry.resolutions import RESOLUTIONS, Resolution, bucket_start

DECISIONS_FULL = timedelta(hours=24)
DECISIONS_MOVED = timedelta(days=366)
TURN_BUCKETS = 500  # rows of one transaction after a long absence: frames must get their turn in between
PRUNE_ROWS_MAX = 20_000  # one transaction's worth: readers and frames must get their turn

# Shares and latencies are means over requests, so busy seconds weigh more; the rest are means over time.
BY_REQUESTS = ("emb_hit_ratio", "kv_hit_ratio", "slo_ratio", "queue_ms", "emb_ms", "kv_ms", "compute_ms")
BY_TIME = (
    "emb_ratio",
    "target_emb_ratio",
    "recommended_emb_ratio",
    "slo_ms",
    "requests_per_second",
    "queue_depth",
    "utilisation",
    "refill_backlog_bytes",
    "migrating_bytes",
)


def roll_up(now: datetime) -> int:
    """Bring every coarser resolution up to date; returns how many points were written. Doing it twice changes nothing."""
    return sum(_roll_up(resolution, int(now.timestamp())) for resolution in RESOLUTIONS[1:])


def prune(now: datetime) -> int:
    """Drop what retention no longer keeps, a bounded number of rows per call."""
    now_seconds, dropped = int(now.timestamp()), 0
    for resolution in RESOLUTIONS:
        old = Point.objects.filter(resolution_seconds=resolution.seconds, at_seconds__lt=now_seconds - resolution.keep_seconds)
        dropped += _drop(Point, old.values_list("pk", flat=True)[:PRUNE_ROWS_MAX])
    dropped += _drop(
        Decision, Decision.objects.filter(at__lt=now - DECISIONS_FULL, moved=False).values_list("pk", flat=True)[:PRUNE_ROWS_MAX]
    )
    return dropped + _drop(Decision, Decision.objects.filter(at__lt=now - DECISIONS_MOVED).values_list("pk", flat=True)[:PRUNE_ROWS_MAX])


def merged(points: list[Point], resolution_seconds: int, at_seconds: int) -> Point:
    """One coarser point from the finer ones of its bucket, oldest first (pure)."""
    last = points[-1]
    weights = [point.requests_per_second or 0.0 for point in points]
    values: dict[str, Any] = {name: _mean([getattr(point, name) for point in points], None) for name in BY_TIME}
    values |= {name: _mean([getattr(point, name) for point in points], weights) for name in BY_REQUESTS}
    # Each sketch slides over 60 s already: up to a minute the last one is the bucket; merging them would count twice.
    kept = points if resolution_seconds > 60 else [last]
    counts = percentiles.merge(point.sketch for point in kept if point.sketch is not None)
    used = counts.nonzero()[0]
    return Point(
        node_id=last.node_id,
        resolution_seconds=resolution_seconds,
        at_seconds=at_seconds,
        mode=last.mode,
        latency_ms_p50=percentiles.p50(counts),
        latency_ms_p99=percentiles.p99(counts),
        sketch=percentiles.pack(used.tolist(), counts[used].tolist()),
        **values,
    )


def _roll_up(resolution: Resolution, now_seconds: int) -> int:
    """Go on at the last bucket written (it may have been open), in bounded turns, over any gap."""
    newest = (
        Point.objects.filter(resolution_seconds=resolution.seconds).order_by("-at_seconds").values_list("at_seconds", flat=True).first()
    )
    written, cursor = 0, _next_bucket(resolution, newest or 0, now_seconds)
    while cursor is not None:
        end = cursor + TURN_BUCKETS * resolution.seconds
        written += _roll_up_between(resolution, cursor, end)
        cursor = _next_bucket(resolution, end, now_seconds)
    return written


def _roll_up_between(resolution: Resolution, start: int, end: int) -> int:
    finer = Point.objects.filter(resolution_seconds=resolution.made_from_seconds, at_seconds__gte=start, at_seconds__lt=end)
    coarser = [
        merged(list(points), resolution.seconds, at_seconds)
        for (_, at_seconds), points in groupby(
            finer.order_by("node_id", "at_seconds"), key=lambda point: (point.node_id, bucket_start(point.at_seconds, resolution.seconds))
        )
    ]
    Point.objects.bulk_create(coarser, batch_size=500, update_conflicts=True, unique_fields=POINT_KEYS, update_fields=POINT_VALUES)
    return len(coarser)


def _next_bucket(resolution: Resolution, start: int, now_seconds: int) -> int | None:
    """Bucket of the first finer point from `start` on."""
    finer = Point.objects.filter(resolution_seconds=resolution.made_from_seconds, at_seconds__gte=start, at_seconds__lte=now_seconds)
    first = finer.order_by("at_seconds").values_list("at_seconds", flat=True).first()
    return None if first is None else bucket_start(int(first), resolution.seconds)


def _mean(values: list[float | None], weights: list[float] | None) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights or [1.0] * len(values), strict=True) if value is not None]
    if not known:
        return None
    total = sum(weight for _, weight in known)
    if total <= 0:
        return sum(value for value, _ in known) / len(known)
    return sum(value * weight for value, weight in known) / total


def _drop(model: Any, pks: Iterable[int]) -> int:
    chosen = list(pks)
    for first in range(0, len(chosen), 500):  # SQLite limits the number of parameters
        model.objects.filter(pk__in=chosen[first : first + 500]).delete()
    return len(chosen)
