"""Observations for tests: a calm node, changed field by field."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation

GRID = np.linspace(0.0, 1.0, 101)


def rising(knee_ratio: float, value: float) -> NDArray[np.float64]:
    """A curve that rises linearly to `value` at `knee_ratio` of the pool and is flat from there."""
    return np.minimum(GRID / knee_ratio, 1.0) * value


def observe(**changes: Any) -> Observation:
    """A quiet moment with free moves; keywords replace fields."""
    calm = Observation(
        now_ns=0,
        emb_ratio=0.5,
        pool_bytes=64 << 20,
        requests_per_second_fast=10.0,
        requests_per_second_slow=10.0,
        emb_hit_ratio=0.5,
        kv_hit_ratio=0.5,
        utilisation=0.5,
        queue_ms=1.0,
        latency_ms_p99=80.0,
        slo_ms=120.0,
        slo_violation_ratio=0.0,
        tokens_per_request=512.0,
        revisit_ratio=0.5,
        refill_backlog_bytes=0,
        refill_bytes_per_second=2e6,
        interference_ms_per_byte=0.0,
        since_last_move_ns=10**12,
        reuse_age_ns=0,
        capacity_ratio=GRID,
        emb_value=rising(0.5, 100.0),
        kv_value=rising(0.5, 100.0),
        emb_value_total=100.0,
        kv_value_total=100.0,
        emb_bytes_touched_per_second=1e6,
        kv_bytes_touched_per_second=1e6,
        kv_used_ratio=1.0,
    )
    return calm._replace(**changes)
