"""A led base takes wishes as the frozen policy's are taken, or a policy would be trained in another world than it serves in."""

import math

import pytest

from agents.learning.led import Wish
from tests.agents.controller.observations import observe


def test_wishes_are_smoothed_and_held_as_the_frozen_policys_are() -> None:
    wish = Wish(period_ns=5_000_000_000, hold_ratio=0.04, follow_share=0.5)
    assert wish.propose(observe(emb_ratio=0.6)).emb_ratio == 0.6  # nothing told yet
    wish.tell(0.4)
    wish.tell(0.5)
    assert wish.propose(observe(emb_ratio=0.6)).emb_ratio == pytest.approx(0.45)
    assert wish.propose(observe(emb_ratio=0.48)).emb_ratio == 0.48  # not worth a move
    wish.tell(math.nan)
    wish.tell(0.7)
    assert wish.propose(observe(emb_ratio=0.6)).emb_ratio == 0.7
