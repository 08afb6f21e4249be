"""What each node has ahead of it: its own report, corrected by what this router knows since.

A report is up to 0.2 s old. Picks made since it are added, work that ended since is taken off, and
so is the time that has passed: a node works while nobody reports. Reservations run from the pick to
the end of the response and are reaped when a response is lost.
"""

import math
from typing import NamedTuple

from agents.numerics.jit import kernel
from agents.router.costs import believe_costs
from agents.router.state import IN_USE, NO_SLOT, NodePhase, RouterState

_PHASE_READY = int(NodePhase.READY)
_SLOT_BITS = 20  # a handle is generation << 20 | slot
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_UNQUEUED_SHARE = 0.1  # of an answer's time: what waited longer says little about service
_FLOOR_LESSONS_MIN = 16  # a first request that loads something slowly must not stand for the fleet
_RATIO_FLOOR_MS = 0.05  # answers faster than this teach noise of the clock


@kernel
def queue_ahead_ms(state: RouterState, node: int, now_ns: int) -> float:
    """Predicted work a request picked now would wait for on this node."""
    record = state.nodes[node]
    passed_ms = max(0.0, (now_ns - record.load_at_ns) / 1e6)
    drained_ms = max(record.completed_ms, min(passed_ms, 1_000.0))
    return float(max(0.0, record.queued_ms - drained_ms) + max(0.0, record.unreported_ms))


@kernel
def reserve(state: RouterState, node: int, now_ns: int, service_ms: float, predicted_ms: float) -> int:
    """Book predicted work on a node; returns a handle, or `NO_SLOT` when the table is full."""
    totals = state.totals[0]
    slot = totals.reservation_free
    if slot == NO_SLOT:
        totals.without_reservation += 1
        return NO_SLOT
    booked = state.reservations[slot]
    totals.reservation_free = booked.next
    totals.reservations += 1
    record = state.nodes[node]
    booked.next = IN_USE
    booked.generation += 1
    booked.node = node
    booked.at_ns = now_ns
    booked.epoch = record.epoch
    booked.service_ms = service_ms
    booked.predicted_ms = predicted_ms
    record.in_flight += 1
    record.reserved_ms += service_ms
    record.unreported_ms += service_ms
    return int((booked.generation << _SLOT_BITS) | slot)


@kernel
def _release(state: RouterState, slot: int) -> None:
    booked = state.reservations[slot]
    record = state.nodes[booked.node]
    record.in_flight -= 1
    record.reserved_ms = max(0.0, record.reserved_ms - booked.service_ms) if record.in_flight > 0 else 0.0
    if booked.epoch == record.epoch:
        record.unreported_ms = max(0.0, record.unreported_ms - booked.service_ms)
    else:
        record.completed_ms += booked.service_ms
    booked.next = state.totals[0].reservation_free
    state.totals[0].reservation_free = slot
    state.totals[0].reservations -= 1


@kernel
def _correct(state: RouterState, node: int, log_correction: float) -> None:
    record = state.nodes[node]
    record.log_correction = log_correction
    record.correction = math.exp(log_correction)


@kernel
def _learn(state: RouterState, node: int, observed_ms: float, predicted_ms: float) -> None:
    settings = state.settings[0]
    record = state.nodes[node]
    bound = math.log(settings.correction_max)
    error = math.log(max(observed_ms, _RATIO_FLOOR_MS) / max(predicted_ms, _RATIO_FLOOR_MS))
    moved = record.log_correction + settings.learning_rate * min(bound, max(-bound, error))
    _correct(state, node, min(bound, max(-bound, moved)))
    record.learned += 1


@kernel
def service_floor_ms(state: RouterState) -> float:
    """The fastest service that any node gave lately, at most `busy_ms`; 0 until enough answers were seen to tell."""
    totals = state.totals[0]
    return float(min(totals.fastest_ms, state.settings[0].busy_ms)) if totals.fastest_lessons >= _FLOOR_LESSONS_MIN else 0.0


@kernel
def _learn_floor(state: RouterState, observed_ms: float, queued_ms: float) -> None:
    if queued_ms > _UNQUEUED_SHARE * observed_ms:
        return
    totals = state.totals[0]
    totals.fastest_ms = min(totals.fastest_ms * state.settings[0].fastest_growth, observed_ms)
    totals.fastest_lessons += 1


@kernel
def complete(state: RouterState, handle: int, latency_ms: float, failed: bool) -> bool:
    """End a reservation; a finite `latency_ms` (>= 0) of a good answer teaches the node's correction.

    False when it had ended before: ending is idempotent, so that a reaped or retried request cannot
    free somebody else's booking.
    """
    slot = handle & _SLOT_MASK
    if handle < 0 or slot >= state.reservations.shape[0]:
        return False
    booked = state.reservations[slot]
    if booked.next != IN_USE or booked.generation != handle >> _SLOT_BITS:
        return False
    node = booked.node
    if failed:
        state.nodes[node].failures_total += 1
    elif latency_ms >= 0.0 and math.isfinite(latency_ms):
        queued_ms = booked.predicted_ms - booked.service_ms * state.nodes[node].correction
        _learn_floor(state, latency_ms, queued_ms)
        _learn(state, node, latency_ms, booked.predicted_ms)
    _release(state, slot)
    return True


@kernel
def reap(state: RouterState, now_ns: int) -> int:
    """Release reservations older than their TTL; returns how many."""
    expired = 0
    oldest_ns = now_ns - state.settings[0].reservation_ttl_ns
    for slot in range(state.reservations.shape[0]):
        booked = state.reservations[slot]
        if booked.next == IN_USE and booked.at_ns < oldest_ns:
            _release(state, slot)
            expired += 1
    state.totals[0].reservations_expired += expired
    return expired


@kernel
def reported(state: RouterState, node: int, now_ns: int) -> None:
    """A fresh report has arrived: what was picked or done before is inside it."""
    record = state.nodes[node]
    record.load_at_ns = now_ns
    record.epoch += 1
    record.unreported_ms = 0.0
    record.completed_ms = 0.0
    if record.learned == 0:
        _correct(state, node, record.log_correction * state.settings[0].correction_decay)
    record.learned = 0


class HeardLoad(NamedTuple):
    """A node's own report of its queue and its cost coefficients, as numbers; the fields of `wire.NodeLoad`."""

    phase: int  # a NodePhase
    queued_ms: float
    queue_depth: int
    emb_hit_ratio: float
    ms_fixed: float
    ms_per_missing_row: float
    ms_per_token: float
    ms_per_token_squared: float
    ms_per_candidate: float
    kv_hit_compute_ratio: float
    refill_backlog_bytes: float
    kv_tokens_capacity: int
    kv_tokens_used: int
    served_total: int


@kernel
def hear(state: RouterState, node: int, now_ns: int, load: HeardLoad) -> None:
    """Take over what a node says of itself."""
    record = state.nodes[node]
    is_new = record.phase != _PHASE_READY
    record.phase = load.phase
    record.queued_ms = load.queued_ms
    record.queue_depth = load.queue_depth
    record.emb_hit_ratio = load.emb_hit_ratio
    record.ms_per_missing_row = load.ms_per_missing_row
    record.own_ms_fixed = load.ms_fixed
    record.own_ms_per_token = load.ms_per_token
    record.own_ms_per_token_squared = load.ms_per_token_squared
    record.own_ms_per_candidate = load.ms_per_candidate
    record.kv_hit_compute_ratio = min(1.0, max(0.0, load.kv_hit_compute_ratio))
    record.refill_backlog_bytes = load.refill_backlog_bytes
    record.kv_tokens_capacity = load.kv_tokens_capacity
    record.kv_tokens_used = load.kv_tokens_used
    record.served_total = load.served_total
    reported(state, node, now_ns)
    believe_costs(state, node, now_ns, is_new)
