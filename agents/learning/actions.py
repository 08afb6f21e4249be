"""What a policy's outputs mean: as gymnasium's spaces, as wishes for a ratio, and back from a rule's wish."""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.artifacts.card import Action

OUTPUT_MAX = 3.0  # tanh(3) = 0.995: beyond it a step does not grow any more
_LABEL_MAX = 0.95  # a label at the step's very end would ask for an endless output

Ratios = NDArray[np.float64]


def action_space(action: Action) -> spaces.Space[Any]:
    """One raw output for a step (its tanh is taken here), a choice for increments."""
    if action.kind == "step":
        return spaces.Box(-OUTPUT_MAX, OUTPUT_MAX, (1,), np.float32)
    return spaces.Discrete(len(action.increments))


def wishes_of(action: Action, outputs: NDArray[Any], present: Ratios, best: Ratios) -> Ratios:
    """[N] ratios wanted, from [N, 1] raw outputs or [N] choices; the same arithmetic as the frozen policy's."""
    if action.kind == "increments":
        return np.asarray(present + np.array(action.increments)[np.asarray(outputs, np.int64).reshape(-1)])
    start = best if action.anchor == "landscape" else present
    return np.asarray(start + action.step_ratio_max * np.tanh(np.asarray(outputs, np.float64).reshape(-1)))


def labels_of(action: Action, wishes: Ratios, present: Ratios, best: Ratios) -> NDArray[Any]:
    """What comes nearest to a rule's wishes: [N] tanh of the output for a step, [N] choices for increments."""
    if action.kind == "increments":
        return np.asarray(np.abs((wishes - present)[:, None] - np.array(action.increments)[None, :]).argmin(axis=1))
    start = best if action.anchor == "landscape" else present
    return np.clip((wishes - start) / action.step_ratio_max, -_LABEL_MAX, _LABEL_MAX)
