"""Points become coarser points; retention drops what it says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.numerics import sketch
from apps.fleet.models import Node
from apps.telemetry import percentiles, rollups
from apps.telemetry.frames import point_of
from apps.telemetry.models import Decision, Point
from apps.telemetry.resolutions import RESOLUTIONS, bucket_start
from tests.apps.frames import telemetry

T0 = 1_800_000_000  # a multiple of 600


def seconds(node: Node, start: int, count: int, **changes: Any) -> None:
    Point.objects.bulk_create([point_of(node.pk, T0 + start + offset, telemetry(node.name, **changes)) for offset in range(count)])


def at(offset: float) -> datetime:
    return datetime.fromtimestamp(T0 + offset, UTC)


def points(resolution_seconds: int) -> list[Point]:
    return list(Point.objects.filter(resolution_seconds=resolution_seconds).order_by("node_id", "at_seconds"))


def test_the_start_of_the_test_is_the_start_of_every_bucket() -> None:
    assert [bucket_start(T0, resolution.seconds) for resolution in RESOLUTIONS] == [T0] * 4
    assert bucket_start(T0 + 599, 600) == T0


def test_ten_seconds_are_one_point_and_the_open_bucket_is_there_too(node: Node) -> None:
    seconds(node, 0, 5, emb_ratio=0.4)
    seconds(node, 5, 5, emb_ratio=0.6)
    seconds(node, 10, 3, emb_ratio=0.8)

    rollups.roll_up(at(13))

    assert [(point.at_seconds - T0, point.emb_ratio) for point in points(10)] == [(0, pytest.approx(0.5)), (10, pytest.approx(0.8))]
    assert [(point.at_seconds - T0, point.emb_ratio) for point in points(60)] == [(0, pytest.approx(0.65))]
    assert len(points(600)) == 1


def test_rolling_up_again_changes_nothing_and_new_points_are_taken_in(node: Node) -> None:
    seconds(node, 0, 13, emb_ratio=0.4)
    rollups.roll_up(at(13))
    before = [(point.pk, point.emb_ratio) for point in points(10) + points(60)]

    rollups.roll_up(at(13))
    assert [(point.pk, point.emb_ratio) for point in points(10) + points(60)] == before

    seconds(node, 13, 7, emb_ratio=0.8)
    rollups.roll_up(at(20))
    assert points(10)[1].emb_ratio == pytest.approx((3 * 0.4 + 7 * 0.8) / 10)


def test_it_goes_on_over_a_gap_of_days(node: Node) -> None:
    seconds(node, 0, 10)
    rollups.roll_up(at(10))
    far = 3 * 86_400
    seconds(node, far, 10)

    rollups.roll_up(at(far + 10))

    assert [point.at_seconds - T0 for point in points(10)] == [0, far]
    assert [point.at_seconds - T0 for point in points(600)] == [0, far]


def test_it_catches_up_in_turns_after_a_long_absence(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "TURN_BUCKETS", 2)
    seconds(node, 0, 65)
    rollups.roll_up(at(65))
    assert [point.at_seconds - T0 for point in points(10)] == [0, 10, 20, 30, 40, 50, 60]


def test_shares_weigh_requests_and_missing_values_do_not_count(node: Node) -> None:
    seconds(node, 0, 1, emb_hit_ratio=1.0, requests_per_second=30.0)
    seconds(node, 1, 1, emb_hit_ratio=0.0, requests_per_second=10.0)
    seconds(node, 2, 1, emb_hit_ratio=None, requests_per_second=0.0)

    rollups.roll_up(at(3))

    assert points(10)[0].emb_hit_ratio == pytest.approx(0.75)
    assert points(10)[0].requests_per_second == pytest.approx(40 / 3)


def test_an_idle_bucket_has_no_percentiles_and_a_mean_where_there_is_one(node: Node) -> None:
    from agents.wire.messages import LatencySketch

    seconds(node, 0, 3, requests_per_second=0.0, sketch=LatencySketch(indexes=[], counts=[]), emb_hit_ratio=0.5, kv_hit_ratio=None)
    rollups.roll_up(at(3))
    point = points(10)[0]
    assert (point.latency_ms_p50, point.latency_ms_p99, point.emb_hit_ratio, point.kv_hit_ratio) == (None, None, 0.5, None)


def test_percentiles_are_merged_and_never_averaged(node: Node) -> None:
    """Nine quiet minutes and one slow one: an averaged P99 would be near 45 ms, the true one is the slow minute's."""
    from agents.wire.messages import LatencySketch

    fast, slow = int(sketch.bucket_of(10.0)), int(sketch.bucket_of(400.0))
    for minute in range(10):
        seconds(node, minute * 60, 60, sketch=LatencySketch(indexes=[slow if minute == 9 else fast], counts=[100]))

    rollups.roll_up(at(600))

    assert [round(point.latency_ms_p50 or 0) for point in points(60)] == [10] * 9 + [
        400 + round((points(60)[-1].latency_ms_p50 or 0) - 400)
    ]
    whole = points(600)[0]
    assert whole.latency_ms_p50 == pytest.approx(10.0, rel=0.02)
    assert whole.latency_ms_p99 == pytest.approx(400.0, rel=0.02)
    assert int(percentiles.merge([whole.sketch or b""]).sum()) == 1000


def test_retention_drops_each_resolution_at_its_age(node: Node) -> None:
    now = 400 * 86_400
    for resolution in RESOLUTIONS:
        for age in (resolution.keep_seconds - 10, resolution.keep_seconds + 10):
            point = point_of(node.pk, T0 + now - age, telemetry())
            point.resolution_seconds = resolution.seconds
            point.save()

    rollups.prune(at(now))

    left = [(point.resolution_seconds, T0 + now - point.at_seconds) for point in Point.objects.order_by("resolution_seconds")]
    assert left == [(resolution.seconds, resolution.keep_seconds - 10) for resolution in RESOLUTIONS]


def test_after_a_day_only_decisions_that_moved_are_kept(node: Node) -> None:
    now = at(0)
    for hours, moved in [(1, False), (25, False), (25, True), (24 * 400, True)]:
        Decision.objects.create(node=node, at=now - timedelta(hours=hours), seq=hours, moved=moved, record={})

    rollups.prune(now)

    assert list(Decision.objects.order_by("id").values_list("seq", "moved")) == [(1, False), (25, True)]
