"""A training configuration that runs in seconds: two smallest nodes, 12 seconds an episode, caches empty at first."""

import msgspec

from agents.learning.config import TrainingConfig, decode_config

TEXT = """
name = "tiny"
features = "{features}"
hidden = [8]
action = {action}
[episodes]
workloads = {{steady = 10.0, burst = 10.0}}
nodes = 2
seconds = 12.0
hold_seconds = 2.0
streams = 2
settled = false
hardware = [{{profile = "cpu-tiny", rate_factor = [0.8, 1.2]}}]
[imitation]
rule = "b5"
passes = 3
[ppo]
steps = 20
steps_per_slot = 5
fleets = 1
batch = 5
epochs = 2
validation_streams = 1
"""
STEP = '{kind = "step", period_seconds = 1.0, step_ratio_max = 0.1, anchor = "landscape"}'
SEVEN = '{kind = "increments", period_seconds = 5.0, increments = [-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06]}'


def helm() -> TrainingConfig:
    return decode_config(TEXT.format(features="helm", action=STEP), "tiny")


def paper() -> TrainingConfig:
    return decode_config(TEXT.format(features="paper", action=SEVEN), "tiny")


def with_nodes(config: TrainingConfig, nodes: int) -> TrainingConfig:
    return msgspec.structs.replace(config, episodes=msgspec.structs.replace(config.episodes, nodes=nodes))
