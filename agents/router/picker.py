"""The pick: one kernel call from a request's four numbers to a node and a reservation.

Joint policy: the best score wins; near-ties are drawn at random, so that several routers do not
herd; a user resident nowhere goes to its hash order's favourite inside a small latency window, so
that its next request finds the same node without anybody having to remember. The other policies
are the baselines, under their usual names.
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.router.costs import learn_request
from agents.router.hashing import mix
from agents.router.load import reserve
from agents.router.scorers import decay_shares, will_cache, write_cached, write_filters, write_preferences, write_scores
from agents.router.state import NEVER, NO_SLOT, Column, Policy, RouterState
from agents.router.users import find_or_add_user, find_user

_SCORE, _QUEUE, _PREDICTED, _SERVICE = int(Column.SCORE), int(Column.QUEUE), int(Column.PREDICTED), int(Column.SERVICE)
_CACHED, _PREFERENCE, _CORRECTION = int(Column.CACHED), int(Column.PREFERENCE), int(Column.CORRECTION)
_RENT, _COLUMNS = int(Column.RENT), len(Column)
_ROUND_ROBIN, _LEAST_LOADED = int(Policy.ROUND_ROBIN), int(Policy.LEAST_LOADED)
_CONSISTENT_HASH, _KV_AFFINITY = int(Policy.CONSISTENT_HASH), int(Policy.KV_AFFINITY)
_SHIFT = np.uint64(33)
FIRST_TRY = -2  # `gap_ns` of a request's first pick; a retry hands in what the first one found


@kernel
def _draw(state: RouterState, below: int) -> int:
    totals = state.totals[0]
    totals.random = mix(totals.random)
    return int(np.int64(totals.random >> _SHIFT)) % below


@kernel
def _lowest(state: RouterState, count: int, column: int, tie_ms: float, tie_ratio: float) -> int:
    best = np.inf
    for i in range(count):
        best = min(best, state.scores[state.eligible[i], column])
    limit = best + max(tie_ms, tie_ratio * best)
    ties, chosen = 0, NO_SLOT
    for i in range(count):
        if state.scores[state.eligible[i], column] <= limit:
            ties += 1
            if ties == 1 or _draw(state, ties) == 0:
                chosen = state.eligible[i]
    return chosen


@kernel
def _by_hash(state: RouterState, count: int, key: np.uint64, limit_ms: float) -> int:
    highest, chosen = np.uint64(0), NO_SLOT
    for i in range(count):
        node = state.eligible[i]
        if state.scores[node, _SCORE] > limit_ms:
            continue
        weight = mix(key ^ state.nodes[node].hash)
        if chosen == NO_SLOT or weight > highest:
            highest, chosen = weight, node
    return chosen


@kernel
def _joint(state: RouterState, count: int, key: np.uint64, longest: int) -> int:
    settings = state.settings[0]
    if longest > 0 or key == 0:
        return _lowest(state, count, _SCORE, settings.tie_ms, settings.tie_ratio)
    best = np.inf
    for i in range(count):
        best = min(best, state.scores[state.eligible[i], _SCORE])
    return _by_hash(state, count, key, best + max(settings.cold_window_ms, settings.cold_window_ratio * best))


@kernel
def _round_robin(state: RouterState, count: int) -> int:
    totals = state.totals[0]
    chosen = state.eligible[0]
    for i in range(count):
        if state.eligible[i] > totals.round_robin:
            chosen = state.eligible[i]
            break
    totals.round_robin = chosen
    return int(chosen)


@kernel
def _least_loaded(state: RouterState, count: int) -> int:
    fewest, ties, chosen = np.int64(1) << 62, 0, NO_SLOT
    for i in range(count):
        outstanding = state.nodes[state.eligible[i]].in_flight
        if outstanding < fewest:
            fewest, ties, chosen = outstanding, 1, state.eligible[i]
        elif outstanding == fewest:
            ties += 1
            if _draw(state, ties) == 0:
                chosen = state.eligible[i]
    return chosen


@kernel
def _kv_affinity(state: RouterState, count: int) -> int:
    settings = state.settings[0]
    best, ties, chosen = -np.inf, 0, NO_SLOT
    for i in range(count):
        preference = state.scores[state.eligible[i], _PREFERENCE]
        if preference > best:
            best, ties, chosen = preference, 1, state.eligible[i]
        elif preference == best:
            ties += 1
            if _draw(state, ties) == 0:
                chosen = state.eligible[i]
    if state.scores[chosen, _QUEUE] > settings.spill_ratio * settings.busy_ms:
        return _lowest(state, count, _QUEUE, settings.tie_ms, 0.0)
    return chosen


@kernel
def _choose(state: RouterState, count: int, key: np.uint64, slot: int, longest: int, tokens: int, candidates: int) -> int:
    policy = state.settings[0].policy
    if policy == _ROUND_ROBIN:
        return _round_robin(state, count)
    if policy == _LEAST_LOADED:
        return _least_loaded(state, count)
    if policy == _CONSISTENT_HASH:
        return _by_hash(state, count, key, np.inf) if key != 0 else state.eligible[_draw(state, count)]
    if policy == _KV_AFFINITY:
        write_preferences(state, slot, tokens, candidates)
        return _kv_affinity(state, count)
    return _joint(state, count, key, longest)


@kernel
def _gap(state: RouterState, slot: int, now_ns: int) -> int:
    if slot == NO_SLOT or state.users[slot].seen_ns == NEVER:
        return NEVER
    return int(max(0, now_ns - state.users[slot].seen_ns))


@kernel
def _takes_sample(state: RouterState, now_ns: int) -> bool:
    totals, settings = state.totals[0], state.settings[0]
    if settings.sample_every <= 0 or totals.picks % settings.sample_every != 0:
        return False
    earned = max(0, now_ns - totals.sample_at_ns) / 1e9 * settings.samples_per_second
    totals.sample_at_ns = max(totals.sample_at_ns, now_ns)
    totals.sample_tokens = min(settings.samples_per_second, totals.sample_tokens + earned)
    if totals.sample_tokens < 1.0:
        return False
    totals.sample_tokens -= 1.0
    return True


@kernel
def _sample(state: RouterState, now_ns: int) -> int:
    totals = state.totals[0]
    if not _takes_sample(state, now_ns):
        return NO_SLOT
    serial = totals.samples
    entry = state.ring[serial % state.ring.shape[0]]
    for node in range(entry.shape[0]):
        for column in range(_COLUMNS):
            entry[node, column] = state.scores[node, column]
    totals.samples += 1
    return int(serial)


@kernel
def pick(
    state: RouterState, now_ns: int, key: np.uint64, history_tokens: int, candidates: int, barred: NDArray[np.int8], gap_ns: int
) -> tuple[int, int, float, float, float, int, int, int, int]:
    """Choose a node and book it; writes every candidate's components to `state.scores`.

    `barred[N]` is 0 where the request may go, else the `Filter` that keeps it away. Returns (node,
    reservation, predicted_ms, service_ms, rent_ms, gap_ns, elsewhere, cached_tokens, sample): node
    `NO_SLOT` when nobody is ready; `elsewhere` is 1 when another node holds a longer prefix. The
    user's last-seen time moves on the first try only.
    """
    slot = NO_SLOT
    if key != 0:
        slot = find_user(state, key)
        if gap_ns == FIRST_TRY:
            slot = find_or_add_user(state, key)
            gap_ns = _gap(state, slot, now_ns)
            state.users[slot].seen_ns = now_ns
    elif gap_ns == FIRST_TRY:
        state.totals[0].without_user += 1
        gap_ns = NEVER
    decay_shares(state, now_ns)
    longest = write_cached(state, slot, history_tokens)
    write_scores(state, now_ns, history_tokens, candidates, longest, key != 0 and will_cache(state, gap_ns), barred)
    count = write_filters(state, now_ns, barred)
    if count == 0:
        return NO_SLOT, NO_SLOT, 0.0, 0.0, 0.0, gap_ns, 0, 0, _sample(state, now_ns)
    node = _choose(state, count, key, slot, longest, history_tokens, candidates)
    scores = state.scores[node]
    learn_request(state, history_tokens, candidates, scores[_SERVICE])
    reservation = reserve(state, node, now_ns, scores[_SERVICE] / scores[_CORRECTION], scores[_PREDICTED])
    state.nodes[node].recent_picks += 1.0
    state.nodes[node].picks_total += 1
    state.totals[0].picks += 1
    if slot != NO_SLOT:
        state.users[slot].last_node = node
    cached = int(scores[_CACHED])
    elsewhere = 1 if longest > cached else 0
    return (
        node,
        reservation,
        float(scores[_PREDICTED]),
        float(scores[_SERVICE]),
        float(scores[_RENT]),
        gap_ns,
        elsewhere,
        cached,
        _sample(state, now_ns),
    )
