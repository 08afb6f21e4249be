"""How fast fleet traffic is drawn, where its best static split lies, and what sampling rows costs in truth."""

import time

import numpy as np
from numpy.typing import NDArray

from agents.profiles import Profile, load_profile
from agents.sim.splits import RATIOS, NodeStream, node_stream, replay_splits
from agents.workloads.catalogues import CATALOGUES, fleet_workload
from agents.workloads.fleet_workload import FleetWorkload
from helmctl.bench.report import Result, Say, result_of

PROFILE = "a100-80g"
NODES = 32
REQUESTS_PER_SECOND = 130.0  # of one node: utilisation 0.5-0.7 at the best split, whatever the cell
DRAWN_SECONDS = 30.0
# Thirty seconds before and at the end of the change that a regime is about; the whole stream, warm-up aside, for steady ones.
CELLS: dict[str, dict[str, tuple[float, float]]] = {
    "steady": {"": (30.0, 300.0)},
    "trend": {"begin": (0.0, 30.0), "end": (270.0, 300.0)},
    "burst": {"calm": (45.0, 75.0), "burst": (80.0, 110.0)},
    "cold-flood": {"before": (60.0, 90.0), "flood": (150.0, 180.0)},
}
SAMPLED_SECONDS = 60.0
SHIFT_FINE = 4  # one row in 16 stands for the truth; all of them would take an hour


def measure(runs: int, say: Say) -> list[Result]:
    """Draws per second with the time of one core, then one replay per cell: streams are seeded, so replays do not vary."""
    rates = [_drawn_per_second(seed) for seed in range(runs)]
    say(f"workloads: {np.median(rates):,.0f} requests/s drawn for {NODES} nodes")
    profile = load_profile(PROFILE)
    results = [result_of("workload_requests_per_second", rates, "1/s")]
    for catalogue in CATALOGUES:
        for regime, spans in CELLS.items():
            results += _best_splits(profile, catalogue, regime, spans, say)
    return [*results, *_sampling_errors(profile, runs, say)]


def _drawn_per_second(seed: int) -> float:
    workload = fleet_workload(
        "taobao", "steady", nodes=NODES, rate_per_second=NODES * REQUESTS_PER_SECOND, seed=seed, duration_seconds=DRAWN_SECONDS
    )
    next(workload.blocks(168))  # compiled before the clock starts
    began = time.perf_counter()
    requests = sum(block.at_ns.shape[0] for block in workload.blocks(168))
    return float(requests / (time.perf_counter() - began))


def _best_splits(profile: Profile, catalogue: str, regime: str, spans: dict[str, tuple[float, float]], say: Say) -> list[Result]:
    """The ratio of least work in each span, LRU without admission (the paper's setting), rows as after long running."""
    workload = fleet_workload(catalogue, regime, nodes=1, rate_per_second=REQUESTS_PER_SECOND, seed=1)
    stream, recent = _replayed(workload, profile)
    service = replay_splits(stream, profile, recent_rows=recent).service_ms
    found = []
    for span, (begin, end) in spans.items():
        inside = (stream.at_ns >= begin * 1e9) & (stream.at_ns < end * 1e9)
        work = service[:, inside].sum(axis=1)
        best = float(RATIOS[work.argmin()])
        name = "_".join(part for part in (catalogue, regime, span) if part).replace("-", "_")
        say(f"workloads: {name} best split {best:.2f}, utilisation {work.min() / 1e3 / (end - begin):.2f}")
        found.append(result_of(f"best_split_{name}", [best], "ratio"))
        found.append(result_of(f"work_at_half_over_best_{name}", [float(work[RATIOS.shape[0] // 2] / work.min())], "ratio"))
    return found


def _sampling_errors(profile: Profile, runs: int, say: Say) -> list[Result]:
    """EMB hit ratio of the usual sample against a sample 16 times as large, seed by seed."""
    errors = []
    for seed in range(min(runs, 3)):
        hits = [_emb_hit_ratio(profile, seed, shift) for shift in (8, SHIFT_FINE)]
        errors.append(abs(hits[0] - hits[1]))
    say(f"workloads: sampling one row in 256 moves the EMB hit ratio by {np.median(errors):.4f}")
    return [result_of("sampled_emb_hit_ratio_error", errors, "ratio")]


def _emb_hit_ratio(profile: Profile, seed: int, row_shift: int) -> float:
    workload = fleet_workload(
        "taobao", "steady", nodes=1, rate_per_second=REQUESTS_PER_SECOND, seed=seed, duration_seconds=SAMPLED_SECONDS, row_shift=row_shift
    )
    stream, recent = _replayed(workload, profile)
    return float(1.0 - replay_splits(stream, profile, ratios=np.array([0.5]), recent_rows=recent).missing_ratio.mean())


def _replayed(workload: FleetWorkload, profile: Profile) -> tuple[NodeStream, NDArray[np.int64]]:
    recent = workload.recent_rows(profile.pages * profile.rows_per_page >> workload.row_shift)
    return node_stream(workload.blocks(profile.block_tokens), workload.row_shift), recent
