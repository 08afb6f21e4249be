import math

import numpy as np
import pytest

from agents.controller.landscape import Measured, landscape
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising

RAILS = GuardRails(emb_ratio_min=0.1, emb_ratio_max=0.9)
KNOWN = Measured(
    service_ms=30.0,
    latency_ms=math.nan,
    latency_ms_p99=math.nan,
    residual_ms_sigma=0.0,
    residual_samples=1000.0,
    emb_samples=1e9,
    kv_samples=1e9,
)


def mean_of_constant_service(ms: float, requests_per_second: float) -> float:
    busy = ms * requests_per_second / 1e3
    return ms + busy * ms / (2.0 * (1.0 - busy))


def test_seventeen_points_follow_the_curves_through_the_measured_service_time() -> None:
    points = landscape(observe(emb_value=rising(1.0, 20.0), kv_value=rising(1.0, 0.0), requests_per_second_slow=1.0), KNOWN, RAILS)
    assert [point.emb_ratio for point in points] == pytest.approx(np.linspace(0.1, 0.9, 17))
    assert points[8].mean_ms == pytest.approx(mean_of_constant_service(30.0, 1.0))
    # each 0.05 more EMB saves 1 ms per second at one request per second
    assert points[9].mean_ms == pytest.approx(mean_of_constant_service(29.0, 1.0))
    assert points[0].mean_ms == pytest.approx(mean_of_constant_service(38.0, 1.0))


def test_the_lowest_point_is_where_the_curves_say() -> None:
    points = landscape(observe(emb_value=rising(0.7, 300.0), kv_value=rising(0.3, 50.0)), KNOWN, RAILS)
    assert min(points, key=lambda point: point.mean_ms).emb_ratio == pytest.approx(0.7)
    assert min(points, key=lambda point: point.p99_ms).emb_ratio == pytest.approx(0.7)


def test_at_the_present_ratio_the_prediction_is_what_is_measured() -> None:
    points = landscape(observe(), KNOWN._replace(latency_ms=40.0, latency_ms_p99=95.0), RAILS)
    assert (points[8].mean_ms, points[8].p99_ms) == pytest.approx((40.0, 95.0))


def test_a_tail_of_missed_prefixes_lifts_the_p99_and_not_the_mean() -> None:
    known = observe(kv_value=rising(1.0, 200.0), emb_value=rising(1.0, 0.0), kv_hit_ratio=0.9, requests_per_second_slow=5.0)
    mixed = landscape(known, KNOWN, RAILS)[8]
    alike = landscape(known._replace(kv_hit_ratio=math.nan), KNOWN, RAILS)[8]
    assert mixed.mean_ms == pytest.approx(alike.mean_ms, rel=0.05)
    assert mixed.p99_ms > alike.p99_ms + 8.0  # a found prefix saves 22 ms


def test_load_bends_the_p99_upwards() -> None:
    calm, busy = (landscape(observe(requests_per_second_slow=rate), KNOWN, RAILS)[8] for rate in (3.0, 30.0))
    assert busy.p99_ms > 4.0 * calm.p99_ms


def test_the_interval_is_narrowest_at_the_present_ratio_and_narrows_with_samples() -> None:
    few = landscape(observe(), KNOWN._replace(residual_ms_sigma=5.0, emb_samples=500.0, kv_samples=500.0), RAILS)
    many = landscape(observe(), KNOWN._replace(residual_ms_sigma=5.0, emb_samples=50_000.0, kv_samples=50_000.0), RAILS)
    width = [point.high_ms - point.low_ms for point in few]
    assert int(np.argmin(width)) == 8
    assert width[8] > 0.0
    assert all(point.low_ms <= point.mean_ms <= point.high_ms for point in few)
    assert many[0].high_ms - many[0].low_ms < width[0] / 2.0


@pytest.mark.parametrize(
    ("changes", "service_ms"),
    [
        ({"requests_per_second_slow": 0.0}, 30.0),
        ({}, math.nan),
        ({"emb_value": np.full(101, np.nan)}, 30.0),
        ({"requests_per_second_slow": math.nan}, 30.0),
    ],
)
def test_what_is_not_known_is_not_drawn(changes: dict[str, object], service_ms: float) -> None:
    assert landscape(observe(**changes), KNOWN._replace(service_ms=service_ms), RAILS) == []


def test_overload_and_savings_beyond_all_service_stay_finite_and_positive() -> None:
    points = landscape(observe(emb_value=rising(1.0, 2000.0)), KNOWN._replace(service_ms=80.0, residual_ms_sigma=30.0), RAILS)
    assert all(math.isfinite(value) and value > 0.0 for point in points for value in point)
