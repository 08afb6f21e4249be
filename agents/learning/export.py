"""A trained actor as a policy file: the layers of the network and the card that belongs to them."""

from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO

from agents.artifacts.card import FORMAT_VERSION, Card
from agents.artifacts.policy_file import PolicyFile, write_policy
from agents.learning.config import TrainingConfig
from agents.workloads.fleet_workload import VERSION

DIGITS = 9  # of a float32 in a card: enough to come back as the same number


def export_policy(
    model: PPO,
    config: TrainingConfig,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    *,
    seed: int,
    git_revision: str,
    training: dict[str, Any],
    evaluation: dict[str, Any],
) -> PolicyFile:
    """Weights and card of the model's actor."""
    card = Card(
        format_version=FORMAT_VERSION,
        name=config.name,
        features=list(config.feature_names),
        mean=[round(float(value), DIGITS) for value in mean],
        scale=[round(float(value), DIGITS) for value in scale],
        hidden=config.hidden,
        action=config.action,
        seed=seed,
        git_revision=git_revision,
        training={"config": msgspec.to_builtins(config), "workload_version": VERSION} | training,
        evaluation=evaluation,
    )
    return write_policy(actor_arrays(model), card)


def actor_layers(model: PPO) -> list[torch.nn.Linear]:
    """Linear layers from features to outputs; tanh lies between them."""
    layers = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    return [layer for layer in layers if isinstance(layer, torch.nn.Linear)]


def actor_arrays(model: PPO) -> dict[str, NDArray[np.float32]]:
    """Tensors under the names of the policy file."""
    arrays = {}
    for number, layer in enumerate(actor_layers(model)):
        arrays[f"layer{number}.weight"] = layer.weight.detach().numpy().astype(np.float32)
        arrays[f"layer{number}.bias"] = layer.bias.detach().numpy().astype(np.float32)
    return arrays


def actor_outputs(model: PPO, inputs: torch.Tensor) -> torch.Tensor:
    """[K, outputs] of the network: mean of a step's raw output, or the increments' scores."""
    policy = model.policy
    outputs: torch.Tensor = policy.action_net(policy.mlp_extractor.forward_actor(inputs))
    return outputs
