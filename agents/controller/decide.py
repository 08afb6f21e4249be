"""One whole decision as one kernel call: look, base policy, residual adapter, recovery, guard.

    rules     what is fixed between decisions: guard rails, the policy's head, which layers are on
    memory    what one node's layers remember
    moment    what the node knows now
    decision  what came out, layer by layer

`decide` works on one node's records and allocates nothing, so that a simulator's or trainer's kernel can call it for
each of many nodes; `decide_first` is the same from Python. `propose` is a decision without the guard, for a node whose
guard is common to all methods.
"""

import math
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.controller import adapter as adapters
from agents.controller import recovery as recoveries
from agents.controller.adapter import ADAPTER, adapt
from agents.controller.cold_start import COLD_START, Warmth, watch
from agents.controller.features import SIGHT, look, look_as_paper, normalise
from agents.controller.frozen import ACTIVATIONS_SHAPE, HEAD, act
from agents.controller.guard import GUARD, RAILS, limit
from agents.controller.guard import reset as reset_guards
from agents.controller.recovery import RECOVERY, REFILL_SHARES, Phase, is_onset, judge
from agents.controller.value import Curve
from agents.numerics.jit import kernel


class Base(IntEnum):
    """Who the base of a decision is."""

    POLICY = 0
    RULE = 1  # `moment.rule_ratio`, proposed by B5 or B7
    HOLD = 2  # the ratio the node had at first


_POLICY, _RULE = int(Base.POLICY), int(Base.RULE)
_SURGE = int(Phase.SURGE)
_WARM, _ROOMY, _COLD, _FILLING = (int(warmth) for warmth in Warmth)
_MANY_PER_SECOND = 50.0  # a policy's `hold_ratio` is for nodes of so many requests, as those that it was taught on, or more
_WAVERING_MAX = 2.0
_LOST_RATIO = 0.15  # further from its goal than this, somebody else has moved the node

RULES = np.dtype([("rails", RAILS), ("head", HEAD), ("base", "i8"), ("adapter_on", "i8"), ("recovery_on", "i8")], align=True)
MEMORY = np.dtype(
    [
        ("sight", SIGHT),
        ("adapter", ADAPTER),
        ("recovery", RECOVERY),
        ("cold_start", COLD_START),
        ("guard", GUARD),
        ("activations", "f4", ACTIVATIONS_SHAPE),
        ("started", "i8"),
        ("goal_ratio", "f8"),  # where the base wants the node, without the offset
        ("home_ratio", "f8"),
        ("wish_ratio", "f8"),  # smoothed
        ("wished", "i8"),  # 1: `wish_ratio` is valid
        ("base_due_ns", "i8"),
    ],
    align=True,
)
DECISION = np.dtype(
    [
        ("now_ns", "i8"),
        ("emb_ratio", "f8"),
        ("goal_ratio", "f8"),  # base
        ("offset", "f8"),  # adapter
        ("proposed", "f8"),  # after recovery
        ("target", "f8"),  # after the guard; NaN without one
        ("guard_reasons", "i8"),  # bits, see `guard.REASONS`
        ("phase", "i8"),
        ("missing", "i8"),  # bit per feature that was not a number
        ("frozen", "i8"),  # 1: the adapter did not learn
        ("warmth", "i8"),
        ("based", "i8"),  # 1: the base decided in this turn
        ("refill_share", "f8"),
    ],
    align=True,
)


def new_memories(count: int, emb_ratio: float, safe_ratio: float | None = None) -> NDArray[Any]:
    """[count] memories of nodes at rest at `emb_ratio`."""
    memories = np.zeros(count, MEMORY)
    adapters.reset(memories["adapter"])
    recoveries.reset(memories["recovery"])
    reset_guards(memories["guard"], emb_ratio, emb_ratio if safe_ratio is None else safe_ratio)
    return memories


@kernel
def decide(rules: Any, weights: NDArray[np.float32], memory: Any, moment: Any, emb_value: Curve, kv_value: Curve, decision: Any) -> None:
    """Look, propose and limit; everything that happened stands in `decision`."""
    propose(rules, weights, memory, moment, emb_value, kv_value, decision)
    guard = memory.guard
    decision.guard_reasons = limit(
        guard,
        rules.rails,
        moment.now_ns,
        moment.proposing == 1,
        decision.proposed,
        moment.holding == 1,
        moment.held_ratio,
        moment.emb_ratio,
        moment.data_age_ns,
        moment.reuse_age_ns,
        moment.refill_room_ratio,
    )
    decision.target = guard.target


@kernel
def propose(rules: Any, weights: NDArray[np.float32], memory: Any, moment: Any, emb_value: Curve, kv_value: Curve, decision: Any) -> None:
    """The three layers; `decision.target` is left unknown."""
    rails, recovery, adapter, sight = rules.rails, memory.recovery, memory.adapter, memory.sight
    present = moment.emb_ratio
    offset = adapter.offset if rules.adapter_on else 0.0
    if memory.started == 0:
        memory.started, memory.goal_ratio, memory.home_ratio = 1, present - offset, present - offset
    caches = watch(memory.cold_start, moment)
    warmth = caches if rules.base == _POLICY else _WARM  # a rule's curves do not depend on what is resident
    judged = rules.recovery_on and caches != _FILLING
    was_surging = recovery.phase == _SURGE
    phase = judge(recovery, moment, emb_value, kv_value, rails.emb_ratio_min, rails.emb_ratio_max) if judged else 0
    onset = is_onset(recovery, moment.now_ns)
    if onset and not was_surging:
        memory.wished = 0  # what was wished before the surge counts no more
    look(sight, moment, emb_value, kv_value, rails.emb_ratio_min, rails.emb_ratio_max, present - offset)
    slope = sight.slope_per_ms
    based = 0
    if moment.holding == 1:
        memory.goal_ratio, memory.wished = present - offset, 0  # the base goes on from wherever this leaves the node
    elif moment.now_ns >= memory.base_due_ns or onset:
        based = 1
        _move_goal(rules, weights, memory, moment, present - offset, warmth)
    if rules.adapter_on:
        offset = adapt(adapter, moment, slope, phase != 0)
    decision.now_ns, decision.emb_ratio, decision.goal_ratio, decision.offset = moment.now_ns, present, memory.goal_ratio, offset
    decision.proposed = memory.goal_ratio + offset
    if phase == _SURGE and warmth == _WARM:  # KV is given what a surge needs at least; a base that sees more need goes further
        decision.proposed = min(decision.proposed, recovery.safe_ratio)
    decision.target, decision.guard_reasons, decision.based = np.nan, 0, based
    decision.phase, decision.missing, decision.frozen, decision.warmth = phase, sight.missing, adapter.frozen, warmth
    decision.refill_share = REFILL_SHARES[phase]


@kernel
def _move_goal(rules: Any, weights: NDArray[np.float32], memory: Any, moment: Any, present: float, warmth: int) -> None:
    """Ask the base; a wish to stay, one not worth a move, or one of a cold cache leaves the goal where it is."""
    head, sight = rules.head, memory.sight
    if abs(memory.goal_ratio - present) > _LOST_RATIO:
        memory.goal_ratio = present
    wish, holds = present, True
    if rules.base == _POLICY:
        if head.paper_features:
            look_as_paper(sight, moment, present)
        normalise(sight, weights, head.features)
        wish = _smoothed(memory, act(head, weights, sight.good, memory.activations, present, sight.best_ratio), head.follow_share)
        holds = abs(wish - present) < max(rules.rails.dead_band_ratio, head.hold_ratio * _wavering(moment.requests_per_second_fast))
        memory.base_due_ns = moment.now_ns + head.period_ns
    elif rules.base == _RULE:
        wish, holds = moment.rule_ratio, moment.rule_holds == 1
    else:
        wish, holds = memory.home_ratio, False
    if warmth in (_COLD, _FILLING) or (warmth == _ROOMY and wish < present):
        holds, memory.wished = True, 0  # wishes of a cold cache are not remembered either
    if math.isfinite(wish) and not holds:
        memory.goal_ratio = min(max(wish, rules.rails.emb_ratio_min), rules.rails.emb_ratio_max)


@kernel
def _wavering(requests_per_second: float) -> float:
    """How much more a wish wavers where few requests are what it is read from: with the root of their number, twice at most."""
    if not requests_per_second < _MANY_PER_SECOND:  # nor where it is unknown
        return 1.0
    return math.sqrt(_MANY_PER_SECOND / max(requests_per_second, _MANY_PER_SECOND / _WAVERING_MAX**2))


@kernel
def _smoothed(memory: Any, wish: float, follow_share: float) -> float:
    """A network's wish wavers; the one that goes furthest would otherwise be the one that is followed."""
    if not math.isfinite(wish):
        return wish
    if memory.wished == 1:
        wish = memory.wish_ratio + follow_share * (wish - memory.wish_ratio)
    memory.wish_ratio, memory.wished = wish, 1
    return wish


@kernel
def decide_first(
    rules: NDArray[Any],
    weights: NDArray[np.float32],
    memories: NDArray[Any],
    moments: NDArray[Any],
    emb_value: Curve,
    kv_value: Curve,
    decisions: NDArray[Any],
) -> None:
    """`decide` for the first of each, from Python."""
    decide(rules[0], weights, memories[0], moments[0], emb_value, kv_value, decisions[0])


@kernel
def propose_first(
    rules: NDArray[Any],
    weights: NDArray[np.float32],
    memories: NDArray[Any],
    moments: NDArray[Any],
    emb_value: Curve,
    kv_value: Curve,
    decisions: NDArray[Any],
) -> tuple[float, float, float, int, int, int, int, float]:
    """`propose` for the first of each: proposed, goal, offset, phase, missing, frozen, warmth, share of the refill budget."""
    decision = decisions[0]
    propose(rules[0], weights, memories[0], moments[0], emb_value, kv_value, decision)
    return (
        decision.proposed,
        decision.goal_ratio,
        decision.offset,
        decision.phase,
        decision.missing,
        decision.frozen,
        decision.warmth,
        decision.refill_share,
    )
