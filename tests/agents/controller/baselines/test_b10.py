"""B10 on nodes of 128 pages: pages go where residents are worth more, by comparison and within the floors."""

import numpy as np
import pytest

from agents.controller.baselines.b10 import B10, fragmentation
from agents.node.batch import Batch, StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.profiles import load_profile
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe

TINY = load_profile("cpu-tiny")
SECOND = 1_000_000_000
EVERYBODY = NodeConfig(controller="b10", admission="none")


def batch(user: int, tokens: int, rows: np.ndarray) -> Batch:
    blocks = tokens // TINY.block_tokens
    return Batch(
        user_keys=np.array([user], np.uint64),
        history_tokens=np.array([tokens], np.int64),
        block_hashes=np.arange(blocks, dtype=np.uint64) + np.uint64(1000 * user),
        block_offsets=np.array([0, blocks]),
        history_rows=np.zeros(tokens, np.int64),
        history_offsets=np.array([0, tokens]),
        candidate_rows=rows.astype(np.int64),
        candidate_offsets=np.array([0, rows.shape[0]]),
        reuse_gap_ns=np.full(1, SECOND),
        resident_elsewhere=np.zeros(1, np.bool_),
    )


def lived(node: Node, seconds: int, users: int, rows_hot: bool) -> Node:
    """Eight requests a second of users in turn; rows are the same few thousand, or never the same."""
    chance = np.random.default_rng(3)
    for step in range(8 * seconds):
        now_ns = step * SECOND // 8
        rows = chance.choice(30_000, 256, replace=False) if rows_hot else np.arange(256) + 40_000 + 256 * step
        ticket, _ = node.admit(now_ns, batch(1 + step % users, 256, rows))
        node.complete(now_ns, ticket, StageTimings(np.zeros(1), 1.0, 0.0, np.ones(1), 2.0))
        effects = node.tick(now_ns, TickInputs(0, 0.0, 0, 0))
        node.moves_done(now_ns, effects.serial)
    return node


def test_pages_go_to_prefixes_when_rows_never_come_back() -> None:
    node = lived(Node("n", TINY, EVERYBODY), seconds=60, users=30, rows_hot=False)
    assert node.ledger.emb_ratio < 0.4


def test_pages_go_to_rows_when_users_never_come_back() -> None:
    node = lived(Node("n", TINY, EVERYBODY), seconds=60, users=100_000, rows_hot=True)
    assert node.ledger.emb_ratio > 0.6


def test_a_prefix_counts_as_often_as_its_own_user_asks() -> None:
    node = Node("n", TINY, EVERYBODY)
    for step in range(40):
        user = 1 if step % 4 else 2
        ticket, _ = node.admit(step * SECOND // 8, batch(user, 256, np.arange(16)))
        node.complete(step * SECOND // 8, ticket, StageTimings(np.zeros(1), 1.0, 0.0, np.ones(1), 2.0))
    method = B10(GuardRails())
    method.show(node._residents())
    entries = node.state.entries[node.state.lists["entry"][:2]].reshape(1, 2)
    rates = dict(zip(entries["key"].ravel().tolist(), method._requests_per_second(entries, 5 * SECOND).ravel().tolist(), strict=True))
    assert rates[1] == pytest.approx(3.0 * rates[2], rel=0.02)


def test_floors_are_reservations() -> None:
    rails = GuardRails(emb_ratio_min=0.45, emb_ratio_max=0.55)
    node = lived(Node("n", TINY, EVERYBODY._replace(guard_rails=rails)), seconds=60, users=30, rows_hot=False)
    assert 0.44 < node.ledger.emb_ratio < 0.47


def test_what_holds_nothing_is_counted_as_fragmented() -> None:
    node = Node("n", TINY, EVERYBODY)
    assert fragmentation(node._residents()) == 1.0
    lived(node, seconds=20, users=30, rows_hot=False)
    assert fragmentation(node._residents()) < 0.1


def test_without_residents_it_holds() -> None:
    assert B10(GuardRails()).propose(observe(emb_ratio=0.4)).emb_ratio == 0.4
