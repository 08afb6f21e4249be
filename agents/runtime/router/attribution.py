"""Predicted against observed, component by component, so that a predictor that is wrong is seen to be wrong.

A node says in `Server-Timing` where a request's time went; the pick said where it would go. What the
node does not account for (the network, both processes' Python) is the hop, which nobody predicts.
"""

import re

import numpy as np
from numpy.typing import NDArray

from agents.router.state import Column

# What the node reports together is predicted together.
PREDICTED: dict[str, tuple[Column, ...]] = {
    "queue": (Column.QUEUE,),
    "emb": (Column.EMB, Column.REFILL),
    "compute": (Column.FIXED, Column.KV, Column.CANDIDATES),
}
_OBSERVED = {b"queue": "queue", b"emb": "emb", b"kv": "compute", b"compute": "compute"}
HOP, TOTAL = "hop", "total"
COMPONENTS = (*PREDICTED, HOP, TOTAL)
_TIMING = re.compile(rb"([a-z]{1,16});dur=(\d{1,9}(?:\.\d{1,9})?)")
_TIMING_BYTES_MAX = 1_024


def predicted_ms(row: NDArray[np.float32]) -> dict[str, float]:
    """Components of one node in an explained pick, grouped as a node reports them."""
    told = {name: float(sum(row[column] for column in columns)) for name, columns in PREDICTED.items()}
    return told | {HOP: 0.0, TOTAL: float(row[Column.PREDICTED])}


def observed_ms(server_timing: bytes, latency_ms: float) -> dict[str, float] | None:
    """Components of an answer; `None` when the node did not say where its time went."""
    told = dict.fromkeys(PREDICTED, 0.0)
    found = _TIMING.findall(server_timing[:_TIMING_BYTES_MAX])
    if not found:
        return None
    for name, duration in found:
        if name in _OBSERVED:
            told[_OBSERVED[name]] += float(duration)
    return told | {HOP: max(0.0, latency_ms - sum(told.values())), TOTAL: latency_ms}


class Attribution:
    """Sums over the answers compared, by component, since the router started."""

    def __init__(self) -> None:
        self.count = 0
        self.predicted_ms = dict.fromkeys(COMPONENTS, 0.0)
        self.observed_ms = dict.fromkeys(COMPONENTS, 0.0)
        self.error_ms = dict.fromkeys(COMPONENTS, 0.0)  # of absolute differences: errors do not cancel

    def add(self, predicted: dict[str, float], observed: dict[str, float]) -> None:
        """One answer."""
        self.count += 1
        for name in COMPONENTS:
            self.predicted_ms[name] += predicted[name]
            self.observed_ms[name] += observed[name]
            self.error_ms[name] += abs(observed[name] - predicted[name])

    def means(self) -> list[dict[str, float | str]]:
        """Mean milliseconds per answer, one row per component; none before the first answer."""
        if self.count == 0:
            return []
        sums = (("predicted_ms", self.predicted_ms), ("observed_ms", self.observed_ms), ("error_ms", self.error_ms))
        return [{"component": name} | {key: total[name] / self.count for key, total in sums} for name in COMPONENTS]
