"""The ranker: an HSTU model in torch that continues from a cached prefix."""

from agents.runtime.model.hstu import HstuRanker
from agents.runtime.model.weights import Weights, init_weights, kv_floats_per_token, load_weights, save_weights

__all__ = ["HstuRanker", "Weights", "init_weights", "kv_floats_per_token", "load_weights", "save_weights"]
