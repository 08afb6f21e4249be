"""Weights of the ranker: their names and shapes, a seeded start, and the safetensors file.

The tables of items are not among them: item rows live in the node's pool and come in gathered.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.profiles import ModelShape

POSITIONS_PER_TOKEN = 2  # an event is its item and then its action


class Weights(NamedTuple):
    """Everything learned, float32. L layers, H heads; `W = H * (2 * v_dim + 2 * qk_dim)`."""

    action_embedding: torch.Tensor  # [actions, dim]
    uvqk: torch.Tensor  # [L, dim, W], columns in the order U, V, Q, K
    output: torch.Tensor  # [L, H * v_dim, dim]
    position_bias: torch.Tensor  # [L, 2 * tokens_max + 1], by distance in positions
    time_bias: torch.Tensor  # [L, time_buckets], by floor(log2(seconds apart))
    head: torch.Tensor  # [dim, 1]
    head_bias: torch.Tensor  # [1]


def weight_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name to expected shape, in the order of `Weights`."""
    values = shape.heads * shape.v_dim
    width = 2 * values + 2 * shape.heads * shape.qk_dim
    return {
        "action_embedding": (shape.actions, shape.dim),
        "uvqk": (shape.layers, shape.dim, width),
        "output": (shape.layers, values, shape.dim),
        "position_bias": (shape.layers, POSITIONS_PER_TOKEN * shape.tokens_max + 1),
        "time_bias": (shape.layers, shape.time_buckets),
        "head": (shape.dim, 1),
        "head_bias": (1,),
    }


def kv_floats_per_token(shape: ModelShape) -> int:
    """Floats of KV per history event: layers x (item, action) x heads x (keys, values)."""
    return shape.layers * POSITIONS_PER_TOKEN * shape.heads * (shape.qk_dim + shape.v_dim)


def _spread(name: str, expected: tuple[int, ...]) -> float:
    """Standard deviation at the start: projections keep the variance of what they read."""
    if name in ("uvqk", "output", "head"):
        return 1.0 / math.sqrt(expected[-2])
    return 0.5


def init_weights(shape: ModelShape, seed: int) -> Weights:
    """Weights drawn from `seed`; the same seed gives the same bytes on every node."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(expected, generator=generator) * _spread(name, expected) for name, expected in weight_shapes(shape).items()}
    return Weights(**drawn)


def weights_for(weights: Weights, device: torch.device, dtype: torch.dtype) -> Weights:
    """The same weights where and as a ranker computes with them; the head stays float32."""
    kept = ("head", "head_bias")
    placed = {name: tensor.to(device, tensor.dtype if name in kept else dtype) for name, tensor in weights._asdict().items()}
    return Weights(**placed)


def save_weights(path: Path, weights: Weights) -> None:
    """Write a safetensors file; it appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous() for name, tensor in weights._asdict().items()}, partial)
    partial.replace(path)


def load_weights(path: Path, shape: ModelShape) -> Weights:
    """Read a safetensors file made for `shape`; `ValueError` names the tensor that does not fit."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name}: not a safetensors file ({error})") from error
    expected = weight_shapes(shape)
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise ValueError(f"{path.name}: missing or unknown tensors: {', '.join(odd)}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{path.name}: {name} has shape {tuple(tensor.shape)}, expected {expected[name]}")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{path.name}: {name} is {tensor.dtype}, expected torch.float32")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path.name}: {name} holds values that are not finite")
    return Weights(**tensors)
