"""The embedding table in host memory: one `.npy` file, made once from a seed, mapped by every node.

The mapping is read-only, so the nodes of a machine share one copy in the page cache. The file is
written beside its name and renamed: whoever sees it sees it whole. A lock lets one process write
while the others wait; it belongs to the open file, so it dies with its process.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

TABLE_TYPES = (np.dtype(np.float32), np.dtype(np.float16))
_CHUNK_ROWS = 16_384
_SPREAD = 0.25  # standard deviation: rows weigh about as much as what a layer adds to them


def ensure_table(folder: Path, rows: int, row_floats: int, seed: int) -> Path:
    """Path of the seeded table of that size in `folder`, written first if it is not there; `ValueError` when the disk has not the room."""
    path = folder / f"embeddings-{rows}x{row_floats}-seed{seed}.npy"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        size_bytes, free_bytes = rows * row_floats * 4, shutil.disk_usage(folder).free
        if not path.exists() and size_bytes > free_bytes:
            raise ValueError(f"{folder}: a table of {rows:,} rows takes {size_bytes:,} bytes, {free_bytes:,} are free")
        if not path.exists():  # another process may have written it while this one waited
            _write_table(path, rows, row_floats, seed)
    return path


def _write_table(path: Path, rows: int, row_floats: int, seed: int) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            _write_rows(file, rows, row_floats, seed)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_rows(file: BinaryIO, rows: int, row_floats: int, seed: int) -> None:
    # Not through a mapping: a full disk must be an error here, and it would be a bus error there.
    table_header(file, rows, row_floats)
    generator = np.random.Generator(np.random.Philox(seed))
    for start in range(0, rows, _CHUNK_ROWS):
        chunk = generator.standard_normal((min(_CHUNK_ROWS, rows - start), row_floats), dtype=np.float32)
        chunk *= _SPREAD
        append_rows(file, chunk)


def table_header(file: BinaryIO, rows: int, row_floats: int) -> None:
    """Begin a float32 table."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, row_floats)})


def append_rows(file: BinaryIO, rows: NDArray[np.float32]) -> None:
    """The next rows of a table begun with `table_header`."""
    file.write(rows.astype("<f4", copy=False).tobytes())


class TableInMemory:
    """A table read into `memory` `[rows, row_floats]`: nothing to be paged in when a row is wanted."""

    def __init__(self, table: "HostTable", memory: torch.Tensor) -> None:
        for start, piece in table.pieces():
            memory[start : start + piece.shape[0]] = piece
        self._memory = memory

    @property
    def rows(self) -> int:
        """Rows in the table."""
        return self._memory.shape[0]

    @property
    def row_floats(self) -> int:
        """Elements in a row."""
        return self._memory.shape[1]

    def gather(self, row_ids: NDArray[np.int64], out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy of the rows with these ids, `[R, row_floats]`, in `out` if given; `IndexError` for an id outside the table."""
        ids = torch.from_numpy(row_ids)
        return torch.index_select(self._memory, 0, ids) if out is None else torch.index_select(self._memory, 0, ids, out=out)


class HostTable:
    """Rows of a mapped `.npy` file `[rows, row_floats]`, float32 or float16, given out as `dtype`."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path.name}: not a table in .npy format ({getattr(error, 'strerror', None) or error})") from error
        if mapped.ndim != 2 or mapped.dtype not in TABLE_TYPES:
            raise ValueError(f"{path.name}: a table is float32 or float16 [rows, row_floats], this is {mapped.dtype} {mapped.shape}")
        self._rows: NDArray[np.floating] = np.asarray(mapped)
        self.dtype = dtype

    @property
    def rows(self) -> int:
        """Rows in the table."""
        return int(self._rows.shape[0])

    @property
    def row_floats(self) -> int:
        """Floats in a row."""
        return int(self._rows.shape[1])

    def gather(self, row_ids: NDArray[np.int64], out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy of the rows with these ids, `[R, row_floats]`, in `out` if given; `IndexError` for an id outside the table."""
        rows = torch.from_numpy(np.take(self._rows, row_ids, axis=0))
        return rows.to(self.dtype) if out is None else out.copy_(rows)

    def pieces(self, rows_max: int = _CHUNK_ROWS) -> Iterator[tuple[int, torch.Tensor]]:
        """The whole table in order, at most `rows_max` rows at a time, each with the id of its first row."""
        for start in range(0, self.rows, rows_max):
            yield start, torch.from_numpy(self._rows[start : start + rows_max].astype(np.float32)).to(self.dtype)
