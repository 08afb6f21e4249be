"""What a device would have measured: the profile's cost constants applied to a batch plan."""

import numpy as np

from agents.node.batch import Batch, BatchPlan, StageTimings
from agents.profiles import CostConstants


def service_timings(cost: CostConstants, batch: Batch, plan: BatchPlan, queue_ms: np.ndarray, link_share: float) -> StageTimings:
    """Timings of one batch. `link_share` is the part of the link that refill leaves to the foreground (0..1].

    The emulated device does its stages one after the other, so the service time is their sum.
    """
    missing = plan.missing.shape[0]
    hits = plan.rows.shape[0] - missing
    emb_ms = hits * cost.ms_per_hit_row + missing * cost.ms_per_missing_row / link_share
    total = batch.history_tokens.astype(np.float64)
    cached = plan.cached_tokens.astype(np.float64)
    candidates = np.diff(batch.candidate_offsets).astype(np.float64)
    prefill_ms = cost.ms_per_token * (total - cached) + cost.ms_per_token_squared * (total * total - cached * cached)
    compute_ms = cost.ms_fixed + np.maximum(prefill_ms, cost.ms_kv_hit_floor) + cost.ms_per_candidate * candidates
    return StageTimings(
        queue_ms=queue_ms, emb_ms=float(emb_ms), kv_ms=0.0, compute_ms=compute_ms, service_ms=float(emb_ms + compute_ms.sum())
    )
