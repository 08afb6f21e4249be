"""One training run: lessons from a rule, warm start, PPO, export. The same configuration and seed give the same bytes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents.controller.features import DEVIATIONS_MAX
from agents.learning.clairvoyant import teach_clairvoyant
from agents.learning.config import Ppo, TrainingConfig
from agents.learning.export import actor_layers
from agents.learning.fleet_env import FleetVecEnv, Seat, Streams
from agents.learning.imitate import Loss, imitate, label_loss, price_loss
from agents.learning.streams import TrainingStream, draw_streams
from agents.learning.teacher import Lesson, Prices, normalised, statistics_of, teach
from agents.sim.processes import simulating_processes

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


def train(
    config: TrainingConfig, seed: int, say: Say = lambda _: None, cancelled: Callable[[], bool] = lambda: False, processes: int = 1
) -> Trained:
    """Run to the configured number of steps; a cancelled run returns what it has. Lessons are taught in `processes` at once."""
    torch.set_num_threads(1)  # networks this small only lose by sharing
    streams = draw_streams(config.episodes, seed)
    lessons = _lessons(config, streams, processes, say, cancelled)
    mean, scale = statistics_of(lessons, config.feature_names)
    statistics = np.concatenate([mean, np.float32(1.0) / scale])
    model = new_model(config, FleetVecEnv(config, _slots(config, streams, lessons), statistics, seed), seed)
    loss = _warm_start(model, config, lessons, mean, scale, seed)
    say(f"warm start: loss {loss:.4f} after {config.imitation.passes} passes over {sum(map(_decisions, lessons))} decisions")
    warm = [parameter.detach().clone() for parameter in _actor(model)]
    curve = improve(model, config, say, cancelled)
    validation = _validated(model, warm, config, statistics, seed, say) if curve and not cancelled() else {}
    training = {
        "method": f"imitation of {config.imitation.rule}, then PPO" if config.imitation.passes else "PPO",
        "steps": curve[-1].steps if curve else 0,
        "imitation_decisions": sum(map(_decisions, lessons)),
        "imitation_loss": round(loss, 6) if np.isfinite(loss) else None,
        "reward_first": curve[0].reward_mean if curve else None,
        "reward_last": curve[-1].reward_mean if curve else None,
    } | validation
    return Trained(model, mean, scale, curve, training)


def _slots(config: TrainingConfig, streams: list[TrainingStream], lessons: list[Lesson]) -> Streams:
    """The streams of the size that PPO's slots have, with what their lessons found out about them."""
    sized = [number for number, stream in enumerate(streams) if stream.scenario.nodes == config.episodes.nodes]
    references = {place: lessons[number].reference for place, number in enumerate(sized) if number < len(lessons)}
    return Streams(config, [streams[number] for number in sized], references)


def _actor(model: PPO) -> list[torch.nn.Parameter]:
    return [parameter for layer in actor_layers(model) for parameter in layer.parameters()]


def _validated(
    model: PPO, warm: list[torch.Tensor], config: TrainingConfig, statistics: NDArray[np.float32], seed: int, say: Say
) -> dict[str, Any]:
    """Mean reward on streams that neither teacher nor PPO saw, after PPO and before it; the better actor stays in the model."""
    episodes = config.episodes
    more = msgspec.structs.replace(episodes, streams=episodes.streams + config.ppo.validation_streams)
    streams = Streams(config, draw_streams(more, seed)[episodes.streams :])
    tuned = [parameter.detach().clone() for parameter in _actor(model)]
    after = _mean_reward(model, config, streams, statistics)
    _restore(model, warm)
    before = _mean_reward(model, config, streams, statistics)
    if after > before:
        _restore(model, tuned)
    kept = "PPO" if after > before else "warm start"
    say(f"on {len(streams.all)} unseen streams: mean reward {before:+.4f} before PPO, {after:+.4f} after; kept: {kept}")
    return {"validation_reward_before": round(before, 6), "validation_reward_after": round(after, 6), "kept": kept}


def _restore(model: PPO, kept: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(_actor(model), kept, strict=True):
            parameter.copy_(value)


def _mean_reward(model: PPO, config: TrainingConfig, streams: Streams, statistics: NDArray[np.float32]) -> float:
    """Of every stream served once, without exploration."""
    rewards = []
    for number in range(len(streams.all)):
        seat, ended = Seat(config, streams, statistics), False
        inputs = seat.begin(number)
        while not ended:
            outputs, _ = model.predict(inputs, deterministic=True)
            inputs, gained, ended = seat.step(outputs)
            rewards.append(gained)
    return float(np.concatenate(rewards).mean())


def _teach(config: TrainingConfig, stream: TrainingStream) -> Lesson:
    return teach_clairvoyant(config, stream) if config.imitation.rule == "clairvoyant" else teach(config, stream)


def _decisions(lesson: Lesson) -> int:
    return int(lesson.raw.shape[0])


def _lessons(
    config: TrainingConfig, streams: list[TrainingStream], processes: int, say: Say, cancelled: Callable[[], bool]
) -> list[Lesson]:
    lessons: list[Lesson] = []
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        taught = _taught(config, streams, processes, stack)
        for stream, lesson in zip(streams, taught, strict=True):
            lessons.append(lesson)
            left = (time.monotonic() - began) / len(lessons) * (len(streams) - len(lessons))
            say(f"lesson {len(lessons)} of {len(streams)}: {stream.scenario.workload}, {left:.0f} s left of the lessons")
            if cancelled():
                break
    return lessons


def _taught(config: TrainingConfig, streams: list[TrainingStream], processes: int, stack: contextlib.ExitStack) -> Iterator[Lesson]:
    """Lessons in the streams' order, whoever teaches them."""
    if processes < 2:
        return map(partial(_teach, config), streams)
    pool = stack.enter_context(simulating_processes(processes))
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)  # of a cancelled run, those that have not begun
    return pool.map(partial(_teach, config), streams)


def new_model(config: TrainingConfig, env: FleetVecEnv, seed: int) -> PPO:
    """A fresh actor and critic.

    A step's exploration is a random function of what is seen, drawn anew each rollout: a node then tries one leaning for a
    whole episode. White noise would walk it to and fro, and every move empties what it shrinks.
    """
    ppo = config.ppo
    model = PPO(
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
    model.set_logger(Logger(folder=None, output_formats=[]))  # the curve is ours; its own logger leaves a temporary folder a run
    return model


def _warm_start(
    model: PPO, config: TrainingConfig, lessons: list[Lesson], mean: NDArray[np.float32], scale: NDArray[np.float32], seed: int
) -> float:
    raw = np.concatenate([lesson.raw for lesson in lessons])
    inputs = torch.from_numpy(normalised(raw, mean, scale, DEVIATIONS_MAX))
    return imitate(model, inputs, _loss(config, lessons), config.imitation, seed, features=config.feature_names)


def _loss(config: TrainingConfig, lessons: list[Lesson]) -> Loss:
    prices = [lesson.told for lesson in lessons if isinstance(lesson.told, Prices)]
    if prices:
        joined = Prices(*(np.concatenate(part) for part in zip(*prices, strict=True)))
        return price_loss(config.action, joined, config.imitation.move_weight)
    labels = np.concatenate([lesson.told for lesson in lessons if not isinstance(lesson.told, Prices)])
    return label_loss(config.action, torch.from_numpy(labels.astype(np.float32)))


def improve(model: PPO, config: TrainingConfig, say: Say, cancelled: Callable[[], bool], note: Note = lambda _: None) -> list[CurvePoint]:
    """PPO for the configured steps, or until cancelled; `note` hears every point of the curve as it comes."""
    if config.ppo.steps == 0:
        return []
    progress = _Progress(config.ppo, say, cancelled, note)
    model.learn(total_timesteps=config.ppo.steps, callback=progress)
    return progress.curve


class _Progress(BaseCallback):
    """Tells how far training is, keeps the learning curve, and stops when cancelled.

    At first only the critic learns: advantages from one that knows nothing would undo the warm start.
    """

    def __init__(self, ppo: Ppo, say: Say, cancelled: Callable[[], bool], note: Note) -> None:
        super().__init__()
        self.curve: list[CurvePoint] = []
        self._steps, self._say, self._cancelled, self._note = ppo.steps, say, cancelled, note
        self._critic_steps = ppo.critic_share * ppo.steps
        self._began = time.monotonic()

    def _on_rollout_start(self) -> None:
        learning = self.num_timesteps >= self._critic_steps
        for layer in actor_layers(self.model):  # type: ignore[arg-type]
            layer.requires_grad_(learning)

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
