"""What can be told of the CUDA device without one. What it does with a GPU is the contract's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from agents.runtime.device.base import DeviceOutOfMemory, refuse_out_of_memory
from agents.runtime.device.cuda import COPY_PRIORITY, CudaStore, refuse_without_cuda
from agents.runtime.device.make import make_executor, make_store
from agents.runtime.device.table import HostTable, TableInMemory
from agents.runtime.model import HstuRanker, init_weights
from tests.agents.runtime.device.parts import PROFILE, SHAPE, Ask, make_bench, make_plan
from tests.agents.runtime.device.stand_in import Stream, stand_in


def test_without_a_gpu_the_device_is_refused_in_one_line(table_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    table = HostTable(table_path)
    for attempt in (
        refuse_without_cuda,
        lambda: make_store("cuda", PROFILE, table),
        lambda: make_executor("cuda", PROFILE, init_weights(SHAPE, 1), table),
        lambda: CudaStore(PROFILE, TableInMemory(table, torch.empty(200, 8))),
    ):
        with pytest.raises(ValueError, match=f"^device cuda: torch {torch.__version__} finds no CUDA device here$".replace("+", r"\+")):
            attempt()


@pytest.mark.parametrize(
    "saying",
    [
        "CUDA error: out of memory",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    ],
)
def test_what_cuda_says_when_memory_is_out_becomes_the_refusal(saying: str) -> None:
    with pytest.raises(DeviceOutOfMemory, match="device memory is exhausted: a test"), refuse_out_of_memory("a test"):
        raise RuntimeError(saying)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_in_memory_gives_the_rows_of_its_file(table_path: Path, dtype: torch.dtype) -> None:
    table = HostTable(table_path, dtype)
    held = TableInMemory(table, torch.empty(table.rows, table.row_floats, dtype=dtype))
    ids = np.array([199, 0, 7, 7])
    out = torch.empty(4, 8, dtype=dtype)
    assert held.gather(ids, out=out) is out
    assert torch.equal(out, table.gather(ids))
    assert torch.equal(held.gather(ids), table.gather(ids))
    assert (held.rows, held.row_floats) == (200, 8)
    with pytest.raises(IndexError):
        held.gather(np.array([200]))


def test_missing_rows_cross_the_link_beside_the_preparation_of_prefixes(table_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of which stream, in order: compute has its hits and prefixes to copy while the host looks misses up."""
    stand_in(monkeypatch)
    bench = make_bench("cuda", PROFILE, table_path)
    store, log = bench.store, []

    def noted(owner: object, name: str, words: str) -> None:
        whole = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **more: (log.append(words), whole(*given, **more))[1])

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        log.append(f"stream of priority {stream.priority}")
        yield
        log.append("back on compute")

    monkeypatch.setattr(torch.cuda, "stream", on)
    noted(store, "_prefixes", "prefixes asked of compute")
    noted(store.table, "gather", "host looks misses up")
    noted(Stream, "wait_event", "compute waits for the copy")
    ask = Ask(history=[1, 2, 3, 4, 5, 6], candidates=[7, 8], cached=4, read_pages=(20,))
    store.gather(make_plan([ask], resident={5: 0}, inserted={6: 1}), store.stopwatch())
    assert log == [
        "prefixes asked of compute",
        "host looks misses up",
        f"stream of priority {COPY_PRIORITY}",
        "back on compute",
        "compute waits for the copy",
    ]


def test_larger_chunks_of_queries_score_the_same() -> None:
    shape = msgspec.structs.replace(SHAPE, tokens_max=300)
    generator = torch.Generator().manual_seed(1)
    rows, candidates = torch.randn(300, 8, generator=generator), torch.randn(600, 8, generator=generator)
    actions, times = torch.arange(300) % 5, torch.arange(300) * 1_000
    scores = []
    for chunk_tokens in (7, 32, 256):
        ranker = HstuRanker(shape, init_weights(shape, 3), chunk_tokens=chunk_tokens)
        scores.append(ranker.forward(rows, actions, times, torch.empty(0, ranker.token_floats), candidates)[0])
    assert (scores[0] - scores[1]).abs().max() <= 1e-4
    assert (scores[2] - scores[1]).abs().max() <= 1e-4
