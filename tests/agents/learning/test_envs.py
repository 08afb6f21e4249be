"""The environments over the simulated fleet: their interface, their determinism, and that they see what a node sees."""

import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agents.learning.fleet_env import FleetVecEnv, Streams
from agents.learning.node_env import NodeEnv
from agents.learning.rewards import Reference, rewards_of
from agents.learning.streams import draw_streams
from agents.learning.teacher import unit_statistics
from tests.agents.learning import tiny

FREE = Reference(np.ones(64))  # a reference that need not be measured
Config = tiny.TrainingConfig


def fleet_env(config: Config, seed: int = 1) -> FleetVecEnv:
    streams = Streams(config, draw_streams(config.episodes, seed), dict.fromkeys(range(config.episodes.streams), FREE))
    return FleetVecEnv(config, streams, unit_statistics(len(config.feature_names)), seed)


def rollout(config: Config, steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
    env, chance = fleet_env(config), np.random.default_rng(5)
    seen, gained = [env.reset()], []
    for _ in range(steps):
        inputs, rewards, _, _ = env.step(chance.normal(size=(env.num_envs, 1)))
        seen.append(inputs)
        gained.append(rewards)
    return np.array(seen), np.array(gained)


def test_the_single_node_passes_gymnasiums_check() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space.*")  # outputs are raw: their tanh is the step
        check_env(NodeEnv(tiny.helm()), skip_render_check=True)


def test_the_papers_node_chooses_among_seven_and_sees_seven() -> None:
    env = NodeEnv(tiny.paper())
    inputs, _ = env.reset(seed=1)
    assert env.action_space.contains(np.int64(6))
    assert env.observation_space.contains(inputs)
    assert inputs.shape == (7,)


def test_two_rollouts_of_one_seed_are_equal() -> None:
    first, second = rollout(tiny.helm()), rollout(tiny.helm())
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_every_node_is_a_slot() -> None:
    env = fleet_env(tiny.with_nodes(tiny.helm(), 3))
    seen = env.reset()
    inputs, rewards, ends, infos = env.step(np.zeros((3, 1), np.float32))
    assert seen.shape == inputs.shape == (3, 20)
    assert rewards.shape == ends.shape == (3,)
    assert len(infos) == env.num_envs == 3
    assert inputs.dtype == np.float32


def test_an_episode_ends_by_the_clock_and_the_next_begins() -> None:
    config = tiny.helm()
    env = fleet_env(config)
    env.reset()
    for _ in range(config.decisions - 1):
        assert not env.step(np.zeros((2, 1)))[2].any()
    _, _, ends, infos = env.step(np.zeros((2, 1)))
    assert ends.all()
    assert all(info["TimeLimit.truncated"] and info["terminal_observation"].shape == (20,) for info in infos)
    assert not env.step(np.zeros((2, 1)))[2].any()


def test_a_node_goes_where_its_wish_sends_it() -> None:
    env = NodeEnv(tiny.helm())
    env.reset(seed=3)
    before = env._seat.seen
    for _ in range(4):
        env.step(np.array([-3.0], np.float32))
    assert env._seat.seen.present[0] < max(before.present[0], before.best[0])


def test_a_cheaper_window_is_rewarded_and_a_move_is_not() -> None:
    weights, window = tiny.helm().reward, _window(squares_ms=90.0)
    still = rewards_of(window, 0, Reference(np.array([100.0])), weights)
    moved = rewards_of(window._replace(moved=np.array([0.1])), 0, Reference(np.array([100.0])), weights)
    refused = rewards_of(window._replace(refused=2), 0, Reference(np.array([100.0])), weights)
    assert still.tolist() == pytest.approx([2.0])
    assert moved.tolist() == pytest.approx([1.95])
    assert refused.tolist() == pytest.approx([-2.0])  # two times four SLOs of 2.5 ms


def _window(**known: Any) -> Any:
    from agents.learning.episode import Window

    return Window(**{"refused": 0, "slo_ms": 2.5, "moved": np.zeros(1)} | known)


@pytest.mark.parametrize("variant", ["helm", "paper"])
def test_a_shipped_configuration_can_be_met_one_node_at_a_time(variant: str) -> None:
    from agents.learning.config import load_config

    config = load_config(variant)
    assert NodeEnv(config).observation_space.shape == (len(config.feature_names),)
