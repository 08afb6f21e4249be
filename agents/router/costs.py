"""What compute costs on nodes of one profile: what the median one of them found.

A node learns its costs from the requests that it is sent. One that learned too much in a slow first second is sent
few, hardly any without a prefix, and so has nothing to unlearn it from: on four equal nodes one stood at a third of
the others' load for minutes. What nodes of one profile find differs by such accidents; a node that is truly slower
shows in its answers, which teach its own correction. The cost of a missing row stays the node's own: its link may be slow,
and every request tells of it.

The median and not the mean, so that one node with absurd numbers spoils nobody's; all four coefficients of one node, because
they were fitted together.
"""

import numpy as np

from agents.numerics.jit import kernel
from agents.router.state import NodePhase, RouterState

_OFFLINE = int(NodePhase.OFFLINE)
_EVERY_NS = 1_000_000_000
_REQUEST_STEP = 0.01  # a hundred picks


@kernel
def learn_request(state: RouterState, history_tokens: int, candidates: int, service_ms: float) -> None:
    """Follow what is asked for, and what it costs where it was sent."""
    totals = state.totals[0]
    step = _REQUEST_STEP if totals.mean_service_ms > 0.0 else 1.0
    totals.mean_service_ms += step * (service_ms - totals.mean_service_ms)
    totals.mean_tokens += step * (history_tokens - totals.mean_tokens)
    totals.mean_candidates += step * (candidates - totals.mean_candidates)


@kernel
def believe_costs(state: RouterState, node: int, now_ns: int, is_new: bool) -> None:
    """After a report: a new node's costs are what it says; once a second those of a profile are its median node's."""
    record = state.nodes[node]
    if is_new or record.profile == 0 or record.phase == _OFFLINE:
        _believe(state, node, node, now_ns)
    elif now_ns - record.believed_at_ns >= _EVERY_NS:
        median = _median_node(state, record.profile)
        for other in range(state.nodes.shape[0]):
            if state.nodes[other].profile == record.profile:
                _believe(state, other, median, now_ns)


@kernel
def _median_node(state: RouterState, profile: np.uint64) -> int:
    """The one that half of the nodes heard of this profile lie below; the lower of two, the first among equals."""
    median, known = 0, 0
    for node in range(state.nodes.shape[0]):
        known += _counts(state, node, profile)
    for node in range(state.nodes.shape[0]):
        if _counts(state, node, profile) and _rank(state, node, profile) == (known - 1) // 2:
            median = node
    return median


@kernel
def _rank(state: RouterState, node: int, profile: np.uint64) -> int:
    own_ms, rank = _cold_ms(state, node), 0
    for other in range(state.nodes.shape[0]):
        if _counts(state, other, profile):
            other_ms = _cold_ms(state, other)
            rank += other_ms < own_ms or (other_ms == own_ms and other < node)
    return rank


@kernel
def _counts(state: RouterState, node: int, profile: np.uint64) -> bool:
    return bool(state.nodes[node].profile == profile and state.nodes[node].phase != _OFFLINE)


@kernel
def _cold_ms(state: RouterState, node: int) -> float:
    """Compute of the usual request without a prefix, as the node itself would have it."""
    record, totals = state.nodes[node], state.totals[0]
    tokens = totals.mean_tokens
    return float(
        record.own_ms_fixed
        + record.own_ms_per_token * tokens
        + record.own_ms_per_token_squared * tokens * tokens
        + record.own_ms_per_candidate * totals.mean_candidates
    )


@kernel
def _believe(state: RouterState, node: int, found_by: int, now_ns: int) -> None:
    record, found = state.nodes[node], state.nodes[found_by]
    record.ms_fixed = found.own_ms_fixed
    record.ms_per_token = found.own_ms_per_token
    record.ms_per_token_squared = found.own_ms_per_token_squared
    record.ms_per_candidate = found.own_ms_per_candidate
    record.believed_at_ns = now_ns
