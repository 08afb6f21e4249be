"""Reports and routers for the tests of the core."""

import msgspec

from agents.router.router import Router, RouterConfig
from agents.wire.messages import NodeLoad, Phase

MS = 1_000_000
SECOND = 1_000_000_000
SMALL = RouterConfig(users_max=256, copies_max=512, reservations_max=256, ring=16)


def load(**changes: object) -> NodeLoad:
    """An idle, ready node with round coefficients."""
    values: dict[str, object] = {
        "at_unix_ns": 0,
        "phase": Phase.READY,
        "queued_ms": 0.0,
        "queue_depth": 0,
        "emb_hit_ratio": 0.5,
        "ms_fixed": 2.0,
        "ms_per_missing_row": 0.01,
        "ms_per_token": 0.02,
        "ms_per_token_squared": 1e-5,
        "ms_per_candidate": 0.005,
        "refill_backlog_bytes": 0,
        "kv_tokens_capacity": 10_000,
        "kv_tokens_used": 0,
        "served_total": 0,
    }
    return msgspec.convert(values | changes, NodeLoad)


def router(count: int = 3, seed: int = 0, now_ns: int = 0, **settings: object) -> Router:
    """A router whose nodes have all reported at `now_ns`."""
    made = Router([f"node-{i}" for i in range(count)], SMALL._replace(**settings), seed)  # type: ignore[arg-type]
    for index in range(count):
        made.node_load(index, now_ns, load())
    return made
