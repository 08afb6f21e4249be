"""Executes plans: a store moves rows and prefixes, HELM's ranker computes on them."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, Moves
from agents.numerics.cost import Cost, compute_ms
from agents.profiles import Profile
from agents.runtime.device.base import (
    DeviceExecutor,
    DeviceOutOfMemory,
    DeviceTimings,
    Execution,
    Gathered,
    LinkCounters,
    Stopwatch,
    refuse_out_of_memory,
)
from agents.runtime.device.store import RowSource, Store, check_table, parts_of
from agents.runtime.model import HstuRanker

_GATHER_LAPS = 3  # hits, prefixes, misses


class Parts(NamedTuple):
    """A model version on a device: what is exchanged when a new one is taken up."""

    model: HstuRanker
    table: RowSource


class TorchExecutor(DeviceExecutor):
    """One store with one model."""

    def __init__(self, profile: Profile, store: Store, model: HstuRanker) -> None:
        check_model(profile, model)
        self.name, self.emulated = store.name, store.emulated
        self.store = store
        self._profile = profile
        self._cost = Cost.of(profile.cost)
        self._model = model

    def execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        """Run a booked batch; `DeviceOutOfMemory` when a buffer cannot be had."""
        try:
            with refuse_out_of_memory("buffers of a batch"):
                return self._execute(plan, batch, actions, timestamps)
        except DeviceOutOfMemory:
            self.store.recover()
            raise

    @torch.inference_mode()
    def _execute(self, plan: BatchPlan, batch: Batch, actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> Execution:
        watch = self.store.stopwatch()
        gathered = self.store.gather(plan, watch)
        scores, fresh = self._rank(plan, batch, gathered, actions, timestamps, watch)
        self.store.write_blocks(plan, fresh)
        watch.mark()
        return Execution(self.store.download(scores), timings_of(watch.laps_ms()))

    def _rank(
        self,
        plan: BatchPlan,
        batch: Batch,
        gathered: Gathered,
        actions: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        watch: Stopwatch,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Scores and KV of the new tokens of each request; one lap each."""
        scores, fresh = [], []
        acts, times = self.store.upload(actions, timestamps)
        ranges = zip(parts_of(plan.row_offsets), parts_of(batch.history_offsets), plan.cached_tokens.tolist(), strict=True)
        for ((start, stop), (first, last), cached), prefix in zip(ranges, gathered.prefixes, strict=True):
            split = start + last - first - cached
            new_rows, candidates = gathered.rows[start:split], gathered.rows[split:stop]
            scored, new_kv = self._model.forward(new_rows, acts[first + cached : last], times[first:last], prefix, candidates)
            scores.append(scored)
            fresh.append(new_kv)
            watch.mark(self._pace_ms(last - first, cached, stop - split))
        return scores, fresh

    def _pace_ms(self, tokens: int, cached: int, candidates: int) -> float:
        """The least that a request's compute takes: what the cost model says of a paced profile."""
        return compute_ms(self._cost, float(tokens), float(cached), float(candidates)) if self._profile.paced else 0.0

    def install(self, parts: Parts) -> None:
        """Compute with another version from the next batch on; `ValueError` when it does not fit the profile."""
        check_model(self._profile, parts.model)
        check_table(self._profile, parts.table)
        self._model, self.store.table = parts

    def copy_rows(self, moves: Moves) -> None:
        """See `Store.copy_rows`."""
        self.store.copy_rows(moves)

    def write_rows(self, slots: NDArray[np.int32], rows: torch.Tensor) -> None:
        """See `Store.write_rows`."""
        self.store.write_rows(slots, rows)

    def stage_rows(self, row_ids: NDArray[np.int64]) -> torch.Tensor:
        """See `Store.stage_rows`."""
        return self.store.stage_rows(row_ids)

    def link_counters(self) -> LinkCounters:
        """See `Store.link_counters`."""
        return self.store.link_counters()


def check_model(profile: Profile, model: HstuRanker) -> None:
    """`ValueError` names what of the model does not fit the profile."""
    if model.token_floats * model.dtype.itemsize != profile.kv_token_bytes:
        raise ValueError(f"kv_token_bytes is {profile.kv_token_bytes}, the model makes {model.token_floats * model.dtype.itemsize}")
    if model.shape.dim * model.dtype.itemsize != profile.row_bytes:
        raise ValueError(f"row_bytes is {profile.row_bytes}, the model reads {model.shape.dim * model.dtype.itemsize}")


def timings_of(laps_ms: list[float]) -> DeviceTimings:
    """Stages from laps: hits, prefixes, misses, one per request, blocks written."""
    hits_ms, prefixes_ms, misses_ms = laps_ms[:_GATHER_LAPS]
    compute_ms, written_ms = laps_ms[_GATHER_LAPS:-1], laps_ms[-1]
    return DeviceTimings(hits_ms + misses_ms, prefixes_ms + written_ms, np.array(compute_ms), sum(laps_ms))
