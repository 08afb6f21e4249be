"""What one pick costs: called from Python as the daemon does, and inside a kernel as the simulator does."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.router.load import complete
from agents.router.picker import FIRST_TRY, pick
from agents.router.router import Router, RouterConfig
from agents.router.state import RouterState
from agents.wire.messages import NodeLoad, Phase, ResidencySnapshot
from helmctl.bench.report import Result, Say, result_of

USERS_PER_NODE = 200
HISTORY_TOKENS, CANDIDATES = 384, 512
PICKS = 20_000
STEP_NS = 50_000  # 20,000 requests/s; all picks of a run lie inside the time that a load report is fresh


class _Fleet(NamedTuple):
    router: Router
    keys: NDArray[np.uint64]
    barred: NDArray[np.int8]


def measure(runs: int, say: Say) -> Sequence[Result]:
    """Median and 99th percentile per pick, and the memory of what is known about users."""
    results = []
    for nodes in (32, 1_000):
        say(f"picks among {nodes} nodes")
        results += _picks(nodes, runs)
    say("picks inside a kernel")
    return [*results, in_kernel(32, runs), _bytes_per_user()]


def _picks(nodes: int, runs: int) -> list[Result]:
    medians, tails = [], []
    for run in range(runs):
        took_us = _timed(_fleet(nodes, run))
        medians.append(float(np.median(took_us)))
        tails.append(float(np.quantile(took_us, 0.99)))
    tail = float(np.median(tails))
    ratio = [high / middle for high, middle in zip(tails, medians, strict=True)]
    return [
        result_of(f"pick_us_{nodes}_nodes", medians, "us", p99=tail),
        result_of(f"pick_tail_ratio_{nodes}_nodes", ratio, "ratio"),
    ]


def _timed(fleet: _Fleet) -> NDArray[np.float64]:
    router = fleet.router
    took_ns = np.empty(len(fleet.keys))
    for i, key in enumerate(fleet.keys.tolist()):
        start_ns = time.perf_counter_ns()
        choice = router.pick(i * STEP_NS, key, HISTORY_TOKENS, CANDIDATES)
        took_ns[i] = time.perf_counter_ns() - start_ns
        router.completed(i * STEP_NS, choice.reservation, choice.predicted_ms)
    return took_ns[len(took_ns) // 10 :] / 1e3


def _fleet(nodes: int, seed: int) -> _Fleet:
    """Loaded, full nodes and users of whom every tenth is new."""
    chance = np.random.default_rng(seed)
    router = Router([f"node-{index}" for index in range(nodes)], RouterConfig(), seed)
    for index in range(nodes):
        router.node_load(index, 0, _load(float(chance.uniform(0.0, 30.0))))
        first = 1 + index * USERS_PER_NODE
        held = ResidencySnapshot(seq=1, user_keys=list(range(first, first + USERS_PER_NODE)), cached_tokens=[256] * USERS_PER_NODE)
        router.residency(index, held)
    keys = chance.integers(1, int(1.1 * nodes * USERS_PER_NODE), PICKS).astype(np.uint64)
    return _Fleet(router, keys, np.zeros(nodes, dtype=np.int8))


def _load(queued_ms: float) -> NodeLoad:
    return NodeLoad(
        at_unix_ns=0,
        phase=Phase.READY,
        queued_ms=queued_ms,
        queue_depth=4,
        emb_hit_ratio=0.8,
        ms_fixed=2.0,
        ms_per_missing_row=0.01,
        ms_per_token=0.02,
        ms_per_token_squared=1e-5,
        ms_per_candidate=0.005,
        refill_backlog_bytes=0,
        kv_tokens_capacity=60_000,
        kv_tokens_used=57_000,
        served_total=0,
    )


@kernel
def _pick_all(state: RouterState, keys: NDArray[np.uint64], barred: NDArray[np.int8], history_tokens: int, candidates: int) -> None:
    for i in range(keys.shape[0]):
        choice = pick(state, i * STEP_NS, keys[i], history_tokens, candidates, barred, FIRST_TRY)
        complete(state, choice[1], choice[2], False)


def in_kernel(nodes: int, runs: int) -> Result:
    """What a pick costs the simulator: without the call from Python."""
    took_us = []
    for run in range(runs + 1):
        fleet = _fleet(nodes, run)
        start_ns = time.perf_counter_ns()
        _pick_all(fleet.router.state, fleet.keys, fleet.barred, HISTORY_TOKENS, CANDIDATES)
        took_us.append((time.perf_counter_ns() - start_ns) / 1e3 / len(fleet.keys))
    return result_of(f"pick_us_{nodes}_nodes_in_kernel", took_us[1:], "us")  # the first one compiles


def _bytes_per_user() -> Result:
    """Both tables, as full as they may become, for users with one copy each: the dearest case per copy."""
    state = Router(["a"]).state
    users = RouterConfig().users_max
    return result_of("bytes_per_user_per_node", [state.users.nbytes / users + state.copies.dtype.itemsize], "bytes")
