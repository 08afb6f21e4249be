import asyncio
import threading

import numpy as np

from agents.runtime.refill import RefillFeeder
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, tiny_profile, until


async def test_a_held_feeder_stages_nothing_and_tells_when_the_last_chunk_is_written() -> None:
    staged, deliveries = [], []
    go_on = threading.Event()

    def stage(rows: np.ndarray) -> str:
        staged.append(rows.tolist())
        assert go_on.wait(PATIENCE_SECONDS)
        return "rows"

    feeder = RefillFeeder(tiny_profile(), stage, lambda rows, rest, written: deliveries.append(written), asyncio.get_running_loop())
    feeder.want(np.arange(3))
    await until(lambda: staged == [[0, 1, 2]])
    assert not feeder.hold(0.01)
    feeder.want(np.arange(5, 7))
    go_on.set()
    await until(lambda: len(deliveries) == 1)
    assert not feeder.hold(0.01)  # staged is not written
    deliveries[0]()
    assert feeder.hold(0.01)
    assert staged == [[0, 1, 2]]
    feeder.resume()
    await until(lambda: staged == [[0, 1, 2], [5, 6]])
    await until(lambda: len(deliveries) == 2)
    deliveries[1]()
    await asyncio.to_thread(feeder.close)
