"""B11: shares in proportion to demand, the industry's default.

The split follows the bytes that requests touch on either side. It acts when the present split is off by a
quarter, at most every two minutes, and only after enough requests. It knows neither values nor diminishing returns.
"""

import math

from agents.controller.interface import Observation, Proposal
from agents.wire.messages import GuardRails

_AVERAGING = 0.1  # per decision of 5 s: a memory of about 50 s
_BAND = 1.25
_PERIOD_SECONDS = 120.0
_REQUESTS_MIN = 2_000.0


class B11:
    """Demand-proportional split."""

    name = "b11"
    period_ns = 5_000_000_000
    uses_cluster_reuse = False

    def __init__(self, rails: GuardRails) -> None:
        self._rails = rails
        self._share = math.nan
        self._requests = 0.0
        self._seen_ns: int | None = None
        self._acted_ns: int | None = None
        self._goal: float | None = None

    def propose(self, observation: Observation) -> Proposal:
        """The share of EMB in the bytes touched, when it is time and far enough from the present split."""
        self._learn(observation)
        present = observation.emb_ratio
        layers = {"demand": self._share} if math.isfinite(self._share) else {}
        if self._goal is not None and abs(self._goal - present) > 1e-3 and not self._due(observation.now_ns):
            return Proposal(self._goal, "on_the_way", layers)
        if not math.isfinite(self._share) or self._requests < _REQUESTS_MIN:
            return Proposal(present, "too_few_requests", layers)
        if not self._due(observation.now_ns):
            return Proposal(present, "too_soon", layers)
        goal = min(max(self._share, self._rails.emb_ratio_min), self._rails.emb_ratio_max)
        if 1.0 / _BAND <= present / goal <= _BAND:
            return Proposal(present, "in_band", layers)
        self._goal, self._acted_ns, self._requests = goal, observation.now_ns, 0.0
        return Proposal(goal, "demand", layers)

    def _learn(self, observation: Observation) -> None:
        emb, kv = observation.emb_bytes_touched_per_second, observation.kv_bytes_touched_per_second
        touched = emb + kv
        if touched > 0.0 and math.isfinite(touched):
            share = emb / touched
            self._share = share if math.isnan(self._share) else self._share + _AVERAGING * (share - self._share)
        if self._seen_ns is not None and math.isfinite(observation.requests_per_second_slow):
            self._requests += observation.requests_per_second_slow * (observation.now_ns - self._seen_ns) / 1e9
        self._seen_ns = observation.now_ns

    def _due(self, now_ns: int) -> bool:
        return self._acted_ns is None or now_ns - self._acted_ns >= _PERIOD_SECONDS * 1e9
