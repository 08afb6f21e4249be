"""The cluster's reuse statistics: how far apart, in tokens of other users, a user's requests lie.

Only a router sees the whole stream; a node sees what routers send it, and a value curve of that
stream feeds back on itself. Nodes price these histograms with their own prefill coefficients, which
is why they come in three: references, reusable prefix tokens, and their squares.
"""

import numpy as np

from agents.numerics.jit import bound
from agents.numerics.reuse import record_user
from agents.numerics.reuse_curve import Pace, edges, histogram_per_second, sampling_rate
from agents.numerics.reuse_state import new_reuse
from agents.wire.messages import ClusterReuse

BINS = 128
USERS_MAX = 65_536  # followed at once; above it the sampling rate falls by itself
HALF_LIFE_SECONDS = 30.0  # traffic turns within a minute; noise is the controllers' hysteresis' business


class ClusterReuseStatistics:
    """One router's share of the cluster's user stream, decayed with a half-life of half a minute."""

    def __init__(
        self,
        router_id: str,
        nodes: int,
        pool_tokens: int,
        block_tokens: int,
        *,
        window_ns: int = 60_000_000_000,
        rate: float = 1.0,
        stream_rate: float = 1.0,
        seed: int = 0,
        now_ns: int = 0,
        users_max: int = USERS_MAX,
    ) -> None:
        """Distances are binned up to `nodes * pool_tokens`: the KV of a fleet that is nothing else.

        A user enters the imagined cache at a second request within `window_ns`, as at the nodes.
        `stream_rate` is the thinning the stream came with (a simulation's), `rate` the total one wanted.
        """
        self.router_id = router_id
        self.nodes = nodes
        self._block_tokens = block_tokens
        self.state = new_reuse(
            float(nodes * pool_tokens),
            bins=BINS,
            channels=3,
            keys_max=users_max,
            sampling_rate=rate,
            stream_rate=stream_rate,
            window_ns=window_ns,
            half_life_fast_seconds=HALF_LIFE_SECONDS,
            seed=seed,
            now_ns=now_ns,
        )
        self._record = bound(record_user, self.state, 0, np.uint64(0), 0)

    def seen(self, now_ns: int, user_key: int, history_tokens: int) -> float:
        """One request of a user; returns its distance in tokens, infinite for a cold or unsampled one.

        Only full blocks can be cached, so only they take room and only they are reused.
        """
        return self._record(self.state, now_ns, user_key, history_tokens // self._block_tokens * self._block_tokens)  # type: ignore[arg-type]

    def message(self, now_ns: int, at_unix_ns: int, nodes: int | None = None) -> ClusterReuse:
        """What every node is told once a second; `nodes` are those that share the stream now."""
        histogram = histogram_per_second(self.state, now_ns, Pace.FAST)
        return ClusterReuse(
            router_id=self.router_id,
            at_unix_ns=at_unix_ns,
            nodes=self.nodes if nodes is None else nodes,
            requests_per_second=float(histogram[0].sum()),
            sampling_rate=sampling_rate(self.state),
            edges_tokens=edges(self.state).tolist(),
            references_per_second=histogram[0].tolist(),
            tokens_per_second=histogram[1].tolist(),
            tokens_squared_per_second=histogram[2].tolist(),
        )
