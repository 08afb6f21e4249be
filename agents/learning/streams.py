"""Domain randomisation: the request streams, loads, machines and start ratios that a policy is trained on.

They are drawn once per training run and come again and again, so that a stream's reference cost must be measured only
once. Seeds lie far above those of suites and benches, which therefore never meet a stream of training.
"""

from typing import NamedTuple

import numpy as np

from agents.learning.config import Episodes
from agents.sim.scenario import Scenario

SEED_MIN = 1_000_000  # suites and benches use small numbers
STREAMS_MAX = 10_000  # of one run


class TrainingStream(NamedTuple):
    """One fleet's question and where its nodes begin."""

    scenario: Scenario
    start_ratio: float


def draw_streams(episodes: Episodes, seed: int) -> list[TrainingStream]:
    """The run's streams; more of them begin with the same ones. `ValueError` for a seed out of range."""
    if not 0 <= seed < 1_000_000:
        raise ValueError("seed: must be 0 to 999,999")
    return [_draw(episodes, number, SEED_MIN + seed * STREAMS_MAX + number) for number in range(episodes.streams)]


def _draw(episodes: Episodes, number: int, seed: int) -> TrainingStream:
    """Workloads, admissions and sizes take turns, so that each meets each; machine, load and start are drawn."""
    chance = np.random.default_rng(seed)
    lap, turn = divmod(number, len(episodes.workloads))
    workload, rate = list(episodes.workloads.items())[turn]
    admission = (lap + turn) % len(episodes.admissions)
    sizes = episodes.lesson_nodes or (episodes.nodes,)
    nodes = sizes[lap % len(sizes)]
    hardware = episodes.hardware[int(chance.integers(len(episodes.hardware)))]
    scenario = Scenario(
        profile=hardware.profile,
        workload=workload,
        admission=episodes.admissions[admission],
        nodes=nodes,
        rate_per_second=rate * float(chance.uniform(*hardware.rate_factor)) * nodes,
        duration_seconds=episodes.seconds,
        warmup_seconds=episodes.hold_seconds,
        seed=seed,
        settled=episodes.settled,
    )
    return TrainingStream(scenario, float(chance.uniform(*episodes.start_ratio)))
