"""The interface between a node and whatever decides its ratio.

A controller is told the time and an observation and proposes a ratio. It owns no clock, does no
I/O, and never moves a page: the guard limits its proposal and the pool plans the move.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Observation(NamedTuple):
    """What a node knows at a decision; the same for every method. No labels, no future.

    Curves are cumulative: `emb_value[i]` is the milliseconds per second that an EMB cache of
    `capacity_ratio[i] * pool_bytes` saves; likewise KV. `capacity_ratio` is `linspace(0, 1, G)`, G >= 2.
    """

    now_ns: int
    emb_ratio: float  # granted, from the ledger
    pool_bytes: int
    requests_per_second_fast: float  # 1 s half-life
    requests_per_second_slow: float  # 60 s half-life
    emb_hit_ratio: float
    kv_hit_ratio: float
    utilisation: float
    queue_ms: float
    latency_ms_p99: float  # sliding, NaN while unknown
    slo_ms: float
    slo_violation_ratio: float
    tokens_per_request: float
    revisit_ratio: float  # share of the cluster's requests within the admission window
    refill_backlog_bytes: int
    refill_bytes_per_second: float
    interference_ms_per_byte: float  # what a refilled byte costs the foreground
    since_last_move_ns: int
    reuse_age_ns: int  # age of the cluster's reuse statistics; above 10 s the KV side is stale
    capacity_ratio: NDArray[np.float64]  # [G] share of the pool, evenly from 0 to 1
    emb_value: NDArray[np.float64]  # [G] ms saved per second
    kv_value: NDArray[np.float64]  # [G] ms saved per second
    emb_value_total: float  # with an infinite cache
    kv_value_total: float
    emb_bytes_touched_per_second: float
    kv_bytes_touched_per_second: float
    kv_used_ratio: float  # used / granted pages of KV
    move_ratio_per_second: float = 0.02  # the actuator's rate, the same for every method
    service_ms: float = math.nan  # mean per request without the queue, last seconds; NaN while unknown


class Proposal(NamedTuple):
    """A ratio, why, and what each layer added (names to ratio shares), for the decision record."""

    emb_ratio: float
    reason: str
    layers: dict[str, float]


class Controller(Protocol):
    """One method. `propose` is called every `period_ns` and must be deterministic in its inputs."""

    name: str
    period_ns: int

    def propose(self, observation: Observation) -> Proposal:
        """Ratio this method wants now; returning the present ratio means hold."""
        ...
