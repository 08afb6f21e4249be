import itertools

import numpy as np
import pytest

from agents.controller.baselines.s3 import Refill, Schedule, clairvoyant_plan, parse_schedule
from tests.agents.controller.observations import observe

SECOND = 1_000_000_000
GRID = np.linspace(0.1, 0.9, 17)
FREE = Refill(pool_bytes=100, move_ratio_per_second=0.02, refill_bytes_per_second=1e9, interference_ms_per_byte=0.0)


def bowl(best: float) -> np.ndarray:
    return 100.0 + 1000.0 * (GRID - best) ** 2


def test_a_still_optimum_is_taken_from_the_first_window_on() -> None:
    plan = clairvoyant_plan(np.stack([bowl(0.4)] * 5), GRID, 5.0, FREE)
    assert plan.emb_ratios == pytest.approx([0.4] * 5)
    assert plan.cost == pytest.approx(500.0)


def test_a_moving_optimum_is_followed_at_the_actuators_rate_and_met_half_way() -> None:
    windows = np.stack([bowl(0.3)] * 6 + [bowl(0.7)] * 6)
    plan = clairvoyant_plan(windows, GRID, 5.0, FREE)
    assert np.abs(np.diff(plan.emb_ratios)).max() <= 0.1 + 1e-9
    assert plan.emb_ratios[0] == pytest.approx(0.3)
    assert plan.emb_ratios[-1] == pytest.approx(0.7)
    assert 0.35 < plan.emb_ratios[5] < 0.55  # it sets off before the change comes
    static = min(float(sum(np.interp(ratio, GRID, window) for window in windows)) for ratio in GRID)
    assert plan.cost < static


def test_the_programme_is_as_good_as_trying_every_path() -> None:
    rng = np.random.default_rng(3)
    grid = np.array([0.1, 0.1125, 0.125, 0.1375])
    refill = Refill(pool_bytes=1_000, move_ratio_per_second=0.0125, refill_bytes_per_second=5.0, interference_ms_per_byte=0.1)
    cost = rng.random((5, 4)) * 10.0

    def price(path: tuple[int, ...]) -> float:
        total = cost[0, path[0]]
        for window, (before, after) in enumerate(itertools.pairwise(path), start=1):
            if abs(after - before) > 2:
                return np.inf
            total += cost[window, after]
            if after > before:
                rise = (after - before) * 12.5
                filling = min(1.0, rise / 5.0 / 2.0)
                total += rise * 0.1 + 0.5 * filling * max(0.0, cost[window, before] - cost[window, after])
        return float(total)

    cheapest = min(itertools.product(range(4), repeat=5), key=price)
    plan = clairvoyant_plan(cost, grid, 2.0, refill)
    assert plan.cost == pytest.approx(price(cheapest))
    assert plan.emb_ratios == pytest.approx(grid[list(cheapest)])


def test_a_refill_that_costs_more_than_it_gains_keeps_it_still() -> None:
    windows = np.stack([bowl(0.4)] * 3 + [bowl(0.5)] * 3)
    dear = FREE._replace(interference_ms_per_byte=1e6)
    assert np.ptp(clairvoyant_plan(windows, GRID, 5.0, dear).emb_ratios) == 0.0


def test_a_given_start_bounds_the_first_window() -> None:
    plan = clairvoyant_plan(np.stack([bowl(0.8)] * 4), GRID, 5.0, FREE, start_ratio=0.5)
    assert plan.emb_ratios == pytest.approx([0.6, 0.7, 0.8, 0.8])


@pytest.mark.parametrize(
    ("cost", "grid", "seconds", "what"),
    [
        (np.zeros((0, 17)), GRID, 5.0, "cost_ms"),
        (np.zeros((2, 16)), GRID, 5.0, "cost_ms"),
        (np.full((2, 17), np.nan), GRID, 5.0, "finite"),
        (np.zeros((2, 17)), GRID[::-1], 5.0, "increasing"),
        (np.zeros((2, 17)), GRID, 0.0, "window_seconds"),
    ],
)
def test_an_impossible_question_is_refused(cost: np.ndarray, grid: np.ndarray, seconds: float, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        clairvoyant_plan(cost, grid, seconds, FREE)


def test_a_schedule_is_replayed_by_the_clock() -> None:
    schedule = Schedule(np.array([10, 20]) * SECOND, np.array([0.3, 0.6]))
    times = [0, 10, 19.9, 20, 1000]
    assert [schedule.propose(observe(now_ns=int(at * SECOND))).emb_ratio for at in times] == [0.3, 0.3, 0.3, 0.6, 0.6]
    assert schedule.name == "s3"


def test_a_schedule_can_be_written_as_a_name() -> None:
    schedule = parse_schedule("0:0.5,60:0.35")
    assert schedule.propose(observe(now_ns=100 * SECOND)).emb_ratio == 0.5  # its zero, whatever the node's clock says
    assert schedule.propose(observe(now_ns=161 * SECOND)).emb_ratio == 0.35
    assert schedule.name == "schedule-0:0.5,60:0.35"


@pytest.mark.parametrize("text", ["", "0", "0:x", "5:0.5,5:0.6", "9:0.5,5:0.6", "0:1.5", "nan:0.5"])
def test_a_schedule_that_cannot_be_driven_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"schedule|starts_ns|emb_ratios"):
        parse_schedule(text)
