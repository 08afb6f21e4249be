"""A teacher that knows the future: what every ratio would have cost, found by serving the same requests at several fixed ones.

For every decision a spline goes through the logarithms of what the next 30 s cost at the fixed ratios, and what a ratio costs
more than the best one is told to the student, in the stream's mean cost. The student sees the nodes of all these runs but
not the future: it learns what costs least on average over all that may follow what can be seen. That is why it is told
prices and not the best ratio: the mean of the best ratios insures against nothing.

The spline meets every cost that was found. One cubic fitted to all of them gave way to the ends, where costs rise a
hundredfold, and put the best ratio 0.02 too high: in the steepest valleys that was a tenth of P99.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline  # type: ignore[import-untyped]

from agents.learning.config import TrainingConfig
from agents.learning.episode import Episode, Seen, Window
from agents.learning.rewards import cost_ms, reference_of
from agents.learning.streams import TrainingStream
from agents.learning.teacher import Lesson, Prices, unit_statistics
from agents.sim.processes import forget_fleets

RATIOS = (0.15, 0.25, 0.35, 0.4, 0.45, 0.55, 0.75)  # closest where the best ones lie
HELD_RATIO = 0.45  # of the run that later rewards are measured against
PRICED = np.linspace(0.15, 0.75, 49)  # the spline says nothing further out
_AHEAD_SECONDS = 30.0  # as the optimum of a moment is defined elsewhere; moving and refilling takes about as long
_EXCESS_MAX = 4.0  # usual costs: how far a ratio drowns is chance, that it does is not; at 1, bursts were insured too little


class HeldRun(NamedTuple):
    """One stream at one fixed ratio."""

    seen: list[Seen]  # [decisions]
    windows: list[Window]  # [decisions]


def teach_clairvoyant(config: TrainingConfig, stream: TrainingStream) -> Lesson:
    """Serve the stream at every fixed ratio, and say what each node's wishes would have cost."""
    return lesson_of(config, [hold(config, stream._replace(start_ratio=ratio)) for ratio in RATIOS])


def hold(config: TrainingConfig, stream: TrainingStream) -> HeldRun:
    """Serve the stream where it starts."""
    forget_fleets()
    episode = Episode(config, stream, unit_statistics(len(config.feature_names)))
    run = HeldRun([], [])
    while not episode.ended:
        run.seen.append(episode.see()._replace(observations=[]))  # their curves would fill the memory
        run.windows.append(episode.step(np.full(stream.scenario.nodes, np.nan)))
    return run


def lesson_of(config: TrainingConfig, runs: list[HeldRun]) -> Lesson:
    """Prices from the runs at `RATIOS`, in their order, for as many nodes of each as an episode has: a large fleet weighs no more."""
    reference = reference_of(runs[RATIOS.index(HELD_RATIO)].windows, config.reward)
    costs = np.array([[cost_ms(window, config.reward) for window in run.windows] for run in runs])
    ahead = max(1, round(_AHEAD_SECONDS / config.action.period_seconds))
    usual = float(costs.min(axis=0).mean())
    excess = np.array([excess_of(costs[:, at : at + ahead].mean(axis=1), usual) for at in range(costs.shape[1])])
    seen = [one for run in runs for one in run.seen]
    nodes = min(config.episodes.nodes, seen[0].present.shape[0])
    prices = Prices(
        present=np.concatenate([one.present[:nodes] for one in seen]),
        best=np.concatenate([one.best[:nodes] for one in seen]),
        excess=np.tile(np.repeat(excess, nodes, axis=0), (len(runs), 1)).astype(np.float32),
    )
    return Lesson(reference, np.concatenate([one.raw[:nodes] for one in seen]), prices)


def excess_of(costs: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    """[G] what every ratio of `PRICED` costs more than the best, in `usual` costs, from the costs at `RATIOS`."""
    between: NDArray[np.float64] = np.exp(CubicSpline(RATIOS, np.log(np.maximum(costs, 1e-9)), bc_type="natural")(PRICED))
    excess: NDArray[np.float64] = np.minimum((between - between.min()) / max(usual, 1e-9), _EXCESS_MAX)
    return excess
