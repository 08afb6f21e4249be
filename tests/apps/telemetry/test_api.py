"""The fleet's figures and history over REST."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from agents.numerics import sketch
from agents.wire.messages import LatencySketch, Mode
from apps.fleet.models import Node, NodeStatus
from apps.telemetry import queries
from apps.telemetry.frames import point_of
from apps.telemetry.models import Decision
from tests.apps.frames import telemetry


def latencies(ms: float, count: int) -> LatencySketch:
    return LatencySketch(indexes=[int(sketch.bucket_of(ms))], counts=[count])


def history(node: Node, now: datetime, ages_seconds: list[int], resolution_seconds: int = 1, **frame: Any) -> None:
    for age in ages_seconds:
        point = point_of(node.pk, int(now.timestamp()) - age, telemetry(node.name, **frame))
        point.resolution_seconds = resolution_seconds
        point.save()


def test_the_fleet_is_the_sum_of_the_nodes_that_are_there(viewer: APIClient, make_node: Any) -> None:
    make_node("node-0", requests_per_second=30.0, emb_hit_ratio=0.9, emb_ratio=0.4, sketch=latencies(10.0, 900))
    make_node("node-1", requests_per_second=10.0, emb_hit_ratio=0.5, emb_ratio=0.6, sketch=latencies(400.0, 100), mode=Mode.OVERRIDE)
    make_node("node-2", requests_per_second=99.0)
    NodeStatus.objects.filter(node__name="node-2").update(link_id="")

    fleet = viewer.get("/api/v1/fleet/").json()

    assert (fleet["name"], fleet["nodes_total"], fleet["nodes_ready"], fleet["nodes_offline"]) == ("local", 3, 2, 1)
    assert (fleet["requests_per_second"], fleet["modes"]) == (40.0, {"auto": 1, "override": 1})
    assert fleet["emb_hit_ratio"] == pytest.approx(0.8)
    assert fleet["emb_ratio_mean"] == pytest.approx(0.5)
    assert fleet["latency_ms_p50"] == pytest.approx(10.0, rel=0.02)
    assert fleet["latency_ms_p99"] == pytest.approx(400.0, rel=0.02)
    assert fleet["slo_ratio"] == pytest.approx(0.9)


def test_an_empty_fleet_has_no_figures(viewer: APIClient) -> None:
    fleet = viewer.get("/api/v1/fleet/").json()
    assert (fleet["nodes_total"], fleet["requests_per_second"], fleet["latency_ms_p99"], fleet["modes"]) == (0, None, None, {})


def test_few_requests_have_no_99th_percentile(viewer: APIClient, make_node: Any) -> None:
    make_node(sketch=latencies(10.0, 299))
    fleet = viewer.get("/api/v1/fleet/").json()
    assert fleet["latency_ms_p99"] is None
    assert fleet["latency_ms_p50"] is not None


def test_a_nodes_history_has_columns_of_equal_length_and_marks_its_gap(viewer: APIClient, node: Node) -> None:
    now = timezone.now()
    history(node, now, [60, 59, 58, 10, 9], emb_ratio=0.4)

    series = viewer.get("/api/v1/nodes/node-0/series/?range=15m").json()

    assert {len(column) for column in series.values() if isinstance(column, list)} == {6}
    assert series["emb_ratio"] == [0.4, 0.4, 0.4, None, 0.4, 0.4]
    assert series["mode"] == ["auto", "auto", "auto", None, "auto", "auto"]
    at = [datetime.fromisoformat(moment) for moment in series["at"]]
    assert at == sorted(at)
    assert (series["step_seconds"], series["slo_ms"]) == (1, 120.0)


@pytest.mark.parametrize(("range_name", "resolution"), [("15m", 1), ("1h", 10), ("6h", 60), ("24h", 60), ("7d", 600)])
def test_each_range_is_answered_from_its_resolution(viewer: APIClient, node: Node, range_name: str, resolution: int) -> None:
    now = timezone.now()
    for index, seconds in enumerate((1, 10, 60, 600)):
        history(node, now, [30], seconds, emb_ratio=round(0.2 + index / 10, 1))
    wanted = {1: 0.2, 10: 0.3, 60: 0.4, 600: 0.5}[resolution]
    assert viewer.get(f"/api/v1/nodes/node-0/series/?range={range_name}").json()["emb_ratio"] == [wanted]


def test_the_fleets_history_merges_percentiles_and_shows_the_spread(viewer: APIClient, make_node: Any) -> None:
    moment = int(timezone.now().timestamp()) // 10 * 10 - 60
    now = datetime.fromtimestamp(moment + 60, UTC)
    for index, ratio in enumerate((0.2, 0.4, 0.6, 0.8, 0.5)):
        node = make_node(f"node-{index}")
        ms = 400.0 if index == 0 else 10.0
        history(node, now, [60, 57, 50], emb_ratio=ratio, requests_per_second=2.0, sketch=latencies(ms, 200))

    series = viewer.get("/api/v1/fleet/series/").json()

    assert len(series["at"]) == 2  # every fifth second
    assert series["requests_per_second"] == [10.0, 10.0]
    assert series["latency_ms_p50"][0] == pytest.approx(10.0, rel=0.02)
    assert series["latency_ms_p99"][0] == pytest.approx(400.0, rel=0.02)
    assert (series["emb_ratio_p50"][0], series["emb_ratio_p10"][0], series["emb_ratio_p90"][0]) == pytest.approx((0.5, 0.28, 0.72))


def test_an_unknown_range_is_named(viewer: APIClient, node: Node) -> None:
    for path in ("fleet/series/", "nodes/node-0/series/"):
        answer = viewer.get(f"/api/v1/{path}?range=1y")
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/range")


@pytest.mark.parametrize("path", ["", "series/", "decisions/"])
def test_an_unknown_node_is_not_found(viewer: APIClient, db: None, path: str) -> None:
    answer = viewer.get(f"/api/v1/nodes/node-9/{path}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (404, "/name")


def test_decisions_are_paged_newest_first(viewer: APIClient, node: Node) -> None:
    import msgspec

    from tests.apps.frames import decision

    for seq in range(5):
        Decision.objects.create(node=node, at=timezone.now(), seq=seq, moved=False, record=msgspec.to_builtins(decision(seq=seq)))
    first = viewer.get("/api/v1/nodes/node-0/decisions/?page_size=3").json()
    second = viewer.get(first["next"]).json()
    assert [row["seq"] for row in first["results"] + second["results"]] == [4, 3, 2, 1, 0]


def test_reading_the_fleet_costs_a_fixed_number_of_queries(viewer: APIClient, make_node: Any, django_assert_max_num_queries: Any) -> None:
    for index in range(12):
        make_node(f"node-{index}")
    for path in ("nodes/", "fleet/", "clusters/"):
        with django_assert_max_num_queries(4):
            viewer.get(f"/api/v1/{path}")


def test_a_gap_is_marked_once() -> None:
    rows = [[0, 1], [1, 1], [2, 1], [9, 1], [10, 1]]
    assert queries.with_gaps(rows, 1) == [[0, 1], [1, 1], [2, 1], [3, None], [9, 1], [10, 1]]
    assert queries.with_gaps([], 1) == []


def test_prometheus_reads_the_fleet(make_node: Any, client: Any) -> None:
    make_node("node-0", emb_ratio=0.4, latency_ms_p99=40.0)
    make_node("node-1", online=False)
    text = client.get("/metrics").content.decode()
    for line in (
        'helm_node_up{node="node-0"} 1.0',
        'helm_node_up{node="node-1"} 0.0',
        'helm_node_split_ratio{gpu="0",kind="actual",node="node-0"} 0.4',
        'helm_node_latency_p99_seconds{node="node-0"} 0.04',
        'helm_node_pool_bytes{gpu="0",node="node-0",pool="kv",state="used"} 2.097152e+07',
        'helm_node_requests_total{node="node-0"} 1000.0',
    ):
        assert line in text.splitlines()


def test_prometheus_survives_an_empty_fleet(db: None, client: Any) -> None:
    assert client.get("/metrics").status_code == 200
