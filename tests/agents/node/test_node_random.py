"""Random lives of a node: whatever happens, no page is lost, owned twice or left reserved."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agents.node.batch import StageTimings
from agents.node.node import Node, TickInputs
from agents.pool.state import Counter
from agents.wire.errors import WireError
from agents.wire.messages import ControlRequest, Mode, VersionPart
from tests.agents.node.batches import batch_of
from tests.agents.node.test_node import tiny_node

REQUESTS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 14)), min_size=1, max_size=3, unique_by=lambda request: request[0])


class NodeLife(RuleBasedStateMachine):
    """Admissions, completions, failures, moves and commands in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.node: Node = tiny_node()
        self.now_ns = 0
        self.open: list[tuple[int, int]] = []
        self.unfinished: list[int] = []

    @rule(requests=REQUESTS, version=st.integers(0, 1), first=st.integers(0, 40))
    def admit(self, requests: list[tuple[int, int]], version: int, first: int) -> None:
        if self.open:
            return  # a body books the next batch once the present one cannot fail any more
        batch = batch_of(requests, block_tokens=2, candidates=tuple(range(first, first + 5)), version=version)
        ticket, plan = self.node.admit(self.now_ns, batch)
        assert len(set(plan.insert_slots[plan.insert_slots >= 0].tolist())) == int((plan.insert_slots >= 0).sum())
        self.open.append((ticket, len(requests)))

    @precondition(lambda self: self.open)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        ticket, count = self.open.pop()
        if fails:
            self.node.abort(self.now_ns, ticket)
        else:
            self.node.complete(self.now_ns, ticket, StageTimings(np.zeros(count), 1.0, 0.0, np.ones(count), 2.0))

    @rule(elapsed_ms=st.integers(1, 3000), acknowledged=st.booleans())
    def tick(self, elapsed_ms: int, acknowledged: bool) -> None:
        self.now_ns += elapsed_ms * 1_000_000
        effects = self.node.tick(self.now_ns, TickInputs(0, 0.0, 0, 0))
        self.unfinished.append(effects.serial)
        if acknowledged:
            while self.unfinished:
                self.node.moves_done(self.now_ns, self.unfinished.pop(0))
        self.node.refill_commit(self.now_ns, effects.refill_rows)

    @rule(ratio=st.floats(0.1, 0.9))
    def hold(self, ratio: float) -> None:
        self.node.control(self.now_ns, ControlRequest(mode=Mode.PIN, emb_ratio=ratio, reason="test"))

    @rule(part=st.sampled_from(VersionPart))
    def flip(self, part: VersionPart) -> None:
        self.node.version_flip(self.now_ns, part)

    @rule(pages=st.integers(10, 10) | st.integers(1, 12))
    def resize(self, pages: int) -> None:
        request = ControlRequest(mode=Mode.AUTO, pool_bytes=pages * self.node.profile.page_bytes)
        if pages == 10:  # with floors of a tenth no smaller pool has a page for each cache, and no larger one was allocated
            self.node.control(self.now_ns, request)
        else:
            with pytest.raises(WireError, match="pool_bytes"):
                self.node.control(self.now_ns, request)

    @invariant()
    def books_balance(self) -> None:
        self.node.ledger.check()
        assert sum(self.node.ledger.shares()) == 10
        if not self.open:
            assert not self.node.state.entries["pins"].any()
        assert self.node.state.counters[Counter.EMB_PAGES] >= 1


NodeLife.TestCase.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestNodeLife = NodeLife.TestCase
