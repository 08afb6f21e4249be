"""The product's three layers with their base led from outside, and what a policy would see at this moment."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.artifacts.card import Action
from agents.controller.features import look, look_as_paper, normalise
from agents.controller.interface import Observation, Proposal
from agents.controller.moment import fill
from agents.controller.three_layers import ThreeLayers
from agents.controller.value import Curve
from agents.numerics.jit import kernel
from agents.wire.messages import GuardRails


class Wish:
    """A rule that says what it was told, smoothed and held as the frozen policy's wishes are; nothing told means hold."""

    name = "wish"
    uses_cluster_reuse = True

    def __init__(self, period_ns: int, hold_ratio: float, follow_share: float) -> None:
        self.period_ns = period_ns
        self.emb_ratio = math.nan
        self._hold_ratio, self._follow_share = hold_ratio, follow_share

    def tell(self, emb_ratio: float) -> None:
        """One more wish; NaN forgets the earlier ones."""
        known = math.isfinite(self.emb_ratio)
        self.emb_ratio = self.emb_ratio + self._follow_share * (emb_ratio - self.emb_ratio) if known else emb_ratio

    def propose(self, observation: Observation) -> Proposal:
        """The wish, as the frozen policy's would be taken."""
        present = observation.emb_ratio
        holds = not abs(self.emb_ratio - present) >= self._hold_ratio
        return Proposal(present if holds else self.emb_ratio, "led", {})


class Glance(NamedTuple):
    """One node at one decision."""

    raw: NDArray[np.float64]  # [F] NaN where a signal is missing
    inputs: NDArray[np.float32]  # [F] normalised, as the frozen policy takes them
    best_ratio: float


class LedLayers(ThreeLayers):
    """One node's layers, adapter and recovery off. `statistics` are means, then reciprocal scales, [2 F] float32."""

    def __init__(self, rails: GuardRails, action: Action, statistics: NDArray[np.float32], *, paper: bool) -> None:
        period_ns = round(action.period_seconds * 1e9)
        self.wish = Wish(period_ns, max(rails.dead_band_ratio, action.held_within), action.followed)
        # between two decisions the layers of a node repeat the goal, which changes nothing and costs an observation each
        super().__init__(rails, name="led", rule=self.wish, adapter_on=False, recovery_on=False, check_ns=period_ns)
        self._statistics = statistics
        self._paper = paper

    def glance(self, observation: Observation) -> Glance:
        """What a policy in this place would see now. Only the last good values are remembered; the layers look for themselves."""
        fill(self._moment, observation)
        sights, features = self._memory["sight"].copy(), self._statistics.shape[0] // 2
        _look_first(
            self._rules, sights, self._moment, observation.emb_value, observation.kv_value, self._statistics, features, int(self._paper)
        )
        self._memory["sight"]["good"] = sights["good"]
        sight = sights[0]
        return Glance(sight["raw"][:features].copy(), sight["good"][:features].astype(np.float32), float(sight["best_ratio"]))


@kernel
def _look_first(
    rules: NDArray[Any],
    sights: NDArray[Any],
    moments: NDArray[Any],
    emb_value: Curve,
    kv_value: Curve,
    statistics: NDArray[np.float32],
    features: int,
    paper: int,
) -> None:
    rails, sight, moment = rules[0].rails, sights[0], moments[0]
    look(sight, moment, emb_value, kv_value, rails.emb_ratio_min, rails.emb_ratio_max, moment.emb_ratio)
    if paper == 1:
        look_as_paper(sight, moment, moment.emb_ratio)
    normalise(sight, statistics, features)
