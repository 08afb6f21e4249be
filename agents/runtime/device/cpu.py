"""The CPU device: real torch memory and compute, an emulated arena and an emulated link.

Nothing waits but the link. What it would carry is really gathered from host memory; the wait
fills up the time that the link would have taken.
"""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, Moves
from agents.profiles import Profile
from agents.runtime.device.base import FLOAT_BYTES, Arena, DeviceExecutor, DeviceTimings, Execution, LinkCounters, refuse_out_of_memory
from agents.runtime.device.link import Link
from agents.runtime.device.table import HostTable
from agents.runtime.model import HstuRanker


class CpuExecutor(DeviceExecutor):
    """Executes plans on one torch thread of the host."""

    name = "cpu"
    emulated = True

    def __init__(
        self, profile: Profile, model: HstuRanker, table: HostTable, link: Link, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        _check_fit(profile, model, table)
        torch.set_num_threads(1)  # the nodes of a machine share its cores, a second thread would only steal
        self.arena = Arena(profile, torch.device("cpu"))
        self._model = model
        self._table = table
        self._link = link
        self._clock = clock
        self._row_bytes = profile.row_bytes

    @torch.inference_mode()
    def execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        """Run a booked batch; `DeviceOutOfMemory` when a buffer cannot be had."""
        with refuse_out_of_memory("buffers of a batch"):
            begun = self._clock()
            rows = self._gather_rows(plan)
            gathered = self._clock()
            prefixes = self._gather_prefixes(plan)
            prefix_ms = _ms(self._clock() - gathered)
            scores, fresh, compute_ms = self._rank(plan, batch, rows, prefixes, actions, timestamps)
            written = self._clock()
            self._write_blocks(plan, fresh)
            ended = self._clock()
        kv_ms = prefix_ms + _ms(ended - written)
        return Execution(scores, DeviceTimings(_ms(gathered - begun), kv_ms, compute_ms, _ms(ended - begun)))

    @torch.inference_mode()
    def copy_rows(self, moves: Moves) -> None:
        """Copy rows inside the arena; the effect is that of copying one after the other."""
        if _chained(moves):
            for source, target in zip(moves.source_slots.tolist(), moves.target_slots.tolist(), strict=True):
                self.arena.rows[target] = self.arena.rows[source]
        else:
            held = self.arena.rows.index_select(0, torch.from_numpy(moves.source_slots))
            self.arena.rows.index_copy_(0, _index(moves.target_slots), held)

    @torch.inference_mode()
    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """Write staged rows into their slots; a slot of -1 is skipped."""
        wanted = np.flatnonzero(slots >= 0)
        self.arena.rows.index_copy_(0, _index(slots[wanted]), rows.index_select(0, torch.from_numpy(wanted)))

    @torch.inference_mode()
    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """Rows from the host table, `[R, row_floats]`, paced by the link's background rate."""
        with refuse_out_of_memory("staged rows"):
            staged = torch.empty(row_ids.shape[0], self._table.row_floats)
            step = max(1, self._link.chunk_bytes // self._row_bytes)
            for start in range(0, row_ids.shape[0], step):
                chunk = self._table.gather(row_ids[start : start + step])
                self._link.background(chunk.shape[0] * self._row_bytes)
                staged[start : start + step] = chunk
        return staged

    def link_counters(self) -> LinkCounters:
        """Bytes carried and time held back on the emulated link."""
        return self._link.counters()

    def _gather_rows(self, plan: BatchPlan) -> torch.Tensor:
        """Rows of all requests in the order of `row_index`; misses come over the link and are inserted on the way."""
        # A miss reads slot 0 here and is overwritten below: cheaper than two index lists.
        rows = self.arena.rows.index_select(0, torch.from_numpy(np.maximum(plan.row_slots, 0)))
        if plan.missing.shape[0]:
            fetched = self._fetch(plan.rows[plan.missing])
            rows.index_copy_(0, _index(plan.missing), fetched)
            self.write_rows(plan.insert_slots, fetched)
        return rows.index_select(0, torch.from_numpy(plan.row_index))

    def _fetch(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        started = self._link.clock()
        rows = self._table.gather(row_ids)
        self._link.foreground(row_ids.shape[0] * self._row_bytes, started)
        return rows

    def _gather_prefixes(self, plan: BatchPlan) -> list[torch.Tensor]:
        """KV of each request's reused prefix, copied out of the arena before anything of this batch is written to it."""
        pages = self.arena.pages.index_select(0, torch.from_numpy(plan.read_pages))
        tokens = pages.view(-1, self.arena.token_floats)
        return [tokens[start * self.arena.block_tokens : stop * self.arena.block_tokens] for start, stop in _parts(plan.read_offsets)]

    def _rank(
        self,
        plan: BatchPlan,
        batch: Batch,
        rows: torch.Tensor,
        prefixes: list[torch.Tensor],
        actions: NDArray[np.int64],
        timestamps: NDArray[np.int64],
    ) -> tuple[list[NDArray[np.float32]], list[torch.Tensor], NDArray[np.float64]]:
        """Scores, KV of the new tokens and milliseconds of each request."""
        scores, fresh = [], []
        compute_ms = np.zeros(len(prefixes))
        histories = _parts(batch.history_offsets)
        for i, ((start, stop), (first, last), prefix) in enumerate(zip(_parts(plan.row_offsets), histories, prefixes, strict=True)):
            begun = self._clock()
            cached = int(plan.cached_tokens[i])
            split = start + last - first - cached
            scored, new_kv = self._model.forward(
                rows[start:split],
                torch.from_numpy(actions[first + cached : last]),
                torch.from_numpy(timestamps[first:last]),
                prefix,
                rows[split:stop],
            )
            scores.append(scored.numpy())
            fresh.append(new_kv)
            compute_ms[i] = _ms(self._clock() - begun)
        return scores, fresh, compute_ms

    def _write_blocks(self, plan: BatchPlan, fresh: list[torch.Tensor]) -> None:
        for (start, stop), new_kv in zip(_parts(plan.write_offsets), fresh, strict=True):
            if stop > start:
                blocks = new_kv[: (stop - start) * self.arena.block_tokens].view(stop - start, -1)
                self.arena.pages.index_copy_(0, _index(plan.write_pages[start:stop]), blocks)


def _check_fit(profile: Profile, model: HstuRanker, table: HostTable) -> None:
    """Refuse to start with parts that were made for different profiles; `ValueError` names them."""
    if model.token_floats * FLOAT_BYTES != profile.kv_token_bytes:
        raise ValueError(f"kv_token_bytes is {profile.kv_token_bytes}, the model makes {model.token_floats * FLOAT_BYTES}")
    if not table.row_floats == model.shape.dim == profile.row_bytes // FLOAT_BYTES:
        raise ValueError(f"row_bytes is {profile.row_bytes}, the table has {table.row_floats} floats a row, the model {model.shape.dim}")
    if table.rows < profile.rows:
        raise ValueError(f"the table has {table.rows} rows, the profile {profile.rows}")


def _chained(moves: Moves) -> bool:
    """Whether a later copy reads or writes what an earlier one wrote, so that they cannot go at once."""
    targets = np.unique(moves.target_slots)
    return targets.shape[0] < moves.target_slots.shape[0] or bool(np.isin(moves.source_slots, targets).any())


def _index(values: NDArray[np.int32]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _parts(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    return list(pairwise(offsets.tolist()))


def _ms(seconds: float) -> float:
    return seconds * 1e3
