"""What a request costs, and what a hit saves, in milliseconds; one formula for node, router and simulator.

    T = fixed + candidates + rows present + rows missing + prefill(tokens, cached)

A prefix hit saves prefill of the cached tokens and the rows of the history, which would have been
looked up as well, some of them missing. So hits are valued in milliseconds, never counted: a hit of
a long user is worth a hundred of a short one.

On some devices attending to a cached prefix is not free: `kv_hit_compute_ratio` is the share of the cached
tokens' compute that a hit still pays (the paper measures a recompute of 3.5 times a hit).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import allocating_kernel, kernel


class Cost(NamedTuple):
    """Coefficients in ms. The fields of a profile's cost constants, as the regression refines them."""

    ms_fixed: float
    ms_per_hit_row: float
    ms_per_missing_row: float
    ms_per_token: float
    ms_per_token_squared: float
    ms_per_candidate: float
    ms_kv_hit_floor: float  # the least that attending to a cached prefix takes
    kv_hit_compute_ratio: float = 0.0  # of recomputing the cached tokens

    @classmethod
    def of(cls, constants: object) -> "Cost":
        """The same numbers from whatever has fields of these names: a profile's cost constants."""
        return cls(*(getattr(constants, name) for name in cls._fields))


@kernel
def prefill_ms(cost: Cost, tokens: float, cached: float) -> float:
    """Compute of the tokens after a cached prefix, and of attending to it; with a prefix never under the floor."""
    saved = 1.0 - cost.kv_hit_compute_ratio
    linear, squared = tokens - saved * cached, tokens * tokens - saved * cached * cached
    work = cost.ms_per_token * linear + cost.ms_per_token_squared * squared
    return max(work, cost.ms_kv_hit_floor) if cached > 0 else work


@kernel
def compute_ms(cost: Cost, tokens: float, cached: float, candidates: float) -> float:
    """One request's own compute: its prefill, its candidates, and what every request takes."""
    return cost.ms_fixed + cost.ms_per_candidate * candidates + prefill_ms(cost, tokens, cached)


@kernel
def rows_ms(cost: Cost, rows: float, missing: float) -> float:
    """Gathering `rows`, of which `missing` come over the link."""
    return (rows - missing) * cost.ms_per_hit_row + missing * cost.ms_per_missing_row


@kernel
def request_ms(cost: Cost, tokens: float, cached: float, candidates: float, emb_hit_ratio: float) -> float:
    """Predicted service of one request without its queue: history tokens, cached of them, candidate rows."""
    rows = tokens - cached + candidates
    gather = rows_ms(cost, rows, rows * (1.0 - emb_hit_ratio))
    return gather + compute_ms(cost, tokens, cached, candidates)


@kernel
def row_hit_value_ms(cost: Cost) -> float:
    """What finding one embedding row in the pool saves."""
    return max(0.0, cost.ms_per_missing_row - cost.ms_per_hit_row)


@kernel
def kv_hit_value_ms(cost: Cost, tokens: float, cached: float, emb_hit_ratio: float) -> float:
    """What `cached` of `tokens` found in KV save: their prefill, and the gathering of their rows."""
    if cached <= 0:
        return 0.0
    prefill = prefill_ms(cost, tokens, 0.0) - prefill_ms(cost, tokens, cached)
    return max(0.0, prefill + rows_ms(cost, cached, cached * (1.0 - emb_hit_ratio)))


@allocating_kernel
def kv_value_ms_per_second(
    cost: Cost,
    emb_hit_ratio: float,
    references: NDArray[np.float64],
    tokens: NDArray[np.float64],
    tokens_squared: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The same over sums per bin: re-references per second, their reusable tokens, and those squared."""
    row_ms = cost.ms_per_hit_row * emb_hit_ratio + cost.ms_per_missing_row * (1.0 - emb_hit_ratio)
    recompute = cost.ms_per_token * tokens + cost.ms_per_token_squared * tokens_squared
    paid = np.maximum(cost.ms_kv_hit_floor * references, cost.kv_hit_compute_ratio * recompute)
    return np.maximum(recompute + row_ms * tokens - paid, 0.0)


def node_share_of_cluster_value(
    edges: NDArray[np.float64], value_per_second: NDArray[np.float64], nodes: int, capacities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One node's cumulative value at its own `capacities`, from the cluster's histogram (B bins, B + 1 edges).

    The cluster's users are spread over `nodes` equal caches: a cache of C on each holds what one of
    nodes * C would, and each node earns its share of it. Both axes are divided, or a fleet
    would look to every node as if all of its users came to it.
    """
    if nodes < 1:
        raise ValueError("nodes must be >= 1")
    cumulative = np.concatenate([[0.0], np.cumsum(value_per_second[: edges.shape[0] - 1])])
    return np.asarray(np.interp(capacities * nodes, edges, cumulative) / nodes, dtype=np.float64)
