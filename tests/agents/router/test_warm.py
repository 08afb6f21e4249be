"""After warming up nothing is left to compile."""

import numba

from agents.router.router import Router
from agents.router.warm import warm_up
from agents.wire.messages import ResidencySnapshot
from tests.agents.router.nodes import SMALL, load


def test_a_warm_router_compiles_nothing_more() -> None:
    warm_up()
    compiled: list[object] = []
    with numba.core.event.install_listener("numba:compile", numba.core.event.RecordingListener()) as listener:
        fleet = Router([f"n{i}" for i in range(5)], SMALL)
        for i in range(5):
            fleet.node_load(i, 0, load())
        fleet.residency(0, ResidencySnapshot(seq=1, user_keys=[2**63 + 5], cached_tokens=[64]))
        for key in (0, 5, 2**63 + 5):
            fleet.completed(1, fleet.pick(0, key, 64, 10).reservation, 2.0)
        fleet.reap(5)
        fleet.node_gone(1)
        compiled = listener.buffer
    assert compiled == []
