"""What only the CPU device does: an emulated link, and laps of the host's clock."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from agents.profiles import load_profile
from agents.runtime.device.base import element_type
from agents.runtime.device.cpu import CpuStore
from agents.runtime.device.executor import TorchExecutor
from agents.runtime.device.link import Link
from agents.runtime.device.make import make_executor, refuse_what_cannot_run
from agents.runtime.device.table import HostTable, ensure_table
from agents.runtime.model import HstuRanker, init_weights
from tests.agents.runtime.device.parts import PROFILE, SHAPE, Ask, assemble, make_bench, make_timed_bench, row, run


def test_timings_are_measured_stage_by_stage(table_path: Path) -> None:
    ticks: Iterator[int] = iter(range(1000))
    bench = assemble(PROFILE, HostTable(table_path), lambda table: CpuStore(PROFILE, table, Link(1e9, 1e9), lambda: float(next(ticks))))
    done = run(bench, [Ask([1, 2], [3]), Ask([4], [5])])
    # readings: begun 0, hits 1, prefixes 2, misses 3, two requests 4 and 5, written 6
    assert done.timings.emb_ms == 2000.0
    assert done.timings.kv_ms == 2000.0
    assert done.timings.compute_ms.tolist() == [1000.0, 1000.0]
    assert done.timings.service_ms == 6000.0


def test_of_a_paced_profile_compute_ends_when_the_cost_model_says(table_path: Path) -> None:
    terms = {"ms_fixed": 10.0, "ms_per_token": 4.0, "ms_per_token_squared": 0.0, "ms_per_candidate": 1.0, "ms_kv_hit_floor": 3.0}
    cost = msgspec.structs.replace(PROFILE.cost, **terms)
    paced = msgspec.structs.replace(PROFILE, paced=True, cost=cost)
    slept: list[float] = []
    now = 0.0

    def clock() -> float:  # each reading a millisecond after the one before, and what was slept beside
        nonlocal now
        now += 1e-3
        return now + sum(slept)

    bench = assemble(paced, HostTable(table_path), lambda table: CpuStore(paced, table, Link(1e9, 1e9), clock, slept.append))
    plain = make_bench("cpu", PROFILE, table_path)
    asks = [Ask([1, 2, 3, 4], [5, 6]), Ask([1, 2, 3, 4, 7], [5], cached=4, read_pages=(0,))]
    done, real = run(bench, asks), run(plain, asks)
    assert slept == [pytest.approx(0.027), pytest.approx(0.014)]  # 10 + 4 x 4 + 2 and 10 + 4 + 1, less a reading
    assert done.timings.compute_ms.tolist() == [pytest.approx(29.0), pytest.approx(16.0)]  # two readings: before the sleep, after it
    assert all(np.array_equal(one, other) for one, other in zip(done.scores, real.scores, strict=True))


def test_a_paced_device_that_is_late_waits_for_nothing(table_path: Path) -> None:
    paced = msgspec.structs.replace(PROFILE, paced=True)  # milliseconds, of a clock that jumps a second a reading
    slept: list[float] = []
    ticks = iter(range(1000))
    bench = assemble(
        paced, HostTable(table_path), lambda table: CpuStore(paced, table, Link(1e9, 1e9), lambda: float(next(ticks)), slept.append)
    )
    run(bench, [Ask([1, 2], [3])])
    assert slept == [0.0]


def test_a_paced_profile_is_refused_for_a_device_that_is_real() -> None:
    with pytest.raises(ValueError, match="profile cpu-demo: paced is for emulated devices"):
        refuse_what_cannot_run("cuda", msgspec.structs.replace(load_profile("cpu-demo"), paced=True))


def test_missing_rows_take_the_time_of_the_link_and_hits_take_none(table_path: Path) -> None:
    waits: list[float] = []
    bench = make_timed_bench(table_path, waits)
    bench.executor.write_rows(np.array([17], dtype=np.int32), row(bench, 5)[None])
    run(bench, [Ask([5, 6, 6], [7, 6]), Ask([7, 7], [5])], resident={5: 17})
    assert waits == [pytest.approx(64e-6)]
    run(bench, [Ask([5], [5])], resident={5: 17})
    assert len(waits) == 1


def test_staged_rows_come_at_the_background_rate(table_path: Path) -> None:
    waits: list[float] = []
    bench = make_timed_bench(table_path, waits)
    bench.executor.stage_rows(np.arange(25))
    # 12 chunks of 64 bytes and a half one; three need no wait (two saved, one due), the last begins 10 periods later
    assert sum(waits) == pytest.approx(10 * 64 / 1e5 + 32 / 1e6)


def test_parts_of_different_profiles_are_refused_by_name(table_path: Path, tmp_path: Path) -> None:
    model = HstuRanker(SHAPE, init_weights(SHAPE, 3))
    table, link = HostTable(table_path), Link(1e6, 1e5)
    store = CpuStore(PROFILE, table, link)
    with pytest.raises(ValueError, match="kv_token_bytes is 64, the model makes 128"):
        TorchExecutor(msgspec.structs.replace(PROFILE, kv_token_bytes=64), store, model)
    with pytest.raises(ValueError, match="row_bytes is 16, the model reads 32"):
        TorchExecutor(msgspec.structs.replace(PROFILE, row_bytes=16), store, model)
    wide = msgspec.structs.replace(PROFILE, row_bytes=64, model=msgspec.structs.replace(SHAPE, dim=16))
    with pytest.raises(ValueError, match="the table has 8 elements a row, the profile 16"):
        CpuStore(wide, table, link)
    with pytest.raises(ValueError, match="the table has 10 rows, the profile 200"):
        CpuStore(PROFILE, HostTable(ensure_table(tmp_path, 10, 8, seed=1)), link)


def test_an_element_has_two_or_four_bytes(table_path: Path) -> None:
    assert element_type(PROFILE) is torch.float32
    assert element_type(msgspec.structs.replace(PROFILE, row_bytes=16)) is torch.bfloat16
    for row_bytes in (8, 64, 512):
        with pytest.raises(ValueError, match=f"row_bytes is {row_bytes}: a row of 8 has 2"):
            element_type(msgspec.structs.replace(PROFILE, row_bytes=row_bytes))


def test_the_device_computes_on_one_thread_and_says_that_it_is_emulated(table_path: Path) -> None:
    executor = make_executor("cpu", PROFILE, init_weights(SHAPE, 1), HostTable(table_path))
    assert torch.get_num_threads() == 1
    assert (executor.name, executor.emulated) == ("cpu", True)
