"""Simulated fleets as one stable-baselines3 `VecEnv`: every node of every fleet is a slot, all share one policy.

Fleets of different streams are stepped in turn inside one process: a step of one period of simulated seconds gives
fleets x nodes transitions. Episodes end by the clock, never by failure, so their ends are truncations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.controller.features import DEVIATIONS_MAX
from agents.learning.actions import action_space, wishes_of
from agents.learning.clairvoyant import HELD_RATIO, hold
from agents.learning.config import TrainingConfig
from agents.learning.episode import Episode, Seen
from agents.learning.rewards import Reference, reference_of, rewards_of
from agents.learning.streams import TrainingStream
from agents.learning.teacher import teach
from agents.sim.processes import forget_fleets


class Streams:
    """The run's streams and what each costs in its reference run; measured when first needed."""

    def __init__(self, config: TrainingConfig, streams: list[TrainingStream], references: dict[int, Reference] | None = None) -> None:
        self._config = config
        self.all = streams
        self._references = dict(references or {})

    def reference(self, number: int) -> Reference:
        """Of stream `number`."""
        if number not in self._references:
            self._references[number] = self._measured(self.all[number])
        return self._references[number]

    def _measured(self, stream: TrainingStream) -> Reference:
        if self._config.imitation.rule != "clairvoyant":
            return teach(self._config, stream).reference
        return reference_of(hold(self._config, stream._replace(start_ratio=HELD_RATIO)).windows, self._config.reward)


def observation_space(config: TrainingConfig) -> spaces.Box:
    """Normalised features, cut as in the product."""
    return spaces.Box(-DEVIATIONS_MAX, DEVIATIONS_MAX, (len(config.feature_names),), np.float32)


class Seat:
    """One fleet and the stream it serves."""

    def __init__(self, config: TrainingConfig, streams: Streams, statistics: NDArray[np.float32]) -> None:
        self._config, self._streams, self._statistics = config, streams, statistics
        self.seen: Seen
        self._episode: Episode
        self._number = 0

    def begin(self, number: int) -> NDArray[np.float32]:
        """An episode of stream `number`: [N, F] inputs."""
        self._number = number
        forget_fleets()
        self._episode = Episode(self._config, self._streams.all[number], self._statistics)
        self.seen = self._episode.see()
        return self.seen.inputs

    def step(self, outputs: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64], bool]:
        """One period: [N, F] inputs, [N] rewards, and whether the episode has ended."""
        wishes = wishes_of(self._config.action, outputs, self.seen.present, self.seen.best)
        index = self._episode.windows
        window = self._episode.step(wishes)
        self.seen = self._episode.see()
        rewards = rewards_of(window, index, self._streams.reference(self._number), self._config.reward)
        return self.seen.inputs, rewards, self._episode.ended


class FleetVecEnv(VecEnv):
    """Slots are nodes: fleet 0's first. `statistics` are the features' means and reciprocal scales, [2 F]."""

    def __init__(self, config: TrainingConfig, streams: Streams, statistics: NDArray[np.float32], seed: int) -> None:
        self._nodes = config.episodes.nodes
        self._seats = [Seat(config, streams, statistics) for _ in range(config.ppo.fleets)]
        self._chance = np.random.default_rng([seed, 1])
        self._streams = streams
        self._deck: list[int] = []
        self._outputs: NDArray[Any] = np.zeros(0)
        self.render_mode = None
        super().__init__(len(self._seats) * self._nodes, observation_space(config), action_space(config.action))

    def reset(self) -> NDArray[np.float32]:
        """Every fleet begins an episode: [slots, F]."""
        return np.concatenate([seat.begin(self._next_stream()) for seat in self._seats])

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep [slots, ...] actions for `step_wait`."""
        self._outputs = np.asarray(actions)

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """One period of every fleet; an ended episode is followed by the next at once."""
        inputs, rewards, ends, infos = [], [], [], []
        for number, seat in enumerate(self._seats):
            seen, gained, ended = seat.step(self._outputs[number * self._nodes : (number + 1) * self._nodes])
            told: list[dict[str, Any]] = [{"TimeLimit.truncated": ended} for _ in range(self._nodes)]
            if ended:
                told = [known | {"terminal_observation": last} for known, last in zip(told, seen, strict=True)]
                seen = seat.begin(self._next_stream())
            inputs.append(seen)
            rewards.append(gained)
            ends.append(np.full(self._nodes, ended))
            infos.extend(told)
        return np.concatenate(inputs), np.concatenate(rewards).astype(np.float32), np.concatenate(ends), infos

    def _next_stream(self) -> int:
        """All streams in a shuffled order, then again in another."""
        if not self._deck:
            self._deck = self._chance.permutation(len(self._streams.all)).tolist()
        return self._deck.pop()

    # --- what the interface asks for beside ------------------------------------------------

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same for every slot."""
        return [getattr(self, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Slots have no attributes of their own."""
        raise AttributeError("a slot is a node of a shared fleet: it has none of its own")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Slots have no methods of their own."""
        raise AttributeError("a slot is a node of a shared fleet: it has none of its own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: Any) -> Sequence[int]:
        if indices is None:
            return range(self.num_envs)
        return [indices] if isinstance(indices, int) else list(indices)
