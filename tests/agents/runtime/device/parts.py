"""A tiny device of every kind there is here, and plans for it that name each slot and page."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan
from agents.profiles import DeviceName, ModelShape, Profile, load_profile
from agents.runtime.device.base import Execution, element_type
from agents.runtime.device.cpu import CpuStore
from agents.runtime.device.executor import TorchExecutor
from agents.runtime.device.link import Link
from agents.runtime.device.make import make_ranker, make_store
from agents.runtime.device.store import Store
from agents.runtime.device.table import HostTable
from agents.runtime.model import HstuRanker, init_weights

SHAPE = ModelShape(layers=2, dim=8, heads=1, qk_dim=4, v_dim=4, tokens_max=40, actions=5, time_buckets=16)
PROFILE: Profile = msgspec.structs.replace(
    load_profile("cpu-demo"),
    pool_bytes=32 * 512,
    page_bytes=512,
    row_bytes=32,
    rows=200,
    kv_token_bytes=128,
    refill_bytes_per_second=1e9,
    link_bytes_per_second=1e9,
    model=SHAPE,
)
HALF_PROFILE = msgspec.structs.replace(PROFILE, pool_bytes=32 * 256, page_bytes=256, row_bytes=16, kv_token_bytes=64)
BLOCK = 4  # tokens in a page, which is 16 rows otherwise
NONE: dict[int, int] = {}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


class Ask(NamedTuple):
    """One request with everything the plan says about it."""

    history: list[int]
    candidates: list[int]
    cached: int = 0
    read_pages: tuple[int, ...] = ()
    write_pages: tuple[int, ...] = ()


class Bench(NamedTuple):
    executor: TorchExecutor
    store: Store
    table: HostTable
    model: HstuRanker


def kind_id(kind: tuple[str, Profile]) -> str:
    """Name of a device with the type of its elements, as it appears in a test's name."""
    return f"{kind[0]}-{'float32' if kind[1] is PROFILE else 'bfloat16'}"


def make_bench(device: DeviceName, profile: Profile, path: Path) -> Bench:
    """A device as a node makes it."""
    return assemble(profile, HostTable(path, element_type(profile)), lambda table: make_store(device, profile, table))


def make_timed_bench(path: Path, waits: list[float]) -> Bench:
    """A CPU device on whose link time passes only while it sleeps; `waits` gets every sleep."""
    link = Link(1e6, 1e5, chunk_bytes=64, clock=lambda: sum(waits), sleep=waits.append)
    return assemble(PROFILE, HostTable(path), lambda table: CpuStore(PROFILE, table, link))


def assemble(profile: Profile, table: HostTable, store_of: Callable[[HostTable], Store]) -> Bench:
    store = store_of(table)
    model = make_ranker(store, profile, init_weights(SHAPE, 3))
    return Bench(TorchExecutor(profile, store, model), store, table, model)


def actions_of(history: list[int]) -> NDArray[np.int64]:
    return np.arange(len(history), dtype=np.int64) * 3 % SHAPE.actions


def times_of(history: list[int]) -> NDArray[np.int64]:
    return 1_700_000_000 + np.cumsum(np.array(history, dtype=np.int64) * 100)


def offsets(parts: list[list[int]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, parts)]).astype(np.int64)


def flat(parts: list[list[int]], dtype: type) -> NDArray[np.int64]:
    return np.array([value for part in parts for value in part], dtype=dtype)


def make_batch(asks: list[Ask]) -> Batch:
    histories, candidates = [ask.history for ask in asks], [ask.candidates for ask in asks]
    count = len(asks)
    return Batch(
        user_keys=np.arange(1, count + 1, dtype=np.uint64),
        history_tokens=np.array([len(part) for part in histories], dtype=np.int64),
        block_hashes=np.empty(0, dtype=np.uint64),
        block_offsets=np.zeros(count + 1, dtype=np.int64),
        history_rows=flat(histories, np.int64),
        history_offsets=offsets(histories),
        candidate_rows=flat(candidates, np.int64),
        candidate_offsets=offsets(candidates),
        reuse_gap_ns=np.full(count, -1, dtype=np.int64),
        resident_elsewhere=np.zeros(count, dtype=np.bool_),
    )


def make_plan(asks: list[Ask], resident: dict[int, int], inserted: dict[int, int]) -> BatchPlan:
    """Plan of `asks` with rows in `resident` slots; missing rows go to their `inserted` slot or are forgotten."""
    needed = [[*ask.history[ask.cached :], *ask.candidates] for ask in asks]
    rows = sorted({row for part in needed for row in part})
    missing = [i for i, row in enumerate(rows) if row not in resident]
    reads, writes = [list(ask.read_pages) for ask in asks], [list(ask.write_pages) for ask in asks]
    return BatchPlan(
        cached_tokens=np.array([ask.cached for ask in asks], dtype=np.int64),
        miss_reasons=np.zeros(len(asks), dtype=np.int8),
        read_pages=flat(reads, np.int32).astype(np.int32),
        read_offsets=offsets(reads),
        write_pages=flat(writes, np.int32).astype(np.int32),
        write_offsets=offsets(writes),
        rows=np.array(rows, dtype=np.int64),
        row_slots=np.array([resident.get(row, -1) for row in rows], dtype=np.int32),
        row_index=np.array([rows.index(row) for part in needed for row in part], dtype=np.int32),
        row_offsets=offsets(needed),
        missing=np.array(missing, dtype=np.int32),
        insert_slots=np.array([inserted.get(rows[i], -1) for i in missing], dtype=np.int32),
    )


def run(bench: Bench, asks: list[Ask], resident: dict[int, int] = NONE, inserted: dict[int, int] = NONE) -> Execution:
    actions = np.concatenate([actions_of(ask.history) for ask in asks])
    times = np.concatenate([times_of(ask.history) for ask in asks])
    return bench.executor.execute(make_plan(asks, resident, inserted), make_batch(asks), actions, times)


def from_scratch(bench: Bench, history: list[int], candidates: list[int], rows: torch.Tensor | None = None) -> NDArray[np.float32]:
    """The model alone on rows straight from the table (or on `rows`): no arena, no cache, no batch."""
    device = bench.store.device
    scores, _ = bench.model.forward(
        (bench.table.gather(np.array(history)) if rows is None else rows).to(device),
        torch.from_numpy(actions_of(history)).to(device),
        torch.from_numpy(times_of(history)).to(device),
        torch.empty(0, bench.model.token_floats, dtype=bench.model.dtype, device=device),
        bench.table.gather(np.array(candidates)).to(device),
    )
    return scores.cpu().numpy()


def assert_close(bench: Bench, scores: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert scores.shape == expected.shape
    assert scores.dtype == np.float32
    assert np.abs(scores - expected).max() <= TOLERANCE[bench.model.dtype]


def row(bench: Bench, row_id: int) -> torch.Tensor:
    return bench.table.gather(np.array([row_id]))[0].to(bench.store.device)
