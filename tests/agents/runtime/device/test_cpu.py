"""What only the CPU device does: an emulated link, and laps of the host's clock."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from agents.runtime.device.base import element_type
from agents.runtime.device.cpu import CpuStore
from agents.runtime.device.executor import TorchExecutor
from agents.runtime.device.link import Link
from agents.runtime.device.make import make_executor
from agents.runtime.device.table import HostTable, ensure_table
from agents.runtime.model import HstuRanker, init_weights
from tests.agents.runtime.device.parts import PROFILE, SHAPE, Ask, assemble, make_timed_bench, row, run


def test_timings_are_measured_stage_by_stage(table_path: Path) -> None:
    ticks: Iterator[int] = iter(range(1000))
    bench = assemble(PROFILE, HostTable(table_path), lambda table: CpuStore(PROFILE, table, Link(1e9, 1e9), lambda: float(next(ticks))))
    done = run(bench, [Ask([1, 2], [3]), Ask([4], [5])])
    # readings: begun 0, hits 1, prefixes 2, misses 3, two requests 4 and 5, written 6
    assert done.timings.emb_ms == 2000.0
    assert done.timings.kv_ms == 2000.0
    assert done.timings.compute_ms.tolist() == [1000.0, 1000.0]
    assert done.timings.service_ms == 6000.0


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
