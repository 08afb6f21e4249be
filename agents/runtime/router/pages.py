"""The router's own pages: health, fleet view, explained picks, metrics."""

import math
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from agents.numerics import sketch
from agents.runtime.router import http
from agents.runtime.router.metrics import exposition
from agents.runtime.router.server import Inbound
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import Phase

if TYPE_CHECKING:
    from agents.runtime.router.daemon import Explained, RouterDaemon

_JSON = b"application/json"
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_RECENT_MAX = 100  # a page of them, not the whole ring
OPEN_PAGES = frozenset({b"/v2/health/live", b"/v2/health/ready"})


class Answer(NamedTuple):
    """Status, body, type, finished header lines."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: bytes = b""


def respond(daemon: "RouterDaemon", request: Inbound, path: bytes) -> Answer:
    """Answer one of the router's own pages, or refuse in the protocol's words."""
    try:
        if request.method != b"GET":
            raise WireError(ErrorCode.INVALID_REQUEST, "this page is read with GET")
        if path in _OPEN:
            return _OPEN[path](daemon)
        if path == b"/v1/fleet":
            _authenticate(daemon, request)
            return Answer(200, msgspec.json.encode(fleet(daemon)))
        if path == b"/debug/picks":
            _authenticate(daemon, request)
            return _recent(daemon)
        if path.startswith(b"/debug/picks/"):
            _authenticate(daemon, request)
            return _explained(daemon, path.removeprefix(b"/debug/picks/"))
        raise WireError(ErrorCode.UNKNOWN_MODEL, "there is nothing at this path")
    except WireError as error:
        extra = http.refusal_lines(error)
        if error.code is ErrorCode.UNAUTHENTICATED:
            extra += b"www-authenticate: Bearer\r\n"
        return Answer(error.status, http.error_body(error.detail), headers=extra)


def _authenticate(daemon: "RouterDaemon", request: Inbound) -> None:
    if daemon.operator_of(request) is None:
        raise WireError(ErrorCode.UNAUTHENTICATED, "an operator's ticket or the fleet's key is needed")


def _live(daemon: "RouterDaemon") -> Answer:
    del daemon
    return Answer(200, b'{"live":true}')


def _ready(daemon: "RouterDaemon") -> Answer:
    if daemon.draining:
        raise WireError(ErrorCode.DRAINING, "the router is shutting down")
    if daemon.brain.ready_count() == 0:
        raise WireError(ErrorCode.NO_READY_NODE, "no node is ready")
    return Answer(200, b'{"ready":true}')


def _metrics(daemon: "RouterDaemon") -> Answer:
    return Answer(200, exposition(daemon.counters, daemon.gauges), _TEXT)


_OPEN: dict[bytes, Callable[["RouterDaemon"], Answer]] = {
    b"/v2/health/live": _live,
    b"/v2/health/ready": _ready,
    b"/metrics": _metrics,
}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def fleet(daemon: "RouterDaemon") -> dict[str, Any]:
    """What the router knows about itself and its nodes."""
    now_ns = time.monotonic_ns()
    gauges = daemon.gauges()
    counters = daemon.counters
    window = daemon.latency.counts(now_ns)
    totals = gauges.totals
    return {
        "router": {
            "name": daemon.fleet.router.name,
            "policy": daemon.brain.config.policy,
            "phase": Phase.DRAINING if daemon.draining else Phase.READY,
            "picks_total": totals["picks"],
            "picks_per_second": daemon.picks_per_second,
            "requests_total": sum(counters.requests.values()),
            "retries_total": counters.retries_total,
            "hedges_total": counters.hedges_total,
            "hedges_won_total": counters.hedges_won_total,
            "failures_total": counters.failures_total,
            "cold_requests_total": counters.cold_requests_total,
            "in_flight": gauges.in_flight,
            "connections": gauges.connections,
            "latency_ms_p50": _finite(sketch.quantile(window, 0.5)),
            "latency_ms_p99": _finite(sketch.quantile(window, 0.99)),
            "latency_count": int(window.sum()),
            "users_known": totals["users"],
            "copies_known": totals["copies"],
            "users_dropped_total": totals["users_dropped"],
            "copies_dropped_total": totals["copies_dropped"],
            "reservations": totals["reservations"],
            "reservations_expired_total": totals["reservations_expired"],
            "stream_losses_total": counters.stream_losses_total,
            "residency_gaps_total": counters.gaps_total,
            "state_bytes": gauges.state_bytes,
        },
        "attribution": {"count": gauges.attribution.count, "components": gauges.attribution.means()},
        "nodes": [
            view._asdict() | {"breaker_open": is_open, "endpoint": pool.endpoint.decode(), "connections": pool.open_count}
            for view, is_open, pool in zip(gauges.nodes, gauges.breakers_open, daemon.pools, strict=True)
        ],
    }


def _explained(daemon: "RouterDaemon", request_id: bytes) -> Answer:
    name = request_id.decode("ascii", "replace")
    known = daemon.explained.get(name)
    candidates = daemon.brain.explain(known.choice.sample) if known is not None else None
    if known is None or candidates is None:
        raise WireError(ErrorCode.UNKNOWN_MODEL, "no sampled pick of this request is kept")
    return Answer(200, msgspec.json.encode(_summary(daemon, name, known) | {"nodes": [candidate._asdict() for candidate in candidates]}))


def _recent(daemon: "RouterDaemon") -> Answer:
    """The newest picks that can still be explained, newest first."""
    newest = islice(reversed(daemon.explained.items()), _RECENT_MAX)
    return Answer(200, msgspec.json.encode([_summary(daemon, name, known) for name, known in newest]))


def _summary(daemon: "RouterDaemon", request_id: str, known: "Explained") -> dict[str, Any]:
    choice, facts = known.choice, known.facts
    return {
        "request_id": request_id,
        "at_unix_ns": known.at_unix_ns,
        "picked": daemon.brain.names[choice.node_index] if choice.found else None,
        "predicted_ms": choice.predicted_ms,
        "rent_ms": choice.rent_ms,
        "reuse_gap_ms": choice.reuse_gap_ns / 1e6 if choice.reuse_gap_ns >= 0 else None,
        "resident_elsewhere": choice.resident_elsewhere,
        "cached_tokens": choice.cached_tokens,
        "history_tokens": facts.history_tokens,
        "candidates": facts.candidates,
        "predicted": known.predicted_ms,
        "observed": known.observed_ms,
    }
