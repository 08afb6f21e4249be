"""Warm start: fit the actor to a teacher's words before it learns from what its own do.

From nothing, reinforcement learning spends its first hundred thousand decisions on finding out what a teacher can tell.
"""

from collections.abc import Sequence

import torch
from stable_baselines3 import PPO

from agents.learning.config import Imitation
from agents.learning.export import actor_layers, actor_outputs

# Absolute sizes tell shops and machines apart, and a policy that leaned on them would be lost on others: they are blurred.
SIZES = ("emb_marginal_log", "kv_marginal_log", "arrivals_log", "tokens_log", "kilotokens")


def imitate(
    model: PPO, inputs: torch.Tensor, labels: torch.Tensor, how: Imitation, seed: int, *, features: Sequence[str], steps: bool
) -> float:
    """Fit to [K, F] inputs and [K] labels (`labels_of`); returns the last pass's mean loss, NaN without passes.

    `features` names the columns. Steps: squared error of tanh(output). Increments: cross entropy.
    """
    chance = torch.Generator().manual_seed(seed)
    parameters = [parameter for layer in actor_layers(model) for parameter in layer.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=how.learning_rate)
    loss_mean = float("nan")
    blur = how.blur_deviations * torch.tensor([float(name in SIZES) for name in features])
    for _ in range(how.passes):
        losses = []
        for chosen in torch.randperm(inputs.shape[0], generator=chance).split(how.batch):
            seen = inputs[chosen] + blur * torch.randn(len(chosen), len(features), generator=chance)
            loss = _loss(actor_outputs(model, seen), labels[chosen], steps=steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        loss_mean = sum(losses) / len(losses)
    return loss_mean


def _loss(outputs: torch.Tensor, labels: torch.Tensor, *, steps: bool) -> torch.Tensor:
    if steps:
        return torch.nn.functional.mse_loss(torch.tanh(outputs[:, 0]), labels)
    return torch.nn.functional.cross_entropy(outputs, labels.long())
