"""What a student learns from: a rule's words about what it saw, or the prices of what could have been done."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.registry import make_controller
from agents.learning.actions import labels_of
from agents.learning.config import TrainingConfig
from agents.learning.episode import Episode, Window
from agents.learning.rewards import Reference, reference_of
from agents.learning.streams import TrainingStream
from agents.wire.messages import GuardRails


class Prices(NamedTuple):
    """What wishes would have cost, for K decisions."""

    present: NDArray[np.float64]  # [K] granted ratios
    best: NDArray[np.float64]  # [K] best splits of the value curves
    excess: NDArray[np.float32]  # [K, G] at the ratios of `clairvoyant.PRICED`, over the best, in mean costs of the stream


class Lesson(NamedTuple):
    """One stream, K decisions of its nodes."""

    reference: Reference
    raw: NDArray[np.float64]  # [K, F] features, NaN where missing
    told: NDArray[np.float64] | Prices  # [K] a rule's labels (`labels_of`), or prices


def teach(config: TrainingConfig, stream: TrainingStream) -> Lesson:
    """Let the rule serve one stream, every node with its own."""
    names = len(config.feature_names)
    episode = Episode(config, stream, unit_statistics(names))
    rules = [make_controller(config.imitation.rule, GuardRails()) for _ in range(stream.scenario.nodes)]
    windows: list[Window] = []
    raw, labels = [], []
    while not episode.ended:
        seen = episode.see()
        wishes = np.array([rule.propose(observation).emb_ratio for rule, observation in zip(rules, seen.observations, strict=True)])
        raw.append(seen.raw)
        labels.append(labels_of(config.action, wishes, seen.present, seen.best))
        windows.append(episode.step(wishes))
    return Lesson(reference_of(windows, config.reward), np.concatenate(raw), np.concatenate(labels).astype(np.float64))


def unit_statistics(features: int) -> NDArray[np.float32]:
    """Means of 0 and scales of 1: features as they are, but for the cut."""
    return np.concatenate([np.zeros(features, np.float32), np.ones(features, np.float32)])


# What a node shows of its own moves, which a fleet held at a ratio never shows: mean and scale as seen where nodes move.
DEEDS = {"since_move_log": (3.5, 2.0), "backlog_ratio": (0.0, 0.05)}


def statistics_of(lessons: list[Lesson], names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[F] means and scales over all lessons, but for `DEEDS`; a feature that never moved, or was never a number, gets scale 1."""
    raw = np.concatenate([lesson.raw for lesson in lessons])
    known = np.isfinite(raw)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, raw, 0.0).sum(axis=0) / count
    deviation = np.sqrt(np.where(known, (raw - mean) ** 2, 0.0).sum(axis=0) / count)
    scale = np.where(deviation > 1e-3, deviation, 1.0)
    for column, name in enumerate(names):
        mean[column], scale[column] = DEEDS.get(name, (mean[column], scale[column]))
    return mean.astype(np.float32), scale.astype(np.float32)


def normalised(raw: NDArray[np.float64], mean: NDArray[np.float32], scale: NDArray[np.float32], most: float) -> NDArray[np.float32]:
    """[K, F] as the policy will see them; a missing signal counts as its mean."""
    return np.nan_to_num(np.clip((raw - mean) / scale, -most, most)).astype(np.float32)
