"""What the teacher that knows the future tells, from costs that are given, and what a student makes of it."""

from typing import Literal

import numpy as np
import pytest
import torch

from agents.artifacts.card import Action
from agents.learning.clairvoyant import PRICED, RATIOS, excess_of, lesson_of
from agents.learning.clairvoyant import HeldRun as Run
from agents.learning.episode import Seen, Window
from agents.learning.imitate import price_at, price_loss
from agents.learning.teacher import Prices
from tests.agents.learning import tiny


def bowl(middle: float, depth: float = 4.0) -> np.ndarray:
    return 100.0 * np.exp(depth * (np.array(RATIOS) - middle) ** 2)


def price_of(excess: np.ndarray, ratio: float) -> float:
    return float(np.interp(ratio, PRICED, excess))


def test_the_cheapest_ratio_costs_nothing_more() -> None:
    excess = excess_of(bowl(0.4), 100.0)
    assert PRICED[excess.argmin()] == pytest.approx(0.4)
    assert excess.min() == 0.0


def test_prices_are_told_in_the_streams_usual_cost() -> None:
    assert price_of(excess_of(bowl(0.4), 100.0), 0.75) == pytest.approx(np.exp(4.0 * 0.35**2) - 1.0, rel=1e-6)
    assert price_of(excess_of(bowl(0.4), 1_000.0), 0.75) == pytest.approx((np.exp(4.0 * 0.35**2) - 1.0) / 10.0, rel=1e-6)


def test_every_ratio_that_was_held_has_the_price_it_was_found_to_have() -> None:
    costs = np.array([4.9, 4.0, 2.0, 1.0, 1.5, 3.0, 4.5])
    assert [price_of(excess_of(costs, 1.0), ratio) for ratio in RATIOS] == pytest.approx((costs - 1.0).tolist(), abs=1e-2)


def test_a_narrow_valley_stays_where_it_is_however_dear_the_ends_are() -> None:
    """What eight hundred requests a second of a catalogue with short histories cost: a valley a twentieth wide."""
    excess = excess_of(np.array([146.0, 7.0, 1.33, 1.0, 1.16, 2.33, 430.0]), 1.0)
    assert PRICED[excess.argmin()] == pytest.approx(0.4, abs=0.0126)
    assert price_of(excess, 0.45) == pytest.approx(0.16, abs=0.01)


def test_a_ratio_that_drowns_the_fleet_has_a_highest_price() -> None:
    assert excess_of(bowl(0.3, depth=100.0), 1.0).max() == 4.0


def test_the_lesson_has_the_prices_of_every_held_node() -> None:
    config = tiny.helm()
    runs = [Run([seen(ratio)], [Window(cost, 0, 40.0, np.zeros(2))]) for ratio, cost in zip(RATIOS, bowl(0.5), strict=True)]
    lesson = lesson_of(config, runs)
    assert isinstance(lesson.told, Prices)
    assert lesson.raw.shape == (2 * len(RATIOS), 20)
    assert lesson.told.present.tolist() == pytest.approx(np.repeat(RATIOS, 2).tolist())
    assert all(price_of(excess, 0.5) == pytest.approx(0.0, abs=1e-6) for excess in lesson.told.excess)


def test_a_large_fleet_tells_no_more_than_a_small_one() -> None:
    config = tiny.helm()
    runs = [Run([seen(ratio, nodes=8)], [Window(cost, 0, 40.0, np.zeros(8))]) for ratio, cost in zip(RATIOS, bowl(0.5), strict=True)]
    lesson = lesson_of(config, runs)
    assert isinstance(lesson.told, Prices)
    assert lesson.raw.shape == (2 * len(RATIOS), 20)
    assert lesson.told.present.tolist() == pytest.approx(np.repeat(RATIOS, 2).tolist())


# --- the student


def test_between_two_priced_ratios_the_price_lies_between() -> None:
    excess = torch.zeros(1, PRICED.shape[0])
    excess[0, 1] = 1.0
    middle = float(PRICED[0] + PRICED[1]) / 2.0
    assert price_at(excess, torch.tensor([[middle, float(PRICED[1])]]))[0].tolist() == pytest.approx([0.5, 1.0], abs=1e-5)


@pytest.mark.parametrize("anchor", ["present", "landscape"])
def test_a_student_that_cannot_tell_two_futures_apart_is_insured_against_the_dearer_one(anchor: Literal["present", "landscape"]) -> None:
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.3, anchor=anchor)
    mild, harsh = excess_of(bowl(0.6, depth=1.0), 100.0), excess_of(bowl(0.3, depth=8.0), 100.0)
    both = Prices(np.full(2, 0.5), np.full(2, 0.5), np.stack([mild, harsh]).astype(np.float32))
    loss = price_loss(action, both, 0.0)
    wishes = torch.linspace(0.25, 0.75, 101)
    prices = [float(loss(torch.full((2, 1), float(torch.atanh((wish - 0.5) / 0.3))), torch.arange(2))) for wish in wishes]
    assert 0.3 < float(wishes[int(np.argmin(prices))]) < 0.4


def test_a_move_must_earn_what_it_costs() -> None:
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1, anchor="present")
    prices = Prices(np.array([0.5]), np.array([0.5]), excess_of(bowl(0.55), 100.0)[None].astype(np.float32))
    stay, go = torch.zeros(1, 1), torch.full((1, 1), float(np.arctanh(0.5)))
    for move_weight, cheaper in ((0.0, go), (1.0, stay)):
        loss = price_loss(action, prices, move_weight)
        assert float(loss(cheaper, torch.arange(1))) == min(float(loss(each, torch.arange(1))) for each in (stay, go))


def test_increments_are_priced_by_their_chances() -> None:
    action = tiny.paper().action
    prices = Prices(np.array([0.5]), np.array([0.5]), excess_of(bowl(0.56), 100.0)[None].astype(np.float32))
    loss = price_loss(action, prices, 0.0)
    surely_up = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 20.0]])
    assert float(loss(surely_up, torch.arange(1))) == pytest.approx(0.0, abs=1e-3)
    assert float(loss(torch.zeros(1, 7), torch.arange(1))) > 0.01


def seen(ratio: float, nodes: int = 2) -> Seen:
    return Seen(np.zeros((nodes, 20)), np.zeros((nodes, 20), np.float32), np.full(nodes, ratio), np.full(nodes, ratio), [])
