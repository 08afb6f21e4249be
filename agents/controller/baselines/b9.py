"""B9: watermarks, the rule that operators write by hand.

KV nearly full while EMB is above its goal: KV gets a step. KV above its goal: EMB gets a step. Neither: the split
drifts home, a tenth of a step at a time.
"""

from agents.controller.interface import Observation, Proposal
from agents.wire.messages import GuardRails

_STEP_RATIO = 0.04  # per decision; less than the actuator can do in that time
_DRIFT_STEPS = 0.1
_KV_FULL_RATIO = 0.9
_MARGIN_RATIO = 0.02  # two points above the goal
_LOST_RATIO = 0.1  # further from the wish than this, somebody else has moved the node


class B9:
    """Moves by hit ratios against fixed goals; knows no values and no costs."""

    name = "b9"
    period_ns = 5_000_000_000
    uses_cluster_reuse = False

    def __init__(self, rails: GuardRails, *, emb_hit_goal: float = 0.8, kv_hit_goal: float = 0.6, home_ratio: float = 0.5) -> None:
        for name, value in (("emb_hit_goal", emb_hit_goal), ("kv_hit_goal", kv_hit_goal), ("home_ratio", home_ratio)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must lie inside (0, 1)")
        self._rails = rails
        self._emb_hit_goal = emb_hit_goal
        self._kv_hit_goal = kv_hit_goal
        self._home_ratio = home_ratio
        self._wish: float | None = None

    def propose(self, observation: Observation) -> Proposal:
        """One step by the watermarks, from where this method wants to be (drift is finer than the guard's dead-band)."""
        present = observation.emb_ratio
        wish = present if self._wish is None or abs(self._wish - present) > _LOST_RATIO else self._wish
        kv_wants = observation.kv_used_ratio > _KV_FULL_RATIO and observation.emb_hit_ratio > self._emb_hit_goal + _MARGIN_RATIO
        emb_wants = observation.kv_hit_ratio > self._kv_hit_goal + _MARGIN_RATIO
        if kv_wants == emb_wants:
            away = self._home_ratio - wish
            most = _DRIFT_STEPS * _STEP_RATIO
            wish += min(max(away, -most), most)
            reason = "drift_home"
        else:
            wish += -_STEP_RATIO if kv_wants else _STEP_RATIO
            reason = "kv_watermark" if kv_wants else "emb_watermark"
        self._wish = min(max(wish, self._rails.emb_ratio_min), self._rails.emb_ratio_max)
        return Proposal(self._wish, reason, {"watermark": self._wish})
