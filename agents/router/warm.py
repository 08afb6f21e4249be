"""Compile every kernel of the router once, with the types the daemon and the simulator use."""

from agents.router.reuse import ClusterReuseStatistics
from agents.router.router import Router
from agents.router.state import POLICIES, RouterConfig
from agents.wire.messages import NodeLoad, Phase, ResidencyDelta, ResidencySnapshot

_LOAD = NodeLoad(
    at_unix_ns=0,
    phase=Phase.READY,
    queued_ms=1.0,
    queue_depth=1,
    emb_hit_ratio=0.5,
    ms_fixed=1.0,
    ms_per_missing_row=0.01,
    ms_per_token=0.01,
    ms_per_token_squared=1e-5,
    ms_per_candidate=0.01,
    refill_backlog_bytes=0,
    kv_tokens_capacity=1_000,
    kv_tokens_used=10,
    served_total=0,
)


def warm_up() -> None:
    """Run every kernel on a router of two nodes; the compiled code lands in the cache on disk."""
    for policy in POLICIES:
        router = Router(["a", "b"], RouterConfig(policy=policy, users_max=64, copies_max=64, reservations_max=8, ring=4))
        for index in range(2):
            router.node_load(index, 0, _LOAD)
        router.residency(0, ResidencySnapshot(seq=1, user_keys=[7, 2**63 + 1], cached_tokens=[64, 128]))
        router.residency(0, ResidencyDelta(seq_first=2, seq=2, user_keys=[7], cached_tokens=[0]))
        for key in (0, 7, 2**63 + 1):
            choice = router.pick(1, key, 256, 10)
            router.completed(2, choice.reservation, 1.5)
        router.seen(2, [7], [0])
        router.resident_tokens(7)
        router.reap(3)
        router.node_view(0, 3)
        router.node_gone(0)
    statistics = ClusterReuseStatistics("warm", nodes=2, pool_tokens=1_000, block_tokens=64)
    statistics.seen(0, 7, 256)
    statistics.message(1, 1)
