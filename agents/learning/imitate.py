"""Warm start: fit the actor to what a teacher tells before it learns from what its own deeds do.

From nothing, reinforcement learning spends its first hundred thousand decisions on finding out what a teacher can tell.
A rule tells what it would do, and the student says the same. The clairvoyant tells the price of every ratio, and the
student's wishes slide down the prices: what it then wishes is cheapest on average over all that followed what it sees.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from stable_baselines3 import PPO

from agents.artifacts.card import Action
from agents.learning.clairvoyant import PRICED
from agents.learning.config import Imitation
from agents.learning.export import actor_layers, actor_outputs
from agents.learning.teacher import DEEDS, Prices

# Absolute sizes tell shops and machines apart, and a policy that leaned on them would be lost on others: they are blurred.
SIZES = ("emb_marginal_log", "kv_marginal_log", "arrivals_log", "tokens_log", "kilotokens")
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of outputs [B, ...] for the decisions [B]


def imitate(model: PPO, inputs: torch.Tensor, loss: Loss, how: Imitation, seed: int, *, features: Sequence[str]) -> float:
    """Fit to [K, F] inputs under `loss`; returns the last pass's mean loss, NaN without passes. `features` names the columns."""
    chance = torch.Generator().manual_seed(seed)
    parameters = [parameter for layer in actor_layers(model) for parameter in layer.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=how.learning_rate)
    loss_mean = float("nan")
    known = torch.tensor([float(name not in DEEDS) for name in features])  # the rest is noise, so that nothing is made of it yet
    blur = torch.tensor([_blur(name, how) for name in features])
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, how.passes))
    for _ in range(how.passes):
        losses = []
        for chosen in torch.randperm(inputs.shape[0], generator=chance).split(how.batch):
            seen = known * inputs[chosen] + blur * torch.randn(len(chosen), len(features), generator=chance)
            lost = loss(actor_outputs(model, seen), chosen)
            optimiser.zero_grad()
            lost.backward()
            optimiser.step()
            losses.append(float(lost.detach()))
        pace.step()
        loss_mean = sum(losses) / len(losses)
    return loss_mean


def _blur(name: str, how: Imitation) -> float:
    """Deviations of the noise on a feature."""
    if name in DEEDS:
        return 1.0
    return how.blur_deviations if name in SIZES else how.noise_deviations


def label_loss(action: Action, labels: torch.Tensor) -> Loss:
    """To a rule's [K] labels (`labels_of`). Steps: squared error of tanh(output). Increments: cross entropy."""

    def steps(outputs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(torch.tanh(outputs[:, 0]), labels[chosen])

    def increments(outputs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, labels[chosen].long())

    return steps if action.kind == "step" else increments


def price_loss(action: Action, prices: Prices, move_weight: float) -> Loss:
    """Mean price of what the student would do, its moves included; increments by their probabilities."""
    excess = torch.from_numpy(prices.excess)
    present = torch.from_numpy(prices.present.astype(np.float32))
    best = torch.from_numpy(prices.best.astype(np.float32))
    anchor = best if action.anchor == "landscape" else present
    tried = torch.tensor(action.increments, dtype=torch.float32)

    def price(chosen: torch.Tensor, wishes: torch.Tensor) -> torch.Tensor:
        return price_at(excess[chosen], wishes) + move_weight * (wishes - present[chosen, None]).abs()

    def steps(outputs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return price(chosen, anchor[chosen, None] + action.step_ratio_max * torch.tanh(outputs[:, :1])).mean()

    def increments(outputs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return (torch.softmax(outputs, dim=1) * price(chosen, present[chosen, None] + tried[None, :])).sum(dim=1).mean()

    return steps if action.kind == "step" else increments


def price_at(excess: torch.Tensor, wishes: torch.Tensor) -> torch.Tensor:
    """[B, W] prices of [B, W] ratios by linear interpolation in [B, G]; beyond the ends the last slope goes on."""
    spacing = float(PRICED[1] - PRICED[0])
    place = (wishes - float(PRICED[0])) / spacing
    point = place.detach().floor().clamp(0, excess.shape[1] - 2).long()
    low, high = excess.gather(1, point), excess.gather(1, point + 1)
    return low + (place - point) * (high - low)
