"""Every bound of the router daemon with its reason. Tests make them small."""

import contextlib
import resource
from typing import NamedTuple

OWN_FILES = 96  # the listener, the loop's own, logs, a journal, libraries as they load, look-ups of names
NODE_FILES = 2  # of each node besides requests: its stream of residency, and the reuse told to it


class Limits(NamedTuple):
    """Sizes, times and counts that no client and no node can exceed."""

    body_bytes_max: int = 16 * 1024 * 1024  # the protocol's bound; above it 413
    head_bytes_max: int = 32 * 1024  # a request line with headers; tracing baggage fits, a flood does not
    headers_max: int = 100
    target_bytes_max: int = 4 * 1024
    pipelined_max: int = 32  # requests a client may send ahead
    connections_max: int = 2_048
    refused_max: int = 64  # connections above that, which still hear why; those above these are cut off without a word
    in_flight_max: int = 1_024  # answered 429 above: nodes' queues are shorter than this
    buffered_bytes_max: int = 512 * 1024 * 1024  # bodies held for a possible retry, all clients together
    head_seconds: float = 10.0  # first byte to end of headers (slowloris)
    body_seconds: float = 30.0  # end of headers to end of body
    idle_seconds: float = 75.0  # keep-alive without a request
    write_seconds: float = 30.0  # a client that does not read its answer
    linger_seconds: float = 5.0  # a refused body is read and thrown away so long, that the client sees the refusal
    connect_seconds: float = 1.0
    attempt_seconds: float = 10.0  # one node's time to answer
    request_seconds: float = 25.0  # all attempts together
    retries_max: int = 2
    retry_ratio: float = 0.2  # of requests; above it a sick fleet would be beaten by its own retries
    retry_pause_seconds: float = 0.005  # at most, drawn evenly: the load of a dead node must not arrive elsewhere at one instant
    fail_open: bool = False  # whether requests are sent blindly when no node is known to be ready; a probe's 503 is honest
    retry_burst: float = 128.0  # a whole node's queue and batch may die at once
    hedge_seconds: float = 0.0  # after which one more node is asked; 0: never
    hedge_ratio: float = 0.05  # of requests: what hedging may cost a fleet that is slow as a whole
    hedge_burst: float = 8.0
    response_buffer_bytes: int = 256 * 1024  # held back, so that a node dying mid-answer costs the client nothing
    upstream_idle_seconds: float = 15.0  # below the nodes' own keep-alive: they never close on a request
    upstream_idle_max: int = 256  # idle connections kept per node
    breaker_failures: int = 3
    breaker_open_seconds: float = 1.0  # doubled per failed trial up to the next line, jittered
    breaker_open_seconds_max: float = 8.0
    silence_seconds: float = 3.0  # fifteen load reports: the node is not heard
    reconnect_seconds: float = 0.5
    frame_bytes_max: int = 64 * 1024 * 1024
    reuse_seconds: float = 1.0
    reuse_timeout_seconds: float = 5.0
    reap_seconds: float = 1.0
    sweep_seconds: float = 0.25
    drain_seconds: float = 15.0
    explained_max: int = 1_024  # request ids that can still be explained


def within_descriptors(limits: Limits, nodes: int) -> Limits:
    """The same limits, or smaller ones where this process may not open so many files; raises its soft limit as far as needed.

    Clients, requests on their way to nodes and connections kept for the next get a third each: without a descriptor
    for the way to a node, a client that was let in cannot be served.
    """
    attempts = 2 if limits.hedge_seconds > 0.0 else 1  # a hedged request holds two connections
    largest = max(limits.connections_max, limits.in_flight_max * attempts, limits.upstream_idle_max * nodes)
    reserved = OWN_FILES + limits.refused_max + NODE_FILES * nodes
    share = (_allow_descriptors(reserved + 3 * largest) - reserved) // 3
    return limits._replace(
        connections_max=max(1, min(limits.connections_max, share)),
        in_flight_max=max(1, min(limits.in_flight_max, share // attempts)),
        upstream_idle_max=max(1, min(limits.upstream_idle_max, share // nodes)),
    )


def _allow_descriptors(wanted: int) -> int:
    """Raise the soft limit to `wanted`, or as near as the hard one lets it come; returns how many of them there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # some systems allow a process less than its hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return soft
