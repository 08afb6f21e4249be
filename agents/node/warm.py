"""Compile every kernel of a node by living a short life, so that no request waits for a compiler."""

import numpy as np

from agents.node.batch import Batch, StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.node.queue import RequestQueue
from agents.numerics.decimals import BYTES_MAX, all_finite, write_decimals
from agents.numerics.integers import LISTS_MAX, first_outside, parse_integers, take_lists
from agents.numerics.prefix import block_hashes
from agents.profiles import load_profile
from agents.wire.messages import ControlRequest, Mode, Phase

SECOND = 1_000_000_000


def warm_up() -> None:
    """Serve, tick, move both ways, fail and refill once on a throw-away node."""
    profile = load_profile("cpu-demo")
    node = Node("warm", profile, NodeConfig())
    for step in range(4):
        now_ns = step * SECOND
        ticket, plan = node.admit(now_ns, _batch(profile.block_tokens))
        if step == 3:
            node.abort(now_ns, ticket)
        else:
            node.complete(now_ns, ticket, StageTimings(np.zeros(1), 1.0, 1.0, np.ones(1), 3.0))
        node.control(now_ns, ControlRequest(mode=Mode.PIN, emb_ratio=0.3 if step % 2 else 0.7, reason="warm"))
        effects = node.tick(now_ns, TickInputs(0, 0.0, 0, 0))
        node.moves_done(now_ns, effects.serial)
        node.refill_commit(now_ns, np.arange(4, dtype=np.int64))
        node.residency_since(0)
        node.load(now_ns, 0, 0.0, Phase.READY, 0)
        del plan
    node.version_flip(4 * SECOND)
    warm_up_policy()
    queue = RequestQueue(4)
    queue.offer(1, 1, 0, SECOND, 1)
    queue.expire(0)
    queue.close(0, 1, np.empty(0, np.uint64), True)
    queue.drop(1)
    _read_and_write()


def _read_and_write() -> None:
    """The numbers of a body and of its answer."""
    text, numbers = np.frombuffer(b'{"data": [1, 2]}', np.uint8), np.empty(4, np.int64)
    take_lists(text, np.empty(text.shape[0] + LISTS_MAX, np.uint8), numbers, np.empty(LISTS_MAX, np.int64))
    parse_integers(text, numbers)
    first_outside(numbers, 4)
    all_finite(np.zeros(1, np.float32))
    write_decimals(np.zeros(1, np.float32), np.empty(BYTES_MAX + 2, np.uint8))


def warm_up_policy() -> None:
    """Let the three layers decide once on a throw-away node: a node that begins to decide by them must not compile first."""
    Node("warm", load_profile("cpu-tiny"), NodeConfig(controller="helm")).tick(SECOND, TickInputs(0, 0.0, 0, 0))


def _batch(block_tokens: int) -> Batch:
    history = np.arange(3 * block_tokens, dtype=np.int64)
    hashes = block_hashes(history, history, history, block_tokens)
    return Batch(
        user_keys=np.array([1], np.uint64),
        history_tokens=np.array([history.shape[0]], np.int64),
        block_hashes=hashes,
        block_offsets=np.array([0, hashes.shape[0]], np.int64),
        history_rows=history,
        history_offsets=np.array([0, history.shape[0]], np.int64),
        candidate_rows=np.arange(16, dtype=np.int64),
        candidate_offsets=np.array([0, 16], np.int64),
        reuse_gap_ns=np.array([SECOND], np.int64),
        resident_elsewhere=np.array([False]),
    )
