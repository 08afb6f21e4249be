"""A live run, and the same run in the simulator: once on the routes it took, once as a what-if would foretell it."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.sim.fleet import SimulatedFleet
from agents.sim.replay import Parity, Served
from agents.sim.scenario import Scenario, fleet_for, profiles_of
from agents.sim.validation.figures import Compared, Side, side
from agents.sim.validation.fitting import Device, Hop, fit_device, fit_hop
from agents.sim.world import ROUTED
from agents.workloads.block_adapter import BlockAdapter
from agents.workloads.request import Request, Workload

START_SECONDS = 5.0  # of a process's life: the first requests of every shape are slower, and of no later use
FLEET = "fleet"


class LiveNode(NamedTuple):
    """One node's journal, replayed."""

    name: str
    controller: str  # that decided
    parity: Parity
    served: list[Served]


class LiveRun(NamedTuple):
    """R requests in order of the stream; what was refused has node -1 and NaN latencies."""

    sent_ns: NDArray[np.int64]  # [R] since the first was due
    latency_ms: NDArray[np.float64]  # [R] sent to answered, at the client
    inside_ms: NDArray[np.float64]  # [R] of them queued or on the device, as the node says
    node: NDArray[np.int64]  # [R]
    begin_ns: int  # of the stream, on the nodes' clock
    nodes: list[LiveNode]
    late_ms_p99: float  # of the client itself
    host_cpu_ratio: float


class Sent:
    """The requests that were sent, at the times at which they were."""

    def __init__(self, workload: Workload, sent_ns: NDArray[np.int64]) -> None:
        self.name = workload.name
        self.duration_seconds = float(sent_ns[-1]) / 1e9
        self._workload = workload
        self._sent_ns = np.maximum.accumulate(sent_ns)

    def requests(self) -> Iterator[Request]:
        """In order of the stream."""
        for request, at_ns in zip(self._workload.requests(), self._sent_ns.tolist(), strict=False):
            yield request._replace(at_ns=at_ns)


class Validated(NamedTuple):
    """The device as found in the run's first part, and both predictions of the rest."""

    device: Device
    hop: Hop
    replayed: list[Compared]  # per node, on the routes as they were
    foretold: Compared  # the fleet, routed by the simulator
    utilisation: float  # measured, of the busiest node
    parity: bool


def validate(run: LiveRun, workload: Workload, scenario: Scenario) -> Validated:
    """Fit the device to what came before the scenario's warm-up ended, and predict what came after it. Who decided live decides again."""
    scenario = _decided_as(run, scenario)
    first_ns, split_ns = (run.begin_ns + int(seconds * 1e9) for seconds in (START_SECONDS, scenario.warmup_seconds))
    fitted = [one for node in run.nodes for one in node.served if first_ns <= one.now_ns < split_ns]
    device, hop = fit_device(fitted, profiles_of(scenario)[0].cost), _hop(run, fitted, scenario)
    known = msgspec.structs.replace(scenario, **device._asdict(), **hop._asdict())
    replay, forecast = _replay(run, workload, known), fleet_for(known)
    for fleet in (replay, forecast):
        fleet.run()
    kept = [[one for one in node.served if one.now_ns >= split_ns] for node in run.nodes]
    return Validated(
        device=device,
        hop=hop,
        replayed=[
            Compared(name=node.name, measured=_measured(run, kept[index], scenario, index), predicted=_predicted(replay, index))
            for index, node in enumerate(run.nodes)
        ],
        foretold=Compared(
            name=FLEET,
            measured=_measured(run, [one for served in kept for one in served], scenario, None),
            predicted=_predicted(forecast, None),
        ),
        utilisation=max(_busy_ratio(served, scenario) for served in kept),
        parity=all(node.parity.holds for node in run.nodes),
    )


def _decided_as(run: LiveRun, scenario: Scenario) -> Scenario:
    controllers = sorted({node.controller for node in run.nodes})
    if len(controllers) != 1:
        raise ValueError(f"controller: the nodes had {', '.join(controllers)}, a simulated fleet has one")
    return msgspec.structs.replace(scenario, method=controllers[0])


def _hop(run: LiveRun, fitted: list[Served], scenario: Scenario) -> Hop:
    """What a request spends outside queue and device, and until an idle device takes it, in the first part."""
    early = (run.sent_ns >= START_SECONDS * 1e9) & (run.sent_ns < scenario.warmup_seconds * 1e9)
    seconds = (scenario.warmup_seconds - START_SECONDS) * len(run.nodes)
    idle_ratio = max(0.0, 1.0 - sum(one.service_ms for one in fitted) / 1e3 / seconds)
    # requests that found the device idle wait least; the middle one of them waited for nothing but the hand-over
    hand_over_ms = float(np.quantile(np.concatenate([one.queue_ms for one in fitted]), idle_ratio / 2.0))
    return fit_hop((run.latency_ms - run.inside_ms)[early], hand_over_ms)


def _replay(run: LiveRun, workload: Workload, scenario: Scenario) -> SimulatedFleet:
    profile = profiles_of(scenario)[0]
    stream = BlockAdapter(Sent(workload, run.sent_ns), profile.rows, 0, scenario.seed.to_bytes(8, "little"))
    return fleet_for(scenario, routed=_routes(run, workload), stream=stream)


def _routes(run: LiveRun, workload: Workload) -> NDArray[np.void]:
    """Where each request went, and how long ago its user came before, as the router told the node."""
    routes = np.zeros(run.node.shape[0], ROUTED)
    routes["node"], routes["gap_ns"] = run.node, -1
    seen: dict[int, int] = {}
    for index, request in enumerate(islice(workload.requests(), run.node.shape[0])):
        at_ns = int(run.sent_ns[index])
        if request.user in seen:
            routes["gap_ns"][index] = at_ns - seen[request.user]
        seen[request.user] = at_ns
    return routes


# --- both sides ---------------------------------------------------------------------------


def _measured(run: LiveRun, served: list[Served], scenario: Scenario, node: int | None) -> Side:
    counted = run.sent_ns >= scenario.warmup_seconds * 1e9
    if node is not None:
        counted &= run.node == node
    rows = sum(one.rows_found + one.rows_missing for one in served)
    requests = sum(one.requests for one in served)
    return side(
        run.latency_ms[counted],
        sum(one.rows_found for one in served) / rows if rows else None,
        sum(one.prefixes_found for one in served) / requests if requests else None,
    )


def _predicted(fleet: SimulatedFleet, node: int | None) -> Side:
    answers = fleet.statistics.answers
    figures = fleet.statistics.cell() if node is None else fleet.statistics.per_node()[node]
    latency_ms = answers["latency_ms"] if node is None else answers["latency_ms"][answers["node"] == node]
    return side(latency_ms, figures["emb_hit_ratio"], figures["kv_hit_ratio"])


def _busy_ratio(served: list[Served], scenario: Scenario) -> float:
    return sum(one.service_ms for one in served) / 1e3 / (scenario.duration_seconds - scenario.warmup_seconds)
