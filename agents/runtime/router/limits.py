"""Every bound of the router daemon with its reason. Tests make them small."""

from typing import NamedTuple


class Limits(NamedTuple):
    """Sizes, times and counts that no client and no node can exceed."""

    body_bytes_max: int = 16 * 1024 * 1024  # the protocol's bound; above it 413
    head_bytes_max: int = 32 * 1024  # a request line with headers; tracing baggage fits, a flood does not
    headers_max: int = 100
    target_bytes_max: int = 4 * 1024
    pipelined_max: int = 32  # requests a client may send ahead
    connections_max: int = 2_048
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
