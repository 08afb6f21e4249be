"""Filters and scorers: one row of milliseconds per node, in the words of the node's own cost model.

`n` tokens of history of which `h` are resident, `c` candidates:

    queue      work ahead of this request
    fixed      per request
    kv         R(n) - (1 - q) * R(h), R(x) = ms_per_token * x + ms_per_token_squared * x^2; q is the node's
               kv_hit_compute_ratio, what a resident prefix still costs (attention over it, copying it in)
    emb        (1 - emb_hit_ratio) * (n - h + c) * ms_per_missing_row
    candidates c * ms_per_candidate
    refill     a share of emb while refill shares the link
    rent       what a second copy displaces: as much as it takes to recompute, `rent_weight` times, and dearer
               where requests wait (`rent_factor`). None where the user is resident nowhere (it will need a copy
               somewhere), none while the node's KV has room, so that a node that came back empty fills again, and
               none when the node will not cache the user
    delay      this request's service, `delay_weight` times for each of those who wait on a node of the fleet now

Those who wait are counted as if the nodes shared their work: where one of them is idle, work done twice delays nobody.
Nodes share work that the request may go to, whose report is fresh and whose queue is below the load cap: what waits at
another helps nobody to an idle one. Where none is left, those that are stale or over the cap count, as they are picked from.
The fleet's mean and not the node's own number, because requests move on to where queues are short. Where queues are
long everywhere nobody can afford work done twice, now or when a displaced user comes back, and users stay where their
prefixes are: a router that sends them to the shorter queue there makes the load that it runs from.

Compute is charged at what the median node of the profile found (`costs`), rows at what the node itself did.

The service is never predicted below the fastest one that any node gave lately: the nodes' regressions
extrapolate below the requests they have seen, where a predicted zero would attract everything tiny.
"""

import math

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.router.load import queue_ahead_ms, service_floor_ms
from agents.router.state import NEVER, NO_SLOT, Column, Filter, NodePhase, Policy, RouterState

_QUEUE, _FIXED, _KV, _EMB, _CANDIDATES = (
    int(Column.QUEUE),
    int(Column.FIXED),
    int(Column.KV),
    int(Column.EMB),
    int(Column.CANDIDATES),
)
_REFILL, _RENT, _CORRECTION, _SERVICE = int(Column.REFILL), int(Column.RENT), int(Column.CORRECTION), int(Column.SERVICE)
_PREDICTED, _SCORE, _CACHED, _FILTER = int(Column.PREDICTED), int(Column.SCORE), int(Column.CACHED), int(Column.FILTER)
_PREFERENCE, _DELAY = int(Column.PREFERENCE), int(Column.DELAY)
_NONE, _OFFLINE, _DRAINING, _FORCED = int(Filter.NONE), int(Filter.OFFLINE), int(Filter.DRAINING), int(Filter.FORCED)
_STALE, _LOAD_CAP, _SHARE_CAP = int(Filter.STALE), int(Filter.LOAD_CAP), int(Filter.SHARE_CAP)
_PHASE_READY, _PHASE_DRAINING = int(NodePhase.READY), int(NodePhase.DRAINING)
_JOINT = int(Policy.JOINT)
_DECAY_STEP_NS = 50_000_000  # shares are decayed at most this often: far below their half-life
_SHARED_WAVER = 0.7  # of the load of one node; tried from 0.6 to 2
_FAR_OVER = 30.0  # wavers: rounding off is below a double's precision
_PRESSURE_FROM = 0.80  # share of KV in use from which a new copy may need a victim
_PRESSURE_FULL = 0.95  # and from which it will: freed pages and half-filled ones keep a full cache below 1


@kernel
def write_cached(state: RouterState, slot: int, history_tokens: int) -> int:
    """Fill the CACHED column for the user at `slot`; returns the longest resident prefix anywhere."""
    scores = state.scores
    for node in range(scores.shape[0]):
        scores[node, _CACHED] = 0.0
    if slot == NO_SLOT:
        return 0
    longest = 0
    copy = int(state.users[slot].head)
    while copy != NO_SLOT:
        tokens = min(int(state.copies[copy].tokens), history_tokens)
        scores[state.copies[copy].node, _CACHED] = tokens
        longest = max(longest, tokens)
        copy = int(state.copies[copy].next)
    return longest


@kernel
def _waiting_per_node(state: RouterState, now_ns: int, barred: NDArray[np.int8]) -> float:
    """Fill the QUEUE column; returns how many mean services would wait on a node if those that share work shared all of theirs."""
    settings = state.settings[0]
    mean_ms = state.totals[0].mean_service_ms
    queued_ms, sharing, aside_ms, aside = 0.0, 0, 0.0, 0
    for node in range(state.nodes.shape[0]):
        queue_ms = state.nodes[node].correction * queue_ahead_ms(state, node, now_ns)
        state.scores[node, _QUEUE] = queue_ms
        if _hard_filter(state, node, barred) != _NONE:
            continue
        if queue_ms > settings.load_cap_ms or now_ns - state.nodes[node].load_at_ns > settings.fresh_ns:
            aside_ms += queue_ms
            aside += 1
        else:
            queued_ms += queue_ms
            sharing += 1
    if sharing == 0:
        queued_ms, sharing = aside_ms, aside
    return waiting_if_shared(queued_ms / (mean_ms * sharing), sharing) if sharing > 0 and mean_ms > 0.0 else 0.0


@kernel
def waiting_if_shared(services: float, nodes: int) -> float:
    """How many services wait on a node in the mean, of `services` queued on each of `nodes` that share them.

    One of them is served, the rest wait: max(0, services - 1). That is rounded off by what a fleet's load wavers by,
    1 / sqrt(nodes): four nodes at one service each will soon have waiting ones, thirty-two will not.
    """
    waver = _SHARED_WAVER / math.sqrt(nodes)
    over = (services - 1.0) / waver
    return services - 1.0 if over > _FAR_OVER else waver * math.log1p(math.exp(over))


@kernel
def rent_factor(waiting: float, growth: float) -> float:
    """How much dearer displaced work is where `waiting` requests wait per node: 1 + growth * w^2 / (1 + w).

    It is done later, in front of whoever waits then, and of those who come before the queue is empty again: in
    proportion to the queue where there is one, and hardly at all where one is rare.
    """
    return 1.0 + growth * waiting * waiting / (1.0 + waiting)


@kernel
def write_scores(
    state: RouterState, now_ns: int, history_tokens: int, candidates: int, longest: int, cached_after: bool, barred: NDArray[np.int8]
) -> None:
    """Fill every millisecond column. `cached_after`: the node would keep the user's prefix after this request."""
    settings = state.settings[0]
    scores = state.scores
    n = float(history_tokens)
    floor_ms = service_floor_ms(state)
    waiting = _waiting_per_node(state, now_ns, barred)
    rent_weight = settings.rent_weight * rent_factor(waiting, settings.rent_growth)
    for node in range(scores.shape[0]):
        record = state.nodes[node]
        h = scores[node, _CACHED]
        correction = record.correction
        saved = (1.0 - record.kv_hit_compute_ratio) * h
        recompute = record.ms_per_token * (n - saved) + record.ms_per_token_squared * (n * n - saved * h)
        emb = (1.0 - record.emb_hit_ratio) * (n - h + candidates) * record.ms_per_missing_row
        backlog = record.refill_backlog_bytes
        refill = settings.refill_weight * emb * backlog / (backlog + settings.refill_half_bytes)
        rent = 0.0
        if cached_after and longest > h:
            used = record.kv_tokens_used / max(1.0, record.kv_tokens_capacity)
            pressure = min(1.0, max(0.0, (used - _PRESSURE_FROM) / (_PRESSURE_FULL - _PRESSURE_FROM)))
            rent = rent_weight * pressure * recompute
        scores[node, _FIXED] = correction * record.ms_fixed
        scores[node, _KV] = correction * recompute
        scores[node, _EMB] = correction * emb
        scores[node, _CANDIDATES] = correction * candidates * record.ms_per_candidate
        scores[node, _REFILL] = correction * refill
        scores[node, _RENT] = correction * rent
        scores[node, _CORRECTION] = correction
        service = scores[node, _FIXED] + scores[node, _KV] + scores[node, _EMB] + scores[node, _CANDIDATES] + scores[node, _REFILL]
        scores[node, _SERVICE] = max(service, floor_ms)
        scores[node, _PREDICTED] = scores[node, _QUEUE] + scores[node, _SERVICE]
        scores[node, _DELAY] = settings.delay_weight * waiting * scores[node, _SERVICE]
        scores[node, _SCORE] = scores[node, _PREDICTED] + scores[node, _RENT] + scores[node, _DELAY]


@kernel
def decay_shares(state: RouterState, now_ns: int) -> None:
    """Age the pick counts behind the share cap."""
    totals = state.totals[0]
    passed_ns = now_ns - totals.decayed_at_ns
    if passed_ns < _DECAY_STEP_NS:
        return
    factor = 0.5 ** (passed_ns / state.settings[0].share_half_life_ns)
    for node in range(state.nodes.shape[0]):
        state.nodes[node].recent_picks *= factor
    totals.decayed_at_ns = now_ns


@kernel
def _hard_filter(state: RouterState, node: int, barred: NDArray[np.int8]) -> int:
    phase = state.nodes[node].phase
    if phase == _PHASE_DRAINING:
        return _DRAINING
    if phase != _PHASE_READY:
        return _OFFLINE
    return int(barred[node])


@kernel
def _soft_filter(state: RouterState, node: int, now_ns: int, share_limit: float) -> int:
    settings = state.settings[0]
    record = state.nodes[node]
    if now_ns - record.load_at_ns > settings.fresh_ns:
        return _STALE
    if settings.policy != _JOINT:
        return _NONE  # the baselines are what they are
    if state.scores[node, _QUEUE] > settings.load_cap_ms:
        return _LOAD_CAP
    return _SHARE_CAP if record.recent_picks + 1.0 > share_limit else _NONE


@kernel
def write_filters(state: RouterState, now_ns: int, barred: NDArray[np.int8]) -> int:
    """Fill the FILTER column and `eligible`; returns how many nodes are eligible.

    Caps and staleness give way when they would leave nobody: a crowded node is better than an error.
    """
    settings = state.settings[0]
    able, recent = 0, 0.0
    for node in range(state.nodes.shape[0]):
        state.scores[node, _FILTER] = _hard_filter(state, node, barred)
        if state.scores[node, _FILTER] == _NONE:
            able += 1
            recent += state.nodes[node].recent_picks
    limit = np.inf
    if able > 1 and recent >= settings.share_picks_min * able:
        limit = settings.share_cap_ratio * (recent + 1.0) / able
    count = 0
    for node in range(state.nodes.shape[0]):
        if state.scores[node, _FILTER] == _NONE:
            state.scores[node, _FILTER] = _soft_filter(state, node, now_ns, limit)
            if state.scores[node, _FILTER] == _NONE:
                state.eligible[count] = node
                count += 1
    if count > 0:
        return count
    for node in range(state.nodes.shape[0]):
        if state.scores[node, _FILTER] > _FORCED:
            state.eligible[count] = node
            count += 1
    return count


@kernel
def write_preferences(state: RouterState, slot: int, history_tokens: int, candidates: int) -> None:
    """Fill the PREFERENCE column: the published rule's three weighted scores and its affinity bonus.

    Weights are the profiled costs of a KV miss, an EMB miss and queueing, normalised to one; load is
    the queue over `busy_ms`. Hit indicators stand for the resident prefix and the node's EMB hit ratio.
    """
    settings = state.settings[0]
    scores = state.scores
    last_node = int(state.users[slot].last_node) if slot != NO_SLOT else NO_SLOT
    n = float(history_tokens)
    for node in range(scores.shape[0]):
        record = state.nodes[node]
        kv_miss = record.ms_per_token * n + record.ms_per_token_squared * n * n
        emb_miss = (n + candidates) * record.ms_per_missing_row
        queue = kv_miss + emb_miss  # measured queueing delay near the spill threshold is about one service
        total = max(1e-9, kv_miss + emb_miss + queue)
        load = min(1.0, scores[node, _QUEUE] / settings.busy_ms)
        hit = 1.0 if scores[node, _CACHED] > 0.0 else 0.0
        preference = (kv_miss * hit + emb_miss * record.emb_hit_ratio + queue * (1.0 - load)) / total
        scores[node, _PREFERENCE] = preference + (settings.affinity_bonus if node == last_node else 0.0)


@kernel
def will_cache(state: RouterState, gap_ns: int) -> bool:
    """Whether a node admits this user's prefix: second request within the window, or no window at all."""
    window_ns = state.settings[0].admission_window_ns
    return window_ns == 0 or (gap_ns != NEVER and gap_ns <= window_ns)
