"""A teacher that knows the future: where the ratio should be, found by serving the same requests at several fixed ratios.

For every decision the costs of the next 30 s at the fixed ratios are fitted by a cubic. A node outside the ratios within
2 % of its minimum should go to the minimum; a node inside should stay, because what is left is less than a move costs.
The student sees the nodes of all these runs, but not the future: it learns what is best on average for what can be seen.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.learning.actions import labels_of
from agents.learning.config import TrainingConfig
from agents.learning.episode import Episode, Seen, Window
from agents.learning.rewards import cost_ms, reference_of
from agents.learning.streams import TrainingStream
from agents.learning.teacher import Lesson, unit_statistics

RATIOS = (0.2, 0.35, 0.5, 0.65, 0.8)
HELD_RATIO = 0.5  # of the run that later rewards are measured against
_AHEAD_SECONDS = 30.0  # as the optimum of a moment is defined elsewhere; moving and refilling takes about as long
_GRID = np.linspace(RATIOS[0] - 0.05, RATIOS[-1] + 0.05, 71)  # the cubic says nothing further out
_TOLERANCE_RATIO = 0.02
_DEGREE = 3


class HeldRun(NamedTuple):
    """One stream at one fixed ratio."""

    seen: list[Seen]  # [decisions]
    windows: list[Window]  # [decisions]


def teach_clairvoyant(config: TrainingConfig, stream: TrainingStream) -> Lesson:
    """Serve the stream at every fixed ratio, and say what each node should have wished."""
    return lesson_of(config, [hold(config, stream._replace(start_ratio=ratio)) for ratio in RATIOS])


def hold(config: TrainingConfig, stream: TrainingStream) -> HeldRun:
    """Serve the stream where it starts."""
    episode = Episode(config, stream, unit_statistics(len(config.feature_names)))
    run = HeldRun([], [])
    while not episode.ended:
        run.seen.append(episode.see()._replace(observations=[]))  # their curves would fill the memory
        run.windows.append(episode.step(np.full(stream.scenario.nodes, np.nan)))
    return run


def lesson_of(config: TrainingConfig, runs: list[HeldRun]) -> Lesson:
    """Labels from the runs at `RATIOS`, in their order."""
    reference = reference_of(runs[RATIOS.index(HELD_RATIO)].windows, config.reward)
    costs = np.array([[cost_ms(window, reference.request_ms, config.reward) for window in run.windows] for run in runs])
    ahead = max(1, round(_AHEAD_SECONDS / config.action.period_seconds))
    raw, labels = [], []
    for run in runs:
        for index, seen in enumerate(run.seen):
            wishes = best_wishes(costs[:, index : index + ahead].mean(axis=1), seen.present)
            raw.append(seen.raw)
            labels.append(labels_of(config.action, wishes, seen.present, seen.best))
    return Lesson(reference, np.concatenate(raw), np.concatenate(labels).astype(np.float64))


def best_wishes(costs: NDArray[np.float64], present: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] ratios for nodes at `present`, from the costs at `RATIOS`."""
    fitted = np.polyval(np.polyfit(RATIOS, costs, _DEGREE), _GRID)
    least = fitted.min()
    near = np.interp(present, _GRID, fitted) <= least + _TOLERANCE_RATIO * abs(least)
    return np.where(near, present, _GRID[fitted.argmin()])
