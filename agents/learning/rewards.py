"""What a step was worth: the fleet's cost beside that of the same stream's same window in a reference run.

    cost     = device milliseconds of the window + 10 mean requests per request that missed the SLO
    reward_i = scale * (reference cost - cost) / mean reference cost - move_weight * |change of node i's ratio|

The reference is the teacher's: every stream is served once at a fixed ratio of 0.5, or by the rule that is imitated, and
the windows are kept. The same requests lie in both, so what is left of the difference is what the policy did; without the
pairing the mix of requests in a window is worth ten times more than any decision. Cost is the whole fleet's, because a
node that sends its users away saves nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.learning.config import Reward
from agents.learning.episode import Window


class Reference(NamedTuple):
    """A stream in its reference run."""

    cost_ms: NDArray[np.float64]  # [windows]
    request_ms: float  # mean device time of a request


def reference_of(windows: list[Window], weights: Reward) -> Reference:
    """From the run's windows."""
    request_ms = sum(window.service_ms for window in windows) / max(1, sum(window.requests for window in windows))
    return Reference(np.array([cost_ms(window, request_ms, weights) for window in windows]), request_ms)


def cost_ms(window: Window, request_ms: float, weights: Reward) -> float:
    """Device time of a window, misses of the SLO included at their price."""
    return window.service_ms + weights.violation_requests * request_ms * window.violations


def rewards_of(window: Window, index: int, reference: Reference, weights: Reward) -> NDArray[np.float64]:
    """[N] one reward per node for window number `index` of its stream."""
    saved = reference.cost_ms[index] - cost_ms(window, reference.request_ms, weights)
    gain = weights.scale * saved / max(float(reference.cost_ms.mean()), 1e-9)
    return np.asarray(np.clip(gain, -weights.most, weights.most) - weights.move_weight * window.moved)
