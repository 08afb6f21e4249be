"""Latency sketches in the database: packed, merged, read."""

import math
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics import sketch

COUNT_MIN = 300  # below it the 99th percentile is one of three requests
_decoder = msgspec.msgpack.Decoder(tuple[list[int], list[int]])


def pack(indexes: list[int], counts: list[int]) -> bytes:
    """A sketch as stored."""
    return msgspec.msgpack.encode((indexes, counts))


def merge(packed: Iterable[bytes | memoryview]) -> NDArray[np.int64]:
    """Counts of several stored sketches, added."""
    total = sketch.new_sketch()
    for one in packed:
        indexes, counts = _decoder.decode(one)
        np.add.at(total, np.asarray(indexes, dtype=np.int64), np.asarray(counts, dtype=np.int64))
    return total


def p50(counts: NDArray[np.int64]) -> float | None:
    """Median in ms; null when nothing was counted."""
    return _finite(sketch.quantile(counts, 0.50))


def p99(counts: NDArray[np.int64]) -> float | None:
    """99th percentile in ms; null under 300 requests."""
    return _finite(sketch.quantile(counts, 0.99)) if int(counts.sum()) >= COUNT_MIN else None


def slo_ratio(counts: NDArray[np.int64], slo_ms: float) -> float | None:
    """Share of requests within the objective; null when nothing was counted."""
    return _finite(sketch.share_at_most(counts, slo_ms))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
