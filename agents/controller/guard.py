"""The guard: whatever a policy proposes, this is what may happen.

In order of force: an operator's override or pin; nothing that is not a number; no data, no decision;
stale reuse statistics freeze the KV side; floor and ceiling; dead-band; minimum dwell; largest step. What
comes out is a target. The ratio itself walks to the target at the actuator's rate, the same for every
method and for people, so that no decision can outrun the refill.
"""

import math
from typing import NamedTuple

from agents.wire.messages import GuardRails

REUSE_STALE_NS = 10_000_000_000  # ten of the router's reports missed
NO_DATA_HOLD_NS = 10_000_000_000  # two decisions of B5 without one request
NO_DATA_DECAY_NS = 300_000_000_000  # a lull of minutes is traffic's business; after it yesterday's split is a guess
_SAME_RATIO = 1e-9


class GuardInputs(NamedTuple):
    """What the guard judges at one decision."""

    proposed: float | None  # None: nobody proposes (controller off or advisory)
    held: float | None  # ratio of the override or pin in force
    emb_ratio: float  # granted now, from the ledger; a proposal equal to it means hold
    data_age_ns: int = 0  # since the last request
    reuse_age_ns: int = 0  # of the cluster's statistics; 0 for methods that do not use them


class GuardedRatio(NamedTuple):
    """Where to go, and everything that kept it from being the proposal."""

    target: float
    reasons: list[str]


class Guard:
    """Limits proposals to a target and paces the ratio towards it. Told the time; keeps no clock."""

    def __init__(self, rails: GuardRails, move_ratio_per_second: float, emb_ratio: float, safe_ratio: float | None = None) -> None:
        """Start at rest at `emb_ratio`; without data for long the target goes to `safe_ratio` (default: the start)."""
        if not (math.isfinite(move_ratio_per_second) and move_ratio_per_second > 0.0):
            raise ValueError("move_ratio_per_second must be finite and > 0")
        if not 0.0 <= emb_ratio <= 1.0:
            raise ValueError("emb_ratio must lie in 0..1")
        self._rails = rails
        self._move_ratio_per_second = move_ratio_per_second
        self._safe_ratio = emb_ratio if safe_ratio is None else safe_ratio
        self._target = emb_ratio
        self._setpoint = emb_ratio
        self._stepped_ns: int | None = None
        self._changed_ns: int | None = None
        self._before_hold: float | None = None

    @property
    def target(self) -> float:
        """Ratio in force as the goal."""
        return self._target

    @property
    def rails(self) -> GuardRails:
        """Limits in force."""
        return self._rails

    def set_rails(self, rails: GuardRails) -> None:
        """New limits; the next decision obeys them, dead-band or not."""
        self._rails = rails

    def limit(self, now_ns: int, inputs: GuardInputs) -> GuardedRatio:
        """Judge one decision; the target is always finite and, but for override and pin, inside the rails."""
        if inputs.held is not None:
            return self._hold(inputs.held)
        if self._before_hold is not None:
            return self._release(now_ns)
        wanted, reasons = self._wanted(inputs)
        clipped = min(max(wanted, self._rails.emb_ratio_min), self._rails.emb_ratio_max)
        if clipped != wanted:
            reasons.append("floor" if clipped > wanted else "ceiling")
        if not self._rails.emb_ratio_min <= self._target <= self._rails.emb_ratio_max:
            return self._go(now_ns, clipped, [*reasons, "rails_changed"])
        return self._damped(now_ns, clipped, reasons)

    def step(self, now_ns: int) -> float:
        """Ratio to migrate to at this tick: at most the actuator's rate closer to the target."""
        elapsed_ns = 0 if self._stepped_ns is None else max(0, now_ns - self._stepped_ns)
        self._stepped_ns = now_ns if self._stepped_ns is None else max(now_ns, self._stepped_ns)
        most = self._move_ratio_per_second * elapsed_ns / 1e9
        distance = self._target - self._setpoint
        self._setpoint = self._target if abs(distance) <= most else self._setpoint + math.copysign(most, distance)
        return self._setpoint

    def _hold(self, held: float) -> GuardedRatio:
        if not 0.0 <= held <= 1.0:
            return GuardedRatio(self._target, ["held_ratio_refused"])
        if self._before_hold is None:
            self._before_hold = self._target
        self._target = held
        return GuardedRatio(held, ["held_by_operator"])

    def _release(self, now_ns: int) -> GuardedRatio:
        """Back to where automatic control was: what a person tried must not linger by mere hysteresis."""
        assert self._before_hold is not None
        back = min(max(self._before_hold, self._rails.emb_ratio_min), self._rails.emb_ratio_max)
        self._before_hold = None
        return self._go(now_ns, back, ["released"])

    def _wanted(self, inputs: GuardInputs) -> tuple[float, list[str]]:
        """The proposal, or the present target with the reason why it was not heard."""
        if inputs.proposed is None:
            return self._target, ["no_proposal"]
        if not math.isfinite(inputs.proposed):
            return self._target, ["proposal_not_finite"]
        if inputs.data_age_ns > NO_DATA_DECAY_NS:
            return self._safe_ratio, ["no_data_decay"]
        if inputs.data_age_ns > NO_DATA_HOLD_NS:
            return self._target, ["no_data_hold"]
        if inputs.reuse_age_ns > REUSE_STALE_NS:
            return self._target, ["reuse_stale"]
        if abs(inputs.proposed - inputs.emb_ratio) <= _SAME_RATIO:
            return self._target, []
        return inputs.proposed, []

    def _damped(self, now_ns: int, wanted: float, reasons: list[str]) -> GuardedRatio:
        distance = wanted - self._target
        if distance == 0.0:
            return GuardedRatio(self._target, reasons)
        if abs(distance) < self._rails.dead_band_ratio:
            return GuardedRatio(self._target, [*reasons, "dead_band"])
        if self._changed_ns is not None and now_ns - self._changed_ns < self._rails.dwell_seconds_min * 1e9:
            return GuardedRatio(self._target, [*reasons, "dwell"])
        if abs(distance) > self._rails.step_ratio_max:
            return self._go(now_ns, self._target + math.copysign(self._rails.step_ratio_max, distance), [*reasons, "largest_step"])
        return self._go(now_ns, wanted, reasons)

    def _go(self, now_ns: int, target: float, reasons: list[str]) -> GuardedRatio:
        self._target = target
        self._changed_ns = now_ns
        return GuardedRatio(target, reasons)
