"""What a step was worth: the fleet's cost beside that of the same stream's same window in a reference run.

    cost     = sum of latency^2 / SLO over the window's requests; a refused one counts as twice the SLO
    reward_i = scale * (reference cost - cost) / mean reference cost - move_weight * |change of node i's ratio|

The reference is the teacher's: every stream is served once at a fixed ratio of 0.5, or by the rule that is imitated, and
the windows are kept. The same requests lie in both, so what is left of the difference is what the policy did; without the
pairing the mix of requests in a window is worth ten times more than any decision. Cost is the whole fleet's, because a
node that sends its users away saves nothing.

The square is for the tail: it prices a calm minute's milliseconds low and an onset's high, so that being insured against
the one is worth a little of the other. Service time alone would follow the calm, and a price on misses of the SLO says
nothing while none is missed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.learning.config import Reward
from agents.learning.episode import Window


class Reference(NamedTuple):
    """A stream in its reference run."""

    cost_ms: NDArray[np.float64]  # [windows]


def reference_of(windows: list[Window], weights: Reward) -> Reference:
    """From the run's windows."""
    return Reference(np.array([cost_ms(window, weights) for window in windows]))


def cost_ms(window: Window, weights: Reward) -> float:
    """Of a window, in milliseconds at the SLO."""
    return window.squares_ms + weights.refused_slos**2 * window.slo_ms * window.refused


def rewards_of(window: Window, index: int, reference: Reference, weights: Reward) -> NDArray[np.float64]:
    """[N] one reward per node for window number `index` of its stream."""
    saved = reference.cost_ms[index] - cost_ms(window, weights)
    gain = weights.scale * saved / max(float(reference.cost_ms.mean()), 1e-9)
    return np.asarray(np.clip(gain, -weights.most, weights.most) - weights.move_weight * window.moved)
