import math

import numpy as np
import pytest

from agents.controller.landscape import landscape
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising

RAILS = GuardRails(emb_ratio_min=0.1, emb_ratio_max=0.9)


def test_seventeen_points_from_floor_to_ceiling_pass_through_the_measured_mean() -> None:
    points = landscape(observe(emb_value=rising(1.0, 200.0), kv_value=rising(1.0, 100.0)), 30.0, RAILS)
    assert [point.emb_ratio for point in points] == pytest.approx(np.linspace(0.1, 0.9, 17))
    assert points[8].mean_ms == pytest.approx(30.0)
    # each 0.05 more EMB saves 10 - 5 ms per second at 10 requests per second
    assert points[9].mean_ms == pytest.approx(29.5)
    assert points[0].mean_ms == pytest.approx(34.0)


def test_the_lowest_point_is_where_the_curves_say() -> None:
    points = landscape(observe(emb_value=rising(0.7, 300.0), kv_value=rising(0.3, 50.0)), 30.0, RAILS)
    assert min(points, key=lambda point: point.mean_ms).emb_ratio == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("changes", "mean_ms"),
    [
        ({"requests_per_second_slow": 0.0}, 30.0),
        ({}, math.nan),
        ({"emb_value": np.full(101, np.nan)}, 30.0),
        ({"requests_per_second_slow": math.nan}, 30.0),
    ],
)
def test_what_is_not_known_is_not_drawn(changes: dict[str, object], mean_ms: float) -> None:
    assert landscape(observe(**changes), mean_ms, RAILS) == []


def test_a_mean_is_never_negative() -> None:
    points = landscape(observe(emb_value=rising(1.0, 2000.0)), 5.0, RAILS)
    assert min(point.mean_ms for point in points) == 0.0
