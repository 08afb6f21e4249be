"""The guard: whatever a policy proposes, this is what may happen.

In order of force: an operator's override or pin; nothing that is not a number; no data, no decision;
stale reuse statistics freeze the KV side; floor and ceiling; dead-band; minimum dwell; largest step; the refill budget.
Only floor and ceiling move a target without damping: one that lies outside goes to the nearer of them, and no further.
What comes out is a target. The ratio itself walks to the target at the actuator's rate, the same for every
method and for people, so that no decision can outrun the refill.

The rules are kernels over a record, so that a whole decision is one call and a fleet's kernel can make it too;
`Guard` is one record with a name for everything in it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.wire.messages import GuardRails

REUSE_STALE_NS = 10_000_000_000  # ten of the router's reports missed
NO_DATA_HOLD_NS = 10_000_000_000  # two decisions of B5 without one request
NO_DATA_DECAY_NS = 300_000_000_000  # a lull of minutes is traffic's business; after it yesterday's split is a guess
REFILL_SECONDS_MAX = 30.0  # EMB grows no further than what its refill budget can fill in this time
_SAME_RATIO = 1e-9

REASONS = (
    "held_by_operator",
    "held_ratio_refused",
    "released",
    "no_proposal",
    "proposal_not_finite",
    "no_data_decay",
    "no_data_hold",
    "reuse_stale",
    "floor",
    "ceiling",
    "rails_changed",
    "dead_band",
    "dwell",
    "largest_step",
    "refill_budget",
)
(
    _HELD,
    _HELD_REFUSED,
    _RELEASED,
    _NO_PROPOSAL,
    _NOT_FINITE,
    _DECAY,
    _HOLD,
    _STALE,
    _FLOOR,
    _CEILING,
    _RAILS_CHANGED,
    _DEAD_BAND,
    _DWELL,
    _LARGEST_STEP,
    _REFILL_BUDGET,
) = (1 << bit for bit in range(len(REASONS)))

RAILS = np.dtype(
    [
        ("emb_ratio_min", "f8"),
        ("emb_ratio_max", "f8"),
        ("step_ratio_max", "f8"),
        ("dead_band_ratio", "f8"),
        ("dwell_ns", "i8"),
    ],
    align=True,
)
GUARD = np.dtype(
    [
        ("target", "f8"),
        ("safe_ratio", "f8"),
        ("changed_ns", "i8"),
        ("changed", "i8"),  # 1: `changed_ns` is valid
        ("before_hold", "f8"),
        ("held", "i8"),  # 1: an operator holds; `before_hold` is valid
    ],
    align=True,
)


class GuardInputs(NamedTuple):
    """What the guard judges at one decision."""

    proposed: float | None  # None: nobody proposes (controller off or advisory)
    held: float | None  # ratio of the override or pin in force
    emb_ratio: float  # granted now, from the ledger; a proposal equal to it means hold
    data_age_ns: int = 0  # since the last request
    reuse_age_ns: int = 0  # of the cluster's statistics; 0 for methods that do not use them
    refill_room_ratio: float = math.inf  # share of the pool by which EMB may grow now


class GuardedRatio(NamedTuple):
    """Where to go, and everything that kept it from being the proposal."""

    target: float
    reasons: list[str]


def refill_room_ratio(pool_bytes: int, refill_bytes_per_second: float, backlog_bytes: int) -> float:
    """How far EMB may grow: what its refill can fill in half a minute, less what still waits."""
    return max(0.0, (REFILL_SECONDS_MAX * refill_bytes_per_second - backlog_bytes) / pool_bytes)


def rails_record(rails: GuardRails) -> NDArray[Any]:
    """[1] of RAILS."""
    record = np.zeros(1, RAILS)
    dwell_ns = round(rails.dwell_seconds_min * 1e9)
    record[0] = (rails.emb_ratio_min, rails.emb_ratio_max, rails.step_ratio_max, rails.dead_band_ratio, dwell_ns)
    return record


def reset(guards: NDArray[Any], emb_ratio: float, safe_ratio: float) -> None:
    """At rest at a ratio."""
    guards[:] = np.zeros(1, GUARD)[0]
    guards["target"] = emb_ratio
    guards["safe_ratio"] = safe_ratio


def reason_names(bits: int) -> list[str]:
    """Names in the guard's order."""
    return [name for bit, name in enumerate(REASONS) if bits >> bit & 1]


@kernel
def limit(
    guard: Any,
    rails: Any,
    now_ns: int,
    proposing: bool,
    proposed: float,
    holding: bool,
    held: float,
    emb_ratio: float,
    data_age_ns: int,
    reuse_age_ns: int,
    refill_room: float,
) -> int:
    """Judge one decision: sets `guard.target`, always finite and, but for a hold, inside the rails; returns reason bits."""
    if holding:
        return _take_hold(guard, held)
    if guard.held == 1:
        return _release(guard, rails, now_ns)
    entered, grown = _enter_rails(guard, rails, now_ns)
    reasons, wanted = _hear(guard, proposing, proposed, emb_ratio, data_age_ns, reuse_age_ns)
    clipped = min(max(wanted, rails.emb_ratio_min), rails.emb_ratio_max)
    if clipped != wanted:
        reasons |= _FLOOR if clipped > wanted else _CEILING
    return entered | reasons | _damp(guard, rails, now_ns, clipped, max(0.0, refill_room - grown))


@kernel
def _enter_rails(guard: Any, rails: Any, now_ns: int) -> tuple[int, float]:
    """A target outside goes to the nearer rail and no further; by how much that let EMB grow is gone from its refill budget."""
    before = guard.target
    nearest = min(max(before, rails.emb_ratio_min), rails.emb_ratio_max)
    if nearest == before:
        return 0, 0.0
    _go(guard, now_ns, nearest)
    return _RAILS_CHANGED, max(0.0, nearest - before)


@kernel
def _take_hold(guard: Any, held: float) -> int:
    if not 0.0 <= held <= 1.0:
        return _HELD_REFUSED
    if guard.held == 0:
        guard.before_hold, guard.held = guard.target, 1
    guard.target = held
    return _HELD


@kernel
def _release(guard: Any, rails: Any, now_ns: int) -> int:
    """Back to where automatic control was: what a person tried must not linger by mere hysteresis."""
    guard.held = 0
    _go(guard, now_ns, min(max(guard.before_hold, rails.emb_ratio_min), rails.emb_ratio_max))
    return _RELEASED


@kernel
def _hear(guard: Any, proposing: bool, proposed: float, emb_ratio: float, data_age_ns: int, reuse_age_ns: int) -> tuple[int, float]:
    """The proposal, or the present target with the reason why it was not heard."""
    if not proposing:
        return _NO_PROPOSAL, guard.target
    if not math.isfinite(proposed):
        return _NOT_FINITE, guard.target
    if data_age_ns > NO_DATA_DECAY_NS:
        return _DECAY, guard.safe_ratio
    if data_age_ns > NO_DATA_HOLD_NS:
        return _HOLD, guard.target
    if reuse_age_ns > REUSE_STALE_NS:
        return _STALE, guard.target
    if abs(proposed - emb_ratio) <= _SAME_RATIO:
        return 0, guard.target
    return 0, proposed


@kernel
def _damp(guard: Any, rails: Any, now_ns: int, wanted: float, refill_room: float) -> int:
    """Dead-band, dwell, largest step and refill budget, in this order."""
    distance = wanted - guard.target
    if distance == 0.0:
        return 0
    if abs(distance) < rails.dead_band_ratio:
        return _DEAD_BAND
    if guard.changed == 1 and now_ns - guard.changed_ns < rails.dwell_ns:
        return _DWELL
    reasons = 0
    if abs(distance) > rails.step_ratio_max:
        distance = math.copysign(rails.step_ratio_max, distance)
        wanted = guard.target + distance
        reasons = _LARGEST_STEP
    if distance > refill_room:
        reasons |= _REFILL_BUDGET
        if refill_room < max(rails.dead_band_ratio, _SAME_RATIO):
            return reasons
        wanted = guard.target + refill_room
    _go(guard, now_ns, wanted)
    return reasons


@kernel
def _go(guard: Any, now_ns: int, target: float) -> None:
    guard.target, guard.changed_ns, guard.changed = target, now_ns, 1


@kernel
def _limit_first(
    guards: NDArray[Any],
    rails: NDArray[Any],
    now_ns: int,
    proposing: bool,
    proposed: float,
    holding: bool,
    held: float,
    emb_ratio: float,
    data_age_ns: int,
    reuse_age_ns: int,
    refill_room: float,
) -> tuple[float, int]:
    reasons = limit(guards[0], rails[0], now_ns, proposing, proposed, holding, held, emb_ratio, data_age_ns, reuse_age_ns, refill_room)
    return guards[0].target, reasons


class Guard:
    """Limits proposals to a target and paces the ratio towards it. Told the time; keeps no clock."""

    def __init__(self, rails: GuardRails, move_ratio_per_second: float, emb_ratio: float, safe_ratio: float | None = None) -> None:
        """Start at rest at `emb_ratio`; without data for long the target goes to `safe_ratio` (default: the start)."""
        if not (math.isfinite(move_ratio_per_second) and move_ratio_per_second > 0.0):
            raise ValueError("move_ratio_per_second must be finite and > 0")
        if not 0.0 <= emb_ratio <= 1.0:
            raise ValueError("emb_ratio must lie in 0..1")
        self._move_ratio_per_second = move_ratio_per_second
        self._records = np.zeros(1, GUARD)
        reset(self._records, emb_ratio, emb_ratio if safe_ratio is None else safe_ratio)
        self.set_rails(rails)
        self._target = emb_ratio
        self._setpoint = emb_ratio
        self._stepped_ns: int | None = None

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
        self._rails_record = rails_record(rails)

    def set_safe_ratio(self, safe_ratio: float) -> None:
        """Where the target goes when there is no data for long."""
        self._records["safe_ratio"] = safe_ratio

    def limit(self, now_ns: int, inputs: GuardInputs) -> GuardedRatio:
        """Judge one decision; the target is always finite and, but for override and pin, inside the rails."""
        proposed, held, emb_ratio, data_age_ns, reuse_age_ns, refill_room = inputs
        self._target, reasons = _limit_first(
            self._records,
            self._rails_record,
            now_ns,
            proposed is not None,
            0.0 if proposed is None else float(proposed),
            held is not None,
            0.0 if held is None else float(held),
            float(emb_ratio),
            data_age_ns,
            reuse_age_ns,
            refill_room,
        )
        return GuardedRatio(self._target, reason_names(reasons) if reasons else [])

    def step(self, now_ns: int) -> float:
        """Ratio to migrate to at this tick: at most the actuator's rate closer to the target."""
        elapsed_ns = 0 if self._stepped_ns is None else max(0, now_ns - self._stepped_ns)
        self._stepped_ns = now_ns if self._stepped_ns is None else max(now_ns, self._stepped_ns)
        most = self._move_ratio_per_second * elapsed_ns / 1e9
        distance = self._target - self._setpoint
        self._setpoint = self._target if abs(distance) <= most else self._setpoint + math.copysign(most, distance)
        return self._setpoint
