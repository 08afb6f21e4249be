"""One simulated fleet, stepped from decision to decision: all its nodes are agents that share one policy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Observation
from agents.learning.config import TrainingConfig
from agents.learning.led import LedLayers
from agents.learning.streams import TrainingStream
from agents.sim.fleet import ORIGIN_NS, FleetSetup, SimulatedFleet
from agents.sim.scenario import profiles_of, workload_of
from agents.wire.messages import GuardRails


class Seen(NamedTuple):
    """All nodes at one decision."""

    raw: NDArray[np.float64]  # [N, F]
    inputs: NDArray[np.float32]  # [N, F] normalised
    present: NDArray[np.float64]  # [N] granted ratios
    best: NDArray[np.float64]  # [N] best splits of the value curves
    observations: list[Observation]


class Window(NamedTuple):
    """What happened between two decisions."""

    squares_ms: float  # latency^2 / SLO, summed over what all nodes answered
    refused: int
    slo_ms: float  # the nodes' mean
    moved: NDArray[np.float64]  # [N] change of the granted ratio, absolute


class Episode:
    """`see`, `step`, `see`, ... until `ended`. `statistics` are the features' means and reciprocal scales, [2 F]."""

    def __init__(self, config: TrainingConfig, stream: TrainingStream, statistics: NDArray[np.float32]) -> None:
        scenario, rails = stream.scenario, GuardRails()
        profiles = profiles_of(scenario)
        paper = config.features == "paper"
        self._layers = [LedLayers(rails, config.action, statistics, paper=paper) for _ in profiles]
        self._slo_ms = np.array([profile.slo_ms for profile in profiles])
        setup = FleetSetup(
            profiles=profiles,
            admission=scenario.admission,
            router=scenario.router,
            seed=scenario.seed,
            duration_seconds=scenario.duration_seconds,
            warmup_seconds=scenario.warmup_seconds,
            emb_ratio_start=stream.start_ratio,
            settled=scenario.settled,
            controllers=self._layers.__getitem__,
        )
        self._fleet = SimulatedFleet(setup, workload_of(scenario, profiles[0]))
        self._period_ns = config.period_ns
        self._decisions = config.decisions
        self._taken = 0
        self._parts_read = self._refused = 0
        held = -(-int(config.episodes.hold_seconds * 1e9) // config.period_ns)  # decisions lie on multiples of the period
        self._now_ns = ORIGIN_NS + held * config.period_ns
        self._run()

    @property
    def ended(self) -> bool:
        """No decision is left."""
        return self._taken >= self._decisions

    @property
    def windows(self) -> int:
        """Decisions taken so far."""
        return self._taken

    def see(self) -> Seen:
        """The fleet just before the decision that is due now."""
        nodes = self._fleet.nodes
        observations = [node.observe(self._now_ns) for node in nodes]
        glances = [layers.glance(observation) for layers, observation in zip(self._layers, observations, strict=True)]
        return Seen(
            np.array([glance.raw for glance in glances]),
            np.array([glance.inputs for glance in glances]),
            np.array([observation.emb_ratio for observation in observations]),
            np.array([glance.best_ratio for glance in glances]),
            observations,
        )

    def step(self, wishes: NDArray[np.float64]) -> Window:
        """Let every node decide for its wish, and live until the next decision."""
        for layers, wish in zip(self._layers, wishes, strict=True):
            layers.wish.tell(float(wish))
        before = self._ratios()
        self._now_ns += self._period_ns
        self._taken += 1
        squares_ms, refused = self._run()
        return Window(squares_ms, refused, float(self._slo_ms.mean()), np.abs(self._ratios() - before))

    def _run(self) -> tuple[float, int]:
        """Up to the moment before the decision at `_now_ns`; (sum of latency^2 / SLO, refusals)."""
        self._fleet.advance(self._now_ns - 1)
        parts = self._fleet.statistics.parts
        fresh, self._parts_read = parts[self._parts_read :], len(parts)
        total = int(self._fleet.world.head[0]["refused"])
        refused, self._refused = total - self._refused, total
        return sum(float((part["latency_ms"] ** 2 / self._slo_ms[part["node"]]).sum()) for part in fresh), refused

    def _ratios(self) -> NDArray[np.float64]:
        return np.array([node.ledger.emb_ratio for node in self._fleet.nodes])
