import math

import numpy as np
import pytest

from agents.controller.features import HELM, PAPER
from agents.controller.interface import Observation
from agents.controller.three_layers import ThreeLayers
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising
from tests.agents.controller.policies import SEVEN, card, constant_policy, random_policy

SECOND = 1_000_000_000


def seen(observation: Observation) -> dict[str, float]:
    controller = ThreeLayers(GuardRails(), policy=random_policy(), adapter_on=False, recovery_on=False)
    controller.propose(observation)
    return controller.features()


def test_every_feature_of_a_known_moment() -> None:
    features = seen(
        observe(
            emb_ratio=0.4,
            pool_bytes=2 << 30,
            requests_per_second_fast=30.0,
            requests_per_second_slow=20.0,
            emb_hit_ratio=0.9,
            kv_hit_ratio=0.6,
            utilisation=0.7,
            queue_ms=12.0,
            latency_ms_p99=60.0,
            slo_ms=120.0,
            slo_violation_ratio=0.01,
            tokens_per_request=1000.0,
            revisit_ratio=0.3,
            refill_backlog_bytes=1 << 28,
            since_last_move_ns=99 * SECOND,
            kv_used_ratio=0.95,
            emb_value=rising(0.5, 100.0),
            kv_value=rising(0.5, 50.0),
            emb_value_total=100.0,
            kv_value_total=60.0,
        )
    )
    assert features == {
        "emb_ratio": 0.4,
        "emb_hit_ratio": 0.9,
        "kv_hit_ratio": 0.6,
        "emb_marginal_log": pytest.approx(math.log1p(200.0 / 2)),  # 200 ms/s for a pool of 2 GiB
        "kv_marginal_log": pytest.approx(0.0),  # beyond its knee KV has nothing to gain
        "best_distance_ratio": pytest.approx(0.1),
        "best_gain_ratio": pytest.approx(20.0 / 160.0),
        "slope_ratio": pytest.approx(0.1 * 200.0 / 160.0),
        "arrivals_log": pytest.approx(math.log(21.0)),
        "surge_log": pytest.approx(math.log(1.5)),
        "queue_slo_ratio": pytest.approx(math.log1p(0.1)),
        "utilisation": 0.7,
        "p99_slo_log": pytest.approx(math.log(0.5)),
        "slo_violation_ratio": 0.01,
        "tokens_log": pytest.approx(math.log(1000.0)),
        "revisit_ratio": 0.3,
        "drift_ratio": 0.0,
        "backlog_ratio": 0.125,
        "since_move_log": pytest.approx(math.log(100.0)),
        "kv_used_ratio": 0.95,
    }
    assert tuple(features) == HELM


def test_the_papers_seven() -> None:
    controller = ThreeLayers(GuardRails(), policy=constant_policy([0.0] * 7, SEVEN, PAPER))
    controller.propose(observe(revisit_ratio=0.3, tokens_per_request=12_000.0, latency_ms_p99=60.0, slo_ms=120.0))
    assert controller.features() == {
        "hot_user_ratio": 0.3,
        "kv_hit_ratio": 0.5,
        "emb_hit_ratio": 0.5,
        "kilotokens": 12.0,
        "slo_violation_ratio": 0.0,
        "emb_ratio": 0.5,
        "p99_slo_ratio": 0.5,
    }


def test_a_change_of_the_hot_set_shows_as_drift_and_fades() -> None:
    controller = ThreeLayers(GuardRails(), policy=random_policy(), adapter_on=False, recovery_on=False)
    drifts = []
    for turn in range(100):
        knee = 0.2 if turn < 20 else 0.6
        controller.propose(observe(now_ns=(1 + turn * 5) * SECOND, emb_value=rising(knee, 100.0)))
        drifts.append(controller.features()["drift_ratio"])
    assert max(drifts[:20]) < 1e-12
    points = np.arange(1, 33) / 32
    area = float(np.mean(np.abs(np.minimum(points / 0.2, 1.0) - np.minimum(points / 0.6, 1.0))))
    assert drifts[20] == pytest.approx(area, abs=0.01)
    assert drifts[44] == pytest.approx(drifts[20] / 2, rel=0.05)  # two minutes later half is forgotten
    assert drifts[-1] < 0.15 * drifts[20]


def test_a_signal_that_is_not_a_number_keeps_its_last_good_value_and_is_named() -> None:
    policy = random_policy(card(), seed=5)
    never, lost = (ThreeLayers(GuardRails(), policy=policy, adapter_on=False, recovery_on=False) for _ in range(2))
    first = never.propose(observe(kv_hit_ratio=0.8))
    lost.propose(observe(kv_hit_ratio=0.8))
    again = lost.propose(observe(now_ns=5 * SECOND, kv_hit_ratio=math.nan, latency_ms_p99=math.nan))
    assert lost.missing_features == ["kv_hit_ratio", "p99_slo_log"]
    assert again.emb_ratio == pytest.approx(first.emb_ratio, abs=1e-6)
    assert math.isfinite(again.emb_ratio)
    lost.propose(observe(now_ns=10 * SECOND))
    assert lost.missing_features == []


def test_a_signal_never_seen_counts_as_the_mean() -> None:
    # the card's mean of every feature is 0.5; hit ratios of 0.5 are the mean
    policy = random_policy(card(), seed=5)
    unknown, mean = (ThreeLayers(GuardRails(), policy=policy, adapter_on=False, recovery_on=False) for _ in range(2))
    assert unknown.propose(observe(emb_hit_ratio=math.nan)).emb_ratio == mean.propose(observe(emb_hit_ratio=0.5)).emb_ratio


def test_one_wild_signal_cannot_exceed_five_deviations() -> None:
    policy = random_policy(card(), seed=5)
    wild, five = (ThreeLayers(GuardRails(), policy=policy, adapter_on=False, recovery_on=False) for _ in range(2))
    assert wild.propose(observe(utilisation=1e9)).emb_ratio == five.propose(observe(utilisation=0.5 + 5 * 0.5)).emb_ratio
