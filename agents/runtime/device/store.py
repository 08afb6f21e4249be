"""The arena of a device and everything that moves in it; what is common to all devices.

A device adds how indices and rows reach it, what its clock is and how background traffic yields.
"""

from abc import abstractmethod
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import BatchPlan, Moves
from agents.profiles import Profile
from agents.runtime.device.base import Arena, Gathered, RowMover, Stopwatch, refuse_out_of_memory


class RowSource(Protocol):
    """An embedding table in host memory."""

    @property
    def rows(self) -> int:
        """Rows in the table."""

    @property
    def row_floats(self) -> int:
        """Elements in a row."""

    def gather(self, row_ids: NDArray[np.int64], out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy of the rows with these ids, `[R, row_floats]`; `IndexError` for an id outside the table."""


class Store(RowMover):
    """One arena, one table, one link. Called by one thread, but for `stage_rows`."""

    def __init__(self, profile: Profile, table: RowSource, device: torch.device) -> None:
        check_table(profile, table)
        self.device = device
        self.arena = Arena(profile, device)
        self.table = table
        self.row_bytes = profile.row_bytes

    @abstractmethod
    def stopwatch(self) -> Stopwatch:
        """A stopwatch that starts now."""

    @abstractmethod
    def upload(self, *parts: NDArray[np.integer]) -> list[torch.Tensor]:
        """Indices as int64 tensors on the device."""

    @abstractmethod
    def download(self, parts: list[torch.Tensor]) -> list[NDArray[np.float32]]:
        """Float32 tensors in host memory, when everything asked of the device before is done."""

    @abstractmethod
    def fetch(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Rows from the table over the link, at once, `[R, dim]` on the device."""

    def recover(self) -> None:
        """After a refusal for want of memory: give back what can be given back."""

    @torch.inference_mode()
    def gather(self, plan: BatchPlan, watch: Stopwatch) -> Gathered:
        """Copy hits and prefixes out of the arena, fetch misses and insert those with a slot. Marks three laps: hits, prefixes, misses.

        Misses come last: a device with streams copies out of the arena while the host looks them up.
        """
        # A miss reads slot 0 here and is overwritten below: cheaper than two index lists.
        slots, read_pages, missing, row_index = self.upload(np.maximum(plan.row_slots, 0), plan.read_pages, plan.missing, plan.row_index)
        rows = self.arena.rows.index_select(0, slots)
        watch.mark()
        prefixes = self._prefixes(plan, read_pages)
        watch.mark()
        if plan.missing.shape[0]:
            fetched = self.fetch(plan.rows[plan.missing])
            rows.index_copy_(0, missing, fetched)
            wanted = np.flatnonzero(plan.insert_slots >= 0)
            self._insert(plan.insert_slots[wanted], wanted, fetched)
        rows = rows.index_select(0, row_index)
        watch.mark()
        return Gathered(rows, prefixes)

    def _prefixes(self, plan: BatchPlan, read_pages: torch.Tensor) -> list[torch.Tensor]:
        """KV of each request's reused prefix, copied before anything of this batch is written."""
        tokens = self.arena.pages.index_select(0, read_pages).view(-1, self.arena.token_floats)
        block = self.arena.block_tokens
        return [tokens[start * block : stop * block] for start, stop in parts_of(plan.read_offsets)]

    @torch.inference_mode()
    def write_blocks(self, plan: BatchPlan, fresh: list[torch.Tensor]) -> None:
        """Write the new tokens' KV of each request, `[new, token_floats]`, to the pages booked for its full blocks."""
        if not plan.write_pages.shape[0]:
            return
        (pages,) = self.upload(plan.write_pages)
        for (start, stop), new_kv in zip(parts_of(plan.write_offsets), fresh, strict=True):
            if stop > start:
                blocks = new_kv[: (stop - start) * self.arena.block_tokens].reshape(stop - start, -1)
                self.arena.pages.index_copy_(0, pages[start:stop], blocks)

    @torch.inference_mode()
    def copy_rows(self, moves: Moves) -> None:
        """Copy rows inside the arena; the effect is that of copying one after the other."""
        if chained(moves):
            for source, target in zip(moves.source_slots.tolist(), moves.target_slots.tolist(), strict=True):
                self.arena.rows[target] = self.arena.rows[source]
        else:
            sources, targets = self.upload(moves.source_slots, moves.target_slots)
            self.arena.rows.index_copy_(0, targets, self.arena.rows.index_select(0, sources))

    @torch.inference_mode()
    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """Write staged rows into their slots; a slot of -1 is skipped."""
        wanted = np.flatnonzero(slots >= 0)
        self._insert(slots[wanted], wanted, rows)

    def _insert(self, slots: NDArray[np.int32], which: NDArray[np.int64], rows: torch.Tensor) -> None:
        if which.shape[0]:
            targets, sources = self.upload(slots, which)
            self.arena.rows.index_copy_(0, targets, rows.index_select(0, sources))

    @torch.inference_mode()
    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Rows from the host table, `[R, dim]`, paced by the link's background rate."""
        with refuse_out_of_memory("staged rows"):
            return self._stage(row_ids)

    @abstractmethod
    def _stage(self, row_ids: NDArray[np.int64]) -> torch.Tensor: ...


def check_table(profile: Profile, table: RowSource) -> None:
    """`ValueError` names what of the table does not fit the profile."""
    if table.row_floats != profile.model.dim:
        raise ValueError(f"the table has {table.row_floats} elements a row, the profile {profile.model.dim}")
    if table.rows < profile.rows:
        raise ValueError(f"the table has {table.rows} rows, the profile {profile.rows}")


def chained(moves: Moves) -> bool:
    """Whether a later copy reads or writes what an earlier one wrote, so that they cannot go at once."""
    targets = np.unique(moves.target_slots)
    return targets.shape[0] < moves.target_slots.shape[0] or bool(np.isin(moves.source_slots, targets).any())


def parts_of(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Start and stop of each part of a jagged array."""
    return list(pairwise(offsets.tolist()))
