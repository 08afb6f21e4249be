"""A fleet of one node as a plain gymnasium environment: for trying things, and for other trainers than ours."""

from typing import Any, cast

import gymnasium
import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.learning.actions import action_space
from agents.learning.config import TrainingConfig
from agents.learning.fleet_env import Seat, Streams, observation_space
from agents.learning.streams import draw_streams
from agents.learning.teacher import unit_statistics


class NodeEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """Observation: normalised features. Action: raw output of a step, or the number of an increment.

    `statistics` are the features' means and reciprocal scales, [2 F]; without them features come as they are.
    """

    metadata = {"render_modes": []}

    def __init__(self, config: TrainingConfig, statistics: NDArray[np.float32] | None = None, seed: int = 0) -> None:
        config = msgspec.structs.replace(config, episodes=config.episodes.of_size(1))
        self.observation_space = cast("spaces.Space[NDArray[np.float32]]", observation_space(config))
        self.action_space = action_space(config.action)
        self._streams = Streams(config, draw_streams(config.episodes, seed))
        given = unit_statistics(len(config.feature_names)) if statistics is None else statistics
        self._seat = Seat(config, self._streams, given)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A stream drawn from the run's; the same seed draws the same one."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(len(self._streams.all)))
        return self._seat.begin(number)[0], {"workload": self._streams.all[number].scenario.workload}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One period of simulated time."""
        inputs, rewards, ended = self._seat.step(np.asarray(action).reshape(1, -1))
        return inputs[0], float(rewards[0]), False, ended, {}
