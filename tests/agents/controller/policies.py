"""Small policies for tests: random weights, or one that wants a given thing."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from agents.artifacts.card import Action, Card
from agents.artifacts.policy_file import PolicyFile, read_policy, write_policy
from agents.controller.features import HELM
from agents.controller.frozen import FrozenPolicy, freeze

STEP = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1)
SEVEN = Action(kind="increments", period_seconds=5.0, increments=[-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06])


def card(features: Sequence[str] = HELM, hidden: Sequence[int] = (8, 8), action: Action = STEP, **changes: Any) -> Card:
    known = {"mean": [0.5] * len(features), "scale": [0.5] * len(features), "seed": 0, "git_revision": "test", "name": "random"} | changes
    return Card(format_version=1, features=list(features), hidden=list(hidden), action=action, **known)


def random_file(described: Card, seed: int = 0) -> PolicyFile:
    widths = [len(described.features), *described.hidden, described.outputs]
    chance, arrays = np.random.default_rng(seed), {}
    for layer, (inputs, units) in enumerate(pairwise(widths)):
        arrays[f"layer{layer}.weight"] = (chance.normal(size=(units, inputs)) / np.sqrt(inputs)).astype(np.float32)
        arrays[f"layer{layer}.bias"] = (0.1 * chance.normal(size=units)).astype(np.float32)
    return write_policy(arrays, described)


def random_policy(described: Card | None = None, seed: int = 0) -> FrozenPolicy:
    file = random_file(described or card(), seed)
    return freeze(read_policy(file.weights, file.card))


def constant_policy(outputs: Sequence[float], action: Action = STEP, features: Sequence[str] = HELM) -> FrozenPolicy:
    """A policy whose outputs are these, whatever it sees."""
    described = card(features, (2,), action, name="constant")
    arrays = {
        "layer0.weight": np.zeros((2, len(features)), np.float32),
        "layer0.bias": np.zeros(2, np.float32),
        "layer1.weight": np.zeros((len(outputs), 2), np.float32),
        "layer1.bias": np.array(outputs, np.float32),
    }
    file = write_policy(arrays, described)
    return freeze(read_policy(file.weights, file.card))
