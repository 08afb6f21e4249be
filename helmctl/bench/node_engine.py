"""What the engine adds to a request: everything between the bytes of a body and the bytes of its answer but the device.

The same requests are served twice, in pairs: by a device that answers at once, and by the real one. Both are kept
saturated with batches of eight. The first time per request is the overhead, their quotient its share. HTTP itself is
not in it; reading and writing the protocol's bodies, keys, hashes, queue, booking, curves and accounting are.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from helmctl.bench.demo_node import Bench, NullDevice, answer_all, demo_bodies, demo_device, demo_profile, running_engine
from helmctl.bench.report import Result, Say, ratio_of, result_of

BATCH = 8
AT_ONCE = 4 * BATCH  # one batch runs, one is prepared, two fill up: a batch is always full
REQUESTS = 400  # of a pair; 50 batches
DEADLINE_MS = 60_000.0  # nobody gives up
WARM_REQUESTS = 200


def measure(runs: int, say: Say) -> list[Result]:
    """`engine_overhead_us` and `engine_overhead_ratio`; also how full the batches were."""
    with TemporaryDirectory(prefix="helm-bench-") as folder:
        return uvloop.run(_measure(runs, say, Path(folder)))


async def _measure(runs: int, say: Say, folder: Path) -> list[Result]:
    profile = demo_profile(batch_max=BATCH, queue_max=AT_ONCE)
    warm, bodies = demo_bodies(profile, WARM_REQUESTS), demo_bodies(profile, REQUESTS, seed=2)
    null = NullDevice()
    pairs, sizes = [], []
    async with running_engine(profile, null) as idle, running_engine(profile, demo_device(profile, folder)) as real:
        for bench in (idle, real):
            await answer_all(bench, warm, AT_ONCE, DEADLINE_MS)
        for run in range(runs):
            before = null.batches
            pairs.append((await _seconds_each(idle, bodies), await _seconds_each(real, bodies)))
            sizes.append(REQUESTS / (null.batches - before))
            say(f"engine {run + 1}/{runs}: {pairs[-1][0] * 1e6:.0f} us of {pairs[-1][1] * 1e6:.0f} us a request")
    overhead = [alone * 1e6 for alone, _ in pairs]
    return [
        result_of("engine_overhead_us", overhead, "us"),
        ratio_of("engine_overhead_ratio", pairs),
        result_of("engine_overhead_batch", sizes, "requests"),
    ]


async def _seconds_each(bench: Bench, bodies: list[bytes]) -> float:
    begun = time.perf_counter()
    await answer_all(bench, bodies, AT_ONCE, DEADLINE_MS)
    return (time.perf_counter() - begun) / len(bodies)
