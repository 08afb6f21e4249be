"""Domain randomisation: the request streams, loads, machines and start ratios that a policy is trained on.

They are drawn once per training run and come again and again, so that a stream's cost under a rule must be measured
only once. Seeds lie far above those of suites and benches, which therefore never meet a stream of training.
"""

from typing import NamedTuple

import numpy as np

from agents.learning.config import Episodes
from agents.sim.scenario import Scenario

SEED_MIN = 1_000_000  # suites and benches use small numbers
_STREAMS_PER_SEED_MAX = 10_000


class TrainingStream(NamedTuple):
    """One fleet's question and where its nodes begin."""

    scenario: Scenario
    start_ratio: float


def draw_streams(episodes: Episodes, seed: int) -> list[TrainingStream]:
    """The run's streams. Workloads, admissions and hardware take turns, so that each is met equally often; the rest is drawn."""
    if not 0 <= seed < 1_000_000:
        raise ValueError("seed: must be 0 to 999,999")
    chance = np.random.default_rng([seed, episodes.streams])
    order = chance.permutation(episodes.streams)
    return [_draw(episodes, int(turn), SEED_MIN + seed * _STREAMS_PER_SEED_MAX + int(turn), chance) for turn in order]


def _draw(episodes: Episodes, turn: int, seed: int, chance: np.random.Generator) -> TrainingStream:
    workloads = len(episodes.workloads)
    hardware = episodes.hardware[(turn // workloads + turn) % len(episodes.hardware)]
    rate = chance.uniform(*hardware.rate_per_node)
    start = float(chance.uniform(*episodes.start_ratio))
    scenario = Scenario(
        profile=hardware.profile,
        workload=episodes.workloads[turn % workloads],
        admission=episodes.admissions[(turn // workloads + turn // len(episodes.hardware)) % len(episodes.admissions)],
        nodes=episodes.nodes,
        rate_per_second=float(rate) * episodes.nodes,
        duration_seconds=episodes.seconds,
        warmup_seconds=episodes.hold_seconds,
        seed=seed,
        settled=episodes.settled,
    )
    return TrainingStream(scenario, start)
