import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.runtime.device import table
from agents.runtime.device.table import HostTable, ensure_table


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    first = ensure_table(tmp_path / "a", 1000, 8, seed=1)
    again = ensure_table(tmp_path / "b", 1000, 8, seed=1)
    other = ensure_table(tmp_path / "b", 1000, 8, seed=2)
    assert first.read_bytes() == again.read_bytes()
    assert again.read_bytes() != other.read_bytes()


def test_a_table_is_a_plain_npy_file_of_float32_rows(tmp_path: Path) -> None:
    rows = np.load(ensure_table(tmp_path, 40_000, 8, seed=1))
    assert (rows.dtype, rows.shape) == (np.dtype("<f4"), (40_000, 8))
    assert rows.std() == pytest.approx(0.25, rel=0.01)
    assert len(np.unique(rows[:, 0])) > 39_000  # no chunk repeats another


def test_a_table_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    before = ensure_table(tmp_path, 100, 8, seed=1).stat()
    after = ensure_table(tmp_path, 100, 8, seed=1).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_failed_write_leaves_neither_table_nor_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table, "_write_rows", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ensure_table(tmp_path, 100, 8, seed=1)
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")] == []
    monkeypatch.undo()
    assert HostTable(ensure_table(tmp_path, 100, 8, seed=1)).rows == 100


def _open_inode(folder: Path, together: Barrier, inodes: "Queue[int]") -> None:
    together.wait(60.0)
    inodes.put(ensure_table(folder, 20_000, 64, seed=1).stat().st_ino)


def test_processes_that_start_together_share_one_file(tmp_path: Path) -> None:
    """New processes, not forks: a fork would take over this one's threads' locks and whatever hears its signals."""
    context = multiprocessing.get_context("spawn")
    together, inodes = context.Barrier(3), context.Queue()
    openers = [context.Process(target=_open_inode, args=(tmp_path, together, inodes), daemon=True) for _ in range(3)]
    for opener in openers:
        opener.start()
    assert len({inodes.get(timeout=120.0) for _ in openers}) == 1
    for opener in openers:
        opener.join(30.0)
    assert sorted(entry.suffix for entry in tmp_path.iterdir()) == [".lock", ".npy"]


def test_gather_copies_rows_in_the_order_asked_with_repeats(tmp_path: Path) -> None:
    path = ensure_table(tmp_path, 50, 4, seed=1)
    rows = np.load(path)
    gathered = HostTable(path).gather(np.array([49, 3, 3, 0]))
    assert np.array_equal(gathered.numpy(), rows[[49, 3, 3, 0]])
    gathered.zero_()
    assert np.array_equal(np.load(path), rows)


def test_a_row_outside_the_table_is_an_error(tmp_path: Path) -> None:
    host = HostTable(ensure_table(tmp_path, 50, 4, seed=1))
    with pytest.raises(IndexError):
        host.gather(np.array([50]))


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros((3, 4), dtype=np.float64))
    with pytest.raises(ValueError, match=r"t.npy: a table is float32 or float16 \[rows, row_floats\], this is float64 \(3, 4\)"):
        HostTable(tmp_path / "t.npy")


@pytest.mark.parametrize("content", [b"", b"not a table", b"PK\x03\x04"])
def test_a_file_in_another_format_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"t.npy: not a table in .npy format"):
        HostTable(tmp_path / "t.npy")


def test_rows_come_in_the_type_asked_for_whatever_the_file_holds(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float16).reshape(3, 4)
    np.save(tmp_path / "t.npy", rows)
    for dtype in (torch.float32, torch.bfloat16):
        host = HostTable(tmp_path / "t.npy", dtype)
        assert torch.equal(host.gather(np.array([2, 0])), torch.from_numpy(rows[[2, 0]]).to(dtype))
        pieces = list(host.pieces(rows_max=2))
        assert [start for start, _ in pieces] == [0, 2]
        assert torch.equal(torch.cat([piece for _, piece in pieces]), torch.from_numpy(rows).to(dtype))


def test_a_table_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a table of 1,000,000,000,000 rows takes 32,000,000,000,000 bytes, [0-9,]+ are free"):
        ensure_table(tmp_path, 10**12, 8, seed=1)
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")] == []
