"""Predicted beside measured: latencies and hit ratios, per node and of the fleet."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

P50_ERROR_AIM, P99_ERROR_AIM = 0.10, 0.20
REQUESTS_MIN = 20  # of a node: fewer have no 99th percentile worth a name, and hardly a median


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two says; null where nothing was served."""

    requests: int
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    emb_hit_ratio: float | None
    kv_hit_ratio: float | None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One node, or the fleet. Errors of latencies are relative to what was measured, of hit ratios differences."""

    name: str
    measured: Side
    predicted: Side

    @property
    def latency_p50_error(self) -> float | None:
        """Predicted over measured, less one."""
        return _relative(self.predicted.latency_ms_p50, self.measured.latency_ms_p50)

    @property
    def latency_p99_error(self) -> float | None:
        """The same at the 99th percentile."""
        return _relative(self.predicted.latency_ms_p99, self.measured.latency_ms_p99)

    @property
    def hit_ratio_error(self) -> float | None:
        """The larger of both caches' absolute differences."""
        pairs = [
            (self.predicted.emb_hit_ratio, self.measured.emb_hit_ratio),
            (self.predicted.kv_hit_ratio, self.measured.kv_hit_ratio),
        ]
        found = [abs(one - other) for one, other in pairs if one is not None and other is not None]
        return max(found, default=None)

    @property
    def within_aim(self) -> bool:
        """Whether both latencies are as near as is aimed at."""
        p50, p99 = self.latency_p50_error, self.latency_p99_error
        return p50 is not None and p99 is not None and abs(p50) <= P50_ERROR_AIM and abs(p99) <= P99_ERROR_AIM

    def as_row(self) -> dict[str, Any]:
        """Everything, for JSON."""
        errors = {name: getattr(self, name) for name in ("latency_p50_error", "latency_p99_error", "hit_ratio_error", "within_aim")}
        return {**msgspec.to_builtins(self), **errors}


def side(latency_ms: NDArray[np.float64], emb_hit_ratio: float | None, kv_hit_ratio: float | None) -> Side:
    """Percentiles of latencies that are known, beside hit ratios."""
    known = latency_ms[np.isfinite(latency_ms)]
    enough = known.size >= REQUESTS_MIN
    return Side(
        requests=int(known.size),
        latency_ms_p50=float(np.percentile(known, 50)) if enough else None,
        latency_ms_p99=float(np.percentile(known, 99)) if enough else None,
        emb_hit_ratio=emb_hit_ratio,
        kv_hit_ratio=kv_hit_ratio,
    )


def _relative(predicted: float | None, measured: float | None) -> float | None:
    if predicted is None or measured is None or not measured > 0.0 or not math.isfinite(predicted):
        return None
    return predicted / measured - 1.0
