"""Measures a device with requests in which one cause varies at a time; what is measured is what a node would run.

Each request goes through the executor as a plan of its own: hits lie in the upper half of the arena, prefixes
in the lower. Nothing is decided here, so nothing depends on what the caches would have done.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan
from agents.profiles import Profile
from agents.runtime.cost_fit import Sample
from agents.runtime.device.base import DeviceTimings
from agents.runtime.device.executor import TorchExecutor

SECONDS_APART = 3_600  # events of a history: spread over many time buckets
WARM_UPS = 2  # the first calls of a shape choose kernels and grow buffers
LENGTH_STEPS = 8  # histories from an eighth of the maximum to all of it
ROW_STEPS = 5  # numbers of rows, each twice the one before

Say = Callable[[str], None]


class Probe(NamedTuple):
    """A request to be measured: history tokens, cached of them, candidates; whether its rows are in the arena."""

    term: str
    tokens: int
    cached: int
    candidates: int
    resident: bool = True


def measure(executor: TorchExecutor, profile: Profile, runs: int, say: Say) -> list[Sample]:
    """Samples for `fit_cost`, each the median of `runs`; fills the arena with noise, so the executor must not be serving.

    Every round runs every request once: what else the machine does falls on all of them alike.
    """
    executor.store.arena.rows.normal_()  # zeros would multiply faster on some devices than anything real
    requests = [_request(profile, probe) for probe in probes(profile)]
    timings: list[list[DeviceTimings]] = [[] for _ in requests]
    for done in range(WARM_UPS + runs):
        say(f"round {done + 1} of {WARM_UPS + runs}")
        for request, found in zip(requests, timings, strict=True):
            found.append(executor.execute(*request).timings)
    return [_sample(probe, request[0], found[WARM_UPS:]) for probe, request, found in zip(probes(profile), requests, timings, strict=True)]


def _sample(probe: Probe, plan: BatchPlan, timings: list[DeviceTimings]) -> Sample:
    emb_ms = float(np.median([one.emb_ms for one in timings]))
    attend_ms = float(np.median([one.kv_ms + float(one.compute_ms.sum()) for one in timings]))
    misses = plan.missing.shape[0]
    return Sample(probe.term, probe.tokens, probe.cached, probe.candidates, plan.rows.shape[0] - misses, misses, emb_ms, attend_ms)


def probes(profile: Profile) -> Iterator[Probe]:
    """Requests that set the terms apart, within what the profile and half of its pool can hold."""
    block, candidates = profile.block_tokens, profile.candidates
    longest = _blocks(min(profile.model.tokens_max, profile.pages // 2 * block), block)
    lengths = sorted({max(block, _blocks(longest * step // LENGTH_STEPS, block)) for step in range(1, LENGTH_STEPS + 1)})
    rows_max = min(profile.pages // 2 * profile.rows_per_page, profile.rows) - longest
    casts = sorted({max(1, min(2 * candidates, rows_max) >> step) for step in range(ROW_STEPS)})
    for count in casts:
        yield Probe("link", block, block, count, resident=False)
        yield Probe("gather", block, block, count)
        yield Probe("candidates", lengths[len(lengths) // 2], lengths[len(lengths) // 2], count)
    usual = min(candidates, rows_max)
    for tokens in lengths:
        yield Probe("prefill", tokens, 0, usual)
    for cached, tokens in pairwise(lengths):
        yield Probe("delta", tokens, cached, usual)
        yield Probe("delta", tokens, tokens, usual)


def _blocks(tokens: int, block: int) -> int:
    return tokens // block * block


def _request(profile: Profile, probe: Probe) -> tuple[BatchPlan, Batch, NDArray[np.int64], NDArray[np.int64]]:
    """One request whose rows are all different, so that as many are moved as are asked for."""
    uses = probe.tokens - probe.cached + probe.candidates
    rows = np.linspace(0, profile.rows - 1, uses).astype(np.int64)  # spread over the table, as real ids are
    slots = profile.pages // 2 * profile.rows_per_page + np.arange(uses, dtype=np.int32)
    missing = np.zeros(0, np.int32) if probe.resident else np.arange(uses, dtype=np.int32)
    read, blocks = probe.cached // profile.block_tokens, probe.tokens // profile.block_tokens
    plan = BatchPlan(
        cached_tokens=np.array([probe.cached], np.int64),
        miss_reasons=np.zeros(1, np.int8),
        read_pages=np.arange(read, dtype=np.int32),
        read_offsets=_offsets(read),
        write_pages=np.arange(read, blocks, dtype=np.int32),
        write_offsets=_offsets(blocks - read),
        rows=rows,
        row_slots=slots if probe.resident else np.full(uses, -1, np.int32),
        row_index=np.arange(uses, dtype=np.int32),
        row_offsets=_offsets(uses),
        missing=missing,
        insert_slots=slots[: missing.shape[0]],
    )
    history = np.zeros(probe.tokens, np.int64)
    batch = Batch(
        user_keys=np.ones(1, np.uint64),
        history_tokens=np.array([probe.tokens], np.int64),
        block_hashes=np.zeros(0, np.uint64),
        block_offsets=_offsets(0),
        history_rows=history,
        history_offsets=_offsets(probe.tokens),
        candidate_rows=np.zeros(probe.candidates, np.int64),
        candidate_offsets=_offsets(probe.candidates),
        reuse_gap_ns=np.full(1, -1, np.int64),
        resident_elsewhere=np.zeros(1, np.bool_),
    )
    actions = np.arange(probe.tokens, dtype=np.int64) % profile.model.actions
    return plan, batch, actions, np.arange(probe.tokens, dtype=np.int64) * SECONDS_APART


def _offsets(length: int) -> NDArray[np.int64]:
    return np.array([0, length], np.int64)
