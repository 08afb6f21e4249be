import math
from typing import Any

import numpy as np
import pytest

from agents.controller.adapter import ADAPTER, OFFSET_RATIO_MAX, RADIUS_RATIO_MIN, adapt, reset, restore, saved
from agents.controller.moment import fill, new_moments
from agents.numerics.jit import kernel
from tests.agents.controller.observations import observe

SECOND = 1_000_000_000


@kernel
def turn(adapters: np.ndarray, moments: np.ndarray, slope: float, disturbed: bool) -> float:
    return adapt(adapters[0], moments[0], slope, disturbed)


class Node:
    """A node whose ln(service time) has a slope of its own, walked up and down by somebody else."""

    def __init__(self, true_slope: float, predicted_slope: float, noise: float = 0.0, seed: int = 0) -> None:
        self.records = np.zeros(1, ADAPTER)
        reset(self.records)
        self.true_slope, self.predicted_slope = true_slope, predicted_slope
        self.noise, self.chance = noise, np.random.default_rng(seed)
        self.now, self.ratio = 0, 0.5

    def decide(self, moved: float = 0.0, disturbed: bool = False, **more: Any) -> float:
        self.now, self.ratio = self.now + 10, self.ratio + moved
        service_ms = 20.0 * math.exp(self.true_slope * (self.ratio - 0.5) + self.noise * self.chance.normal())
        moments = new_moments(1)
        fill(moments, observe(now_ns=self.now * SECOND, emb_ratio=self.ratio, service_ms=service_ms, **more))
        return turn(self.records, moments, self.predicted_slope, disturbed)

    def wander(self, moves: int, **more: Any) -> list[float]:
        return [self.decide(0.03 if number % 4 < 2 else -0.03, **more) for number in range(moves)]


def test_a_slope_the_curves_do_not_see_is_learned_and_walked_down() -> None:
    node = Node(true_slope=1.0, predicted_slope=0.0)
    offsets = node.wander(60)
    assert node.records["intercept"][0] == pytest.approx(1.0, abs=0.05)
    assert offsets[3] == 0.0  # not before five samples
    assert offsets[-1] == -OFFSET_RATIO_MAX
    assert min(np.diff(offsets)) >= -0.05


def test_curves_that_are_right_leave_nothing_to_offset_at_their_optimum() -> None:
    node = Node(true_slope=0.0, predicted_slope=0.0, noise=0.005)
    assert max(abs(offset) for offset in node.wander(100)) <= 0.02


def test_noise_alone_teaches_next_to_nothing() -> None:
    offsets = [Node(true_slope=0.0, predicted_slope=0.0, noise=0.1, seed=seed).wander(60)[-1] for seed in range(10)]
    assert sum(abs(offset) > 0.02 for offset in offsets) <= 1


def test_without_moves_nothing_is_learned_and_nothing_is_tried() -> None:
    node = Node(true_slope=2.0, predicted_slope=0.0)
    assert [node.decide() for _ in range(50)] == [0.0] * 50
    assert node.records["samples"][0] == 0


def test_the_offset_stays_in_the_trust_region_which_grows_with_success_and_shrinks_with_surprise() -> None:
    node = Node(true_slope=3.0, predicted_slope=0.0)
    for _ in range(80):
        node.wander(1)
        assert abs(node.records["offset"][0]) <= node.records["radius"][0] <= OFFSET_RATIO_MAX
    assert node.records["radius"][0] == OFFSET_RATIO_MAX
    node.true_slope = -30.0
    node.wander(3)
    assert node.records["radius"][0] == RADIUS_RATIO_MIN
    assert abs(node.records["offset"][0]) <= RADIUS_RATIO_MIN


@pytest.mark.parametrize(
    "poor",
    [
        {"utilisation": 0.97},
        {"utilisation": math.nan},
        {"requests_per_second_slow": 0.0},
        {"reuse_age_ns": 11 * SECOND},
        {"tokens_per_request": math.nan},
        {"disturbed": True},
    ],
)
def test_it_freezes_on_a_poor_signal(poor: dict[str, Any]) -> None:
    node = Node(true_slope=1.0, predicted_slope=0.0)
    node.wander(20)
    before = saved(node.records)
    node.wander(20, **poor)
    assert node.records["frozen"][0] == 1
    assert saved(node.records) == before
    node.wander(1)
    assert node.records["frozen"][0] == 0


def test_a_sample_in_which_the_traffic_changed_is_left_out() -> None:
    node = Node(true_slope=1.0, predicted_slope=0.0)
    for number in range(20):
        node.decide(0.03 if number % 4 < 2 else -0.03, tokens_per_request=500.0 * 1.2**number)
    assert node.records["samples"][0] == 0


def test_what_was_learned_survives_a_restart() -> None:
    node = Node(true_slope=1.0, predicted_slope=0.3)
    node.wander(40)
    reborn = np.zeros(1, ADAPTER)
    reset(reborn)
    assert restore(reborn, saved(node.records))
    assert saved(reborn) == saved(node.records)
    assert reborn["offset"][0] != 0.0


@pytest.mark.parametrize(
    "spoil",
    [
        {"version": 2.0},
        {"offset": 0.2},
        {"radius": 0.0},
        {"noise": math.nan},
        {"p11": -1.0},
        {"p01": 100.0},
        {"gain": "high"},
        {"samples": -1.0},
    ],
)
def test_a_state_that_is_not_whole_is_not_taken(spoil: dict[str, Any]) -> None:
    records = np.zeros(1, ADAPTER)
    reset(records)
    before = saved(records)
    assert not restore(records, before | spoil)
    assert saved(records) == before
    assert not restore(records, {})
