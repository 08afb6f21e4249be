"""One training run: lessons from a rule, warm start, PPO, export. The same configuration and seed give the same bytes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents.controller.features import DEVIATIONS_MAX
from agents.learning.clairvoyant import teach_clairvoyant
from agents.learning.config import TrainingConfig
from agents.learning.fleet_env import FleetVecEnv, Streams
from agents.learning.imitate import imitate
from agents.learning.streams import TrainingStream, draw_streams
from agents.learning.teacher import Lesson, normalised, statistics_of, teach

Say = Callable[[str], None]


class CurvePoint(NamedTuple):
    """One update of the learning curve."""

    steps: int
    reward_mean: float  # of the rollout, with exploration
    seconds: float  # since training began; not part of what a seed fixes
    loss: float | None = None  # of the update before this rollout; the first has none


Note = Callable[[CurvePoint], None]


class Trained(NamedTuple):
    """What a run leaves."""

    model: PPO
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    curve: list[CurvePoint]
    training: dict[str, Any]  # for the card


def train(config: TrainingConfig, seed: int, say: Say = lambda _: None, cancelled: Callable[[], bool] = lambda: False) -> Trained:
    """Run to the configured number of steps; a cancelled run returns what it has."""
    torch.set_num_threads(1)  # networks this small only lose by sharing
    streams = draw_streams(config.episodes, seed)
    lessons = _lessons(config, streams, say, cancelled)
    mean, scale = statistics_of(lessons)
    references = {number: lesson.reference for number, lesson in enumerate(lessons)}
    statistics = np.concatenate([mean, np.float32(1.0) / scale])
    model = new_model(config, FleetVecEnv(config, Streams(config, streams, references), statistics, seed), seed)
    loss = _warm_start(model, config, lessons, mean, scale, seed)
    say(f"warm start: loss {loss:.4f} after {config.imitation.passes} passes over {sum(map(_decisions, lessons))} decisions")
    curve = improve(model, config, say, cancelled)
    training = {
        "method": f"imitation of {config.imitation.rule}, then PPO" if config.imitation.passes else "PPO",
        "steps": curve[-1].steps if curve else 0,
        "imitation_decisions": sum(map(_decisions, lessons)),
        "imitation_loss": round(loss, 6) if np.isfinite(loss) else None,
        "reward_first": curve[0].reward_mean if curve else None,
        "reward_last": curve[-1].reward_mean if curve else None,
    }
    return Trained(model, mean, scale, curve, training)


def _teach(config: TrainingConfig, stream: TrainingStream) -> Lesson:
    return teach_clairvoyant(config, stream) if config.imitation.rule == "clairvoyant" else teach(config, stream)


def _decisions(lesson: Lesson) -> int:
    return int(lesson.labels.shape[0])


def _lessons(config: TrainingConfig, streams: list[TrainingStream], say: Say, cancelled: Callable[[], bool]) -> list[Lesson]:
    lessons: list[Lesson] = []
    began = time.monotonic()
    for stream in streams:
        if lessons and cancelled():
            break
        lessons.append(_teach(config, stream))
        left = (time.monotonic() - began) / len(lessons) * (len(streams) - len(lessons))
        say(f"lesson {len(lessons)} of {len(streams)}: {stream.scenario.workload}, {left:.0f} s left of the lessons")
    return lessons


def new_model(config: TrainingConfig, env: FleetVecEnv, seed: int) -> PPO:
    """A fresh actor and critic.

    A step's exploration is a random function of what is seen, drawn anew each rollout: a node then tries one leaning for a
    whole episode. White noise would walk it to and fro, and every move empties what it shrinks.
    """
    ppo = config.ppo
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=ppo.learning_rate,
        n_steps=ppo.steps_per_slot,
        batch_size=ppo.batch,
        n_epochs=ppo.epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip_range,
        ent_coef=ppo.entropy,
        use_sde=config.action.kind == "step",
        policy_kwargs={
            "net_arch": {"pi": config.hidden, "vf": config.hidden},
            "activation_fn": torch.nn.Tanh,
            "log_std_init": ppo.noise_log,
        },
        seed=seed,
        device="cpu",
    )


def _warm_start(
    model: PPO, config: TrainingConfig, lessons: list[Lesson], mean: NDArray[np.float32], scale: NDArray[np.float32], seed: int
) -> float:
    raw = np.concatenate([lesson.raw for lesson in lessons])
    inputs = torch.from_numpy(normalised(raw, mean, scale, DEVIATIONS_MAX))
    labels = torch.from_numpy(np.concatenate([lesson.labels for lesson in lessons]).astype(np.float32))
    return imitate(model, inputs, labels, config.imitation, seed, features=config.feature_names, steps=config.action.kind == "step")


def improve(model: PPO, config: TrainingConfig, say: Say, cancelled: Callable[[], bool], note: Note = lambda _: None) -> list[CurvePoint]:
    """PPO for the configured steps, or until cancelled; `note` hears every point of the curve as it comes."""
    if config.ppo.steps == 0:
        return []
    progress = _Progress(config.ppo.steps, say, cancelled, note)
    model.learn(total_timesteps=config.ppo.steps, callback=progress)
    return progress.curve


class _Progress(BaseCallback):
    """Tells how far training is, keeps the learning curve, and stops when cancelled."""

    def __init__(self, steps: int, say: Say, cancelled: Callable[[], bool], note: Note) -> None:
        super().__init__()
        self.curve: list[CurvePoint] = []
        self._steps, self._say, self._cancelled, self._note = steps, say, cancelled, note
        self._began = time.monotonic()

    def _on_step(self) -> bool:
        return not self._cancelled()

    def _on_rollout_end(self) -> None:
        rewards = self.model.rollout_buffer.rewards  # type: ignore[attr-defined]
        spent = time.monotonic() - self._began
        loss = self.model.logger.name_to_value.get("train/loss")
        told = None if loss is None else round(float(loss), 6)
        self.curve.append(CurvePoint(self.num_timesteps, round(float(rewards.mean()), 6), round(spent, 1), told))
        self._note(self.curve[-1])
        left = spent / self.num_timesteps * max(0, self._steps - self.num_timesteps)
        self._say(f"{self.num_timesteps} of {self._steps} steps, mean reward {rewards.mean():+.4f}, {left:.0f} s left")
