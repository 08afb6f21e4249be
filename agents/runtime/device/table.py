"""The embedding table in host memory: one `.npy` file, made once from a seed, mapped by every node.

The mapping is read-only, so the nodes of a machine share one copy in the page cache. The file is
written beside its name and renamed: whoever sees it sees it whole. A lock lets one process write
while the others wait; it belongs to the open file, so it dies with its process.
"""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

_CHUNK_ROWS = 16_384
_SPREAD = 0.25  # standard deviation: rows weigh about as much as what a layer adds to them


def ensure_table(folder: Path, rows: int, row_floats: int, seed: int) -> Path:
    """Path of the seeded table of that size in `folder`, written first if it is not there."""
    path = folder / f"embeddings-{rows}x{row_floats}-seed{seed}.npy"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, row_floats)}
    np.lib.format.write_array_header_1_0(file, header)
    generator = np.random.Generator(np.random.Philox(seed))
    for start in range(0, rows, _CHUNK_ROWS):
        chunk = generator.standard_normal((min(_CHUNK_ROWS, rows - start), row_floats), dtype=np.float32)
        chunk *= _SPREAD
        file.write(chunk.astype("<f4", copy=False).tobytes())


class HostTable:
    """Rows of a mapped `.npy` file of float32 `[rows, row_floats]`."""

    def __init__(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.ndim != 2 or mapped.dtype != np.float32:
            raise ValueError(f"{path.name}: a table is float32 [rows, row_floats], this is {mapped.dtype} {mapped.shape}")
        self._rows: NDArray[np.float32] = np.asarray(mapped)

    @property
    def rows(self) -> int:
        """Rows in the table."""
        return int(self._rows.shape[0])

    @property
    def row_floats(self) -> int:
        """Floats in a row."""
        return int(self._rows.shape[1])

    def gather(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Copy of the rows with these ids, `[R, row_floats]`; `IndexError` for an id outside the table."""
        return torch.from_numpy(np.take(self._rows, row_ids, axis=0))
