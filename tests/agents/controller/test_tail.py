import math

import pytest

from agents.controller.baselines.b5 import B5
from agents.controller.tail import slo_miss_ratio, tail_model
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising


def test_an_exponential_queue_is_met_when_both_kinds_cost_alike() -> None:
    tail = tail_model(observe(requests_per_second_slow=50.0, utilisation=0.5, kv_hit_ratio=0.5, kv_value=rising(1.0, 0.0), slo_ms=40.0))
    assert tail.hit_ms == pytest.approx(10.0)
    # deterministic service of 10 ms at half load: mean wait 5 ms, so P(wait > 30 ms) = 0.5 * exp(-30 * 0.5 / 5)
    assert slo_miss_ratio(tail, tail.emb_value_now, tail.kv_value_now, 1.0) == pytest.approx(0.5 * math.exp(-3.0))


def test_what_the_caches_save_more_lowers_the_misses_and_overload_misses_everything() -> None:
    tail = tail_model(observe(requests_per_second_slow=50.0, utilisation=0.8, kv_hit_ratio=0.5, slo_ms=60.0))
    now = slo_miss_ratio(tail, tail.emb_value_now, tail.kv_value_now, 1.0)
    assert slo_miss_ratio(tail, tail.emb_value_now + 50.0, tail.kv_value_now, 1.0) < now
    assert slo_miss_ratio(tail, tail.emb_value_now, tail.kv_value_now * 1.5, 1.0) < now
    assert slo_miss_ratio(tail, tail.emb_value_now, tail.kv_value_now, 1.3) == 1.0


@pytest.mark.parametrize("unknown", [{"requests_per_second_slow": 0.0}, {"kv_hit_ratio": math.nan}, {"utilisation": 0.0}])
def test_what_is_not_known_predicts_no_misses(unknown: dict[str, float]) -> None:
    assert slo_miss_ratio(tail_model(observe(**unknown)), 1.0, 1.0, 1.0) == 0.0


def test_where_values_are_equal_the_variant_with_the_tail_leans_to_fewer_long_misses() -> None:
    scene = observe(
        requests_per_second_slow=10.0,
        utilisation=0.6,
        kv_hit_ratio=0.6,
        slo_ms=150.0,
        emb_value=rising(1.0, 600.0),
        kv_value=rising(1.0, 600.0),
    )
    assert B5(GuardRails()).propose(scene).emb_ratio == 0.5
    assert B5(GuardRails(), tail=True).propose(scene).emb_ratio < 0.4
