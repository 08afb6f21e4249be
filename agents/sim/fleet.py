"""A fleet under a virtual clock: the same router, queues and nodes as live; only device time is modelled.

Time runs inside one kernel (`events.run_until`). This driver stops it where Python's part of the brain is due:
ticks of the nodes (decisions, migration, refill), the router's reuse statistics, faults, samples. Those lie on a
heap, ties broken by a sequence number, so one seed gives one run. A tick that would change nothing is skipped.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.controller.interface import Controller
from agents.node.node import Effects, Node, NodeConfig, TickInputs
from agents.numerics.jit import bound
from agents.profiles import Profile
from agents.router.reuse import ClusterReuseStatistics
from agents.router.router import Router, RouterConfig
from agents.sim import faults, settle
from agents.sim.events import queued_ms, run_until
from agents.sim.faults import Fault
from agents.sim.memory import fill_in, leaves, part, room_for
from agents.sim.statistics import RunStatistics
from agents.sim.world import HOP_NS, LINK_SHARE_MIN, ROUTED, Memory, Stop, World, new_world, roomy
from agents.workloads.blocks import BlockWorkload, RequestBlock

ORIGIN_NS = 100_000_000_000  # the stream's time zero: what happens before is the settling
TICK_NS = 100_000_000
REUSE_PERIOD_NS = 1_000_000_000
SAMPLE_PERIOD_NS = 1_000_000_000
USERS_PER_NODE_MAX = 16_384  # followed by the router of a simulated fleet: several times those that fit into KV
RESERVATIONS_PER_NODE_MAX = 1_024


class FleetSetup(NamedTuple):
    """How a fleet is run; one profile per node."""

    profiles: tuple[Profile, ...]
    method: str = "b5"
    admission: str = "shipped"
    router: str = "joint"
    seed: int = 1
    duration_seconds: float = 300.0
    warmup_seconds: float = 30.0
    emb_ratio_start: float | None = None
    settled: bool = True  # begin as after long running; else empty
    faults: tuple[Fault, ...] = ()
    routed: NDArray[np.void] | None = None  # open loop: where every request of the stream goes
    controllers: Callable[[int], Controller] | None = None  # node's number to its own controller, instead of `method`
    router_settings: dict[str, Any] = {}
    hop_ns: int = HOP_NS  # router and gateway, each way
    jitter: tuple[float, ...] = ()  # equally likely factors on a batch's device time
    late_ms: tuple[float, ...] = ()  # equally likely delays of an answer beyond the hop


class SimulatedFleet:
    """Build once, run once. With `beginnings` it need not settle where the last fleet there began alike."""

    def __init__(self, setup: FleetSetup, workload: BlockWorkload, beginnings: settle.Beginnings | None = None) -> None:
        self._setup = setup
        self._row_shift = workload.row_shift
        profiles, count = setup.profiles, len(setup.profiles)
        self.nodes, memory = self._build_nodes()
        rules = self.nodes[0].policy
        config = RouterConfig(
            policy=setup.router,
            admission_window_ns=rules.user_refusal_window_ns,
            users_max=max(8_192, count * USERS_PER_NODE_MAX),
            copies_max=max(8_192, count * USERS_PER_NODE_MAX),
            reservations_max=max(1_024, count * RESERVATIONS_PER_NODE_MAX),
            sample_every=0,  # nobody asks for explanations
            ring=1,
        )._replace(**setup.router_settings)
        self.router = Router([node.name for node in self.nodes], config, setup.seed)
        for index, profile in enumerate(profiles):
            self.router.profiled(index, profile.name)
        pool_tokens = max(profile.pool_bytes // profile.kv_token_bytes for profile in profiles)
        self._reuse = ClusterReuseStatistics(
            "router-0",
            count,
            pool_tokens,
            profiles[0].block_tokens,
            window_ns=rules.user_window_ns,
            now_ns=0,
            users_max=min(65_536, 8_192 * count),
        )
        self.world = new_world(
            list(profiles),
            memory,
            self.router.state,
            self._reuse.state,
            self.nodes[0].policy,
            row_shift=self._row_shift,
            seconds=math.ceil(setup.duration_seconds) + 1,
            origin_ns=ORIGIN_NS,
            hop_ns=setup.hop_ns,
            jitter=setup.jitter,
            late_ms=setup.late_ms,
        )
        self.link_factors = np.ones(count)
        self.wishes = np.zeros(count, np.int64)  # rows that the last tick wanted refilled, sampled
        self._end_ns = ORIGIN_NS + int(setup.duration_seconds * 1e9)
        self._blocks: Iterator[RequestBlock] = workload.blocks(profiles[0].block_tokens)
        self._block = _EMPTY
        self._routed: NDArray[Any] = np.zeros(0, ROUTED)
        self._cursor = 0
        self._offset = 0
        self._reached_ns = 0
        self.routes: list[NDArray[Any]] = []
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._sequence = 0
        self.statistics = RunStatistics(list(profiles), self.nodes, setup.warmup_seconds, ORIGIN_NS, self.world)
        if setup.settled:
            self._begin_settled(workload, beginnings)
        self._schedule()

    # --- building -------------------------------------------------------------------------

    def _new_node(self, index: int) -> Node:
        setup = self._setup
        profile = setup.profiles[index]
        config = NodeConfig(
            controller=setup.method,
            admission=setup.admission,
            seed=setup.seed,
            emb_ratio_start=setup.emb_ratio_start,
            tick_ns=TICK_NS,
            row_sampling_rate=1.0 / (1 << self._row_shift),
        )
        return Node(f"node-{index}", profile, config, controller=setup.controllers(index) if setup.controllers else None)

    def _build_nodes(self) -> tuple[list[Node], Memory]:
        """Nodes whose states lie end to end. Each moves in at once, so that a fleet's memory never exists twice."""
        profiles = self._setup.profiles
        first_of_kind = [profiles.index(profile) for profile in profiles]
        patterns = {index: self._new_node(index) for index in sorted(set(first_of_kind))}
        pool, pool_bounds = room_for([patterns[index].state for index in first_of_kind])
        meters, meters_bounds = room_for([patterns[index].meters for index in first_of_kind])
        memory = Memory(pool, pool_bounds, meters, meters_bounds)
        return [_moved_in(self._new_node(index), index, memory) for index in range(len(profiles))], memory

    def renew(self, index: int) -> None:
        """The node starts again with empty caches, in its old place."""
        world = self.world
        memory = Memory(world.pool, world.pool_bounds, world.meters, world.meters_bounds)
        self.nodes[index] = _moved_in(self._new_node(index), index, memory)
        world.bodies[index]["published"] = 0

    def set_link(self, index: int, factor: float) -> None:
        """The node's link gives so much of what it should, from now on; what refill has of it stays refill's until the next tick."""
        body = self.world.bodies[index]
        body["link_share"] = max(LINK_SHARE_MIN, float(body["link_share"]) - self.link_factors[index] + factor)
        self.link_factors[index] = factor

    def _begin_settled(self, workload: BlockWorkload, beginnings: settle.Beginnings | None) -> None:
        if beginnings is None or not isinstance(workload, settle.TellsItself) or not isinstance(workload, settle.KnowsItsPast):
            self._settle(workload)
            return
        alike = self._before_time_starts(workload.digest)
        world = beginnings.begin(alike, self.world)
        if world is None:
            self._settle(workload)
            beginnings.keep(alike, self.world)
        else:
            self.world, self._reached_ns = world, ORIGIN_NS

    def _before_time_starts(self, stream: str) -> tuple[object, ...]:
        """Everything that has a say until then: no controller has, nor what happens later."""
        setup = self._setup._replace(method="", controllers=None, faults=(), routed=None, emb_ratio_start=None, warmup_seconds=0.0)
        return stream, setup, tuple(node.emb_pages for node in self.nodes)

    def _settle(self, workload: BlockWorkload) -> None:
        """Live a minute before time starts: the stream's own past, or, of a stream that has none, its first minute beforehand."""
        span_ns, head = int(settle.SECONDS * 1e9), self.world.head
        replayed: list[RequestBlock] = []
        if isinstance(workload, settle.KnowsItsPast):
            past = list(workload.past_blocks(self._setup.profiles[0].block_tokens))
        else:
            past = replayed = list(settle.first_minute(self._blocks))
        if not past:
            return
        settle.fill_rows(self.nodes, workload, past, self._setup.seed)
        head["settling"], head["origin_ns"], head["report_ns"] = 1, ORIGIN_NS - span_ns, ORIGIN_NS - span_ns
        coming, self._blocks = self._blocks, iter(past)
        self._next_block()
        self._run_kernel(ORIGIN_NS)
        self._blocks, self._block, self._offset = itertools.chain(replayed, coming), _EMPTY, 0
        self.routes.clear()
        head["settling"], head["origin_ns"], head["arrived"], head["refused"] = 0, ORIGIN_NS, 0, 0
        self.statistics.forget_answers()

    def _make_room(self, block: RequestBlock) -> None:
        if block.at_ns.shape[0]:
            rows = np.diff(block.history_offsets) + np.diff(block.candidate_offsets)
            self.world = roomy(self.world, int(np.diff(block.block_offsets).max()), int(rows.max()))

    # --- running --------------------------------------------------------------------------

    def run(self, *, progress: Callable[[float], None] | None = None, cancelled: Callable[[], bool] | None = None) -> bool:
        """Run to the end; False when cancelled."""
        total_ns = self._end_ns - ORIGIN_NS
        at_ns = ORIGIN_NS
        while at_ns < self._end_ns:
            if cancelled is not None and cancelled():
                return False
            at_ns = min(self._end_ns, at_ns + 5 * SAMPLE_PERIOD_NS)
            self.advance(at_ns)
            if progress is not None:
                progress((at_ns - ORIGIN_NS) / total_ns)
        self.statistics.close(self._end_ns, self.nodes, self.world)
        return True

    def advance(self, until_ns: int) -> None:
        """Let the fleet run to `until_ns`, Python's part of it included."""
        while self._heap and self._heap[0][0] <= until_ns:
            at_ns, _, event = heapq.heappop(self._heap)
            self._run_kernel(at_ns)
            event(at_ns)
        self._run_kernel(until_ns)

    def _run_kernel(self, until_ns: int) -> None:
        while self._reached_ns < until_ns:  # nothing that happens at a moment is due before it: many ticks fall on one
            stop, self._cursor = self._run_until(self.world, self._block, self._routed, self._cursor, until_ns)
            self.statistics.take_answers(self.world)
            if stop == Stop.TIME:
                self._reached_ns = until_ns
            if stop == Stop.BLOCK:
                self._next_block()

    def _next_block(self) -> None:
        self._offset += self._block.at_ns.shape[0]
        self._block = next(self._blocks, _EMPTY)
        self._cursor = 0
        self._make_room(self._block)
        requests = self._block.at_ns.shape[0]
        given = None if self.world.head[0]["settling"] else self._setup.routed  # routes are of the run, not of the past
        self._routed = np.zeros(requests, ROUTED) if given is None else given[self._offset : self._offset + requests]
        self.routes.append(self._routed)
        self.world.head["open_loop"] = int(given is not None)
        self._run_until = kernel_for(self.world, self._block, self._routed)

    def _at(self, at_ns: int, event: Callable[[int], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_ns, self._sequence, event))

    def _schedule(self) -> None:
        self._next_block()
        self._at(ORIGIN_NS, self._publish_reuse)
        for index in range(len(self.nodes)):
            self._at(ORIGIN_NS, lambda now_ns, index=index: self._tick(now_ns, index))  # type: ignore[misc]
        self._at(ORIGIN_NS, self._sample)
        for fault in self._setup.faults:
            begins_ns = ORIGIN_NS + int(fault.at_seconds * 1e9)
            self._at(begins_ns, lambda now_ns, fault=fault: faults.begin(self, now_ns, fault))  # type: ignore[misc]
            self._at(
                begins_ns + int(fault.for_seconds * 1e9),
                lambda now_ns, fault=fault: faults.end(self, now_ns, fault),  # type: ignore[misc]
            )

    # --- Python's part of the brain -------------------------------------------------------

    def _tick(self, now_ns: int, index: int) -> None:
        node, body = self.nodes[index], self.world.bodies[index]
        if body["phase"] == 1:
            effects = node.tick(now_ns, self._inputs(now_ns, index))
            node.moves_done(now_ns, effects.serial)  # copies inside the arena take microseconds
            self._carry_out(now_ns, index, effects)
            wait_ns = node.quiet_until_ns(now_ns) - now_ns
        else:
            wait_ns = TICK_NS
        self._at(now_ns + max(1, -(-wait_ns // TICK_NS)) * TICK_NS, lambda at_ns: self._tick(at_ns, index))

    def _inputs(self, now_ns: int, index: int) -> TickInputs:
        backlog_bytes = int(self.wishes[index]) * (self._setup.profiles[index].row_bytes << self._row_shift)
        world = self.world
        waiting_ms = queued_ms(world.done_ns, world.queues.size, world.queues.work_ns, index, now_ns)
        return TickInputs(int(world.queues.size[index, 0]), waiting_ms, backlog_bytes, 0)

    def _carry_out(self, now_ns: int, index: int, effects: Effects) -> None:
        """Count the decision, and refill what the budget lets through before the next tick."""
        node, profile = self.nodes[index], self._setup.profiles[index]
        self.statistics.decided(now_ns, index, effects)
        sampled_row_bytes = profile.row_bytes << self._row_shift
        budget = profile.refill_bytes_per_second * TICK_NS / 1e9 * self.link_factors[index]
        self.wishes[index] = effects.refill_rows.shape[0]
        rows = effects.refill_rows[: int(budget // sampled_row_bytes)]
        moved_bytes = rows.shape[0] * sampled_row_bytes
        if rows.shape[0]:
            node.refill_commit(now_ns, rows)
            self.statistics.refilled(index, moved_bytes)
        taken = moved_bytes / (TICK_NS / 1e9) / profile.link_bytes_per_second
        self.world.bodies[index]["link_share"] = max(LINK_SHARE_MIN, self.link_factors[index] - taken)

    def _publish_reuse(self, now_ns: int) -> None:
        next_ns = now_ns + REUSE_PERIOD_NS
        if any(node.next_decision_ns < next_ns for node in self.nodes):  # else nobody reads it before the next one
            message = self._reuse.message(now_ns, now_ns, nodes=max(1, self.router.ready_count()))
            for node in self.nodes:
                node.reuse(now_ns, message)
        self.router.reap(now_ns)
        self._at(next_ns, self._publish_reuse)

    def _sample(self, now_ns: int) -> None:
        self.statistics.sample(now_ns, self.nodes, self.world)
        self._at(now_ns + SAMPLE_PERIOD_NS, self._sample)


_kernels: dict[tuple[object, ...], Callable[..., tuple[int, int]]] = {}


def kernel_for(world: World, block: RequestBlock, routed: NDArray[Any]) -> Callable[..., tuple[int, int]]:
    """`run_until`, bound once in a process to every kind of block: a world's hundred arrays are of the same types in every fleet."""
    kind = tuple((part.dtype, part.flags.c_contiguous, part.flags.writeable) for part in (*block, routed))
    if kind not in _kernels:
        _kernels[kind] = bound(run_until, world, block, routed, 0, 0)
    return _kernels[kind]


def _moved_in(node: Node, index: int, memory: Memory) -> Node:
    """The node, its state now in its place of the fleet's memory."""
    state, meters = part(memory.pool, memory.pool_bounds, index), part(memory.meters, memory.meters_bounds, index)
    fill_in(state, leaves(node.state))
    fill_in(meters, leaves(node.meters))
    node.adopt(state, meters)
    return node


def _empty_block() -> RequestBlock:
    numbers, offsets = np.zeros(0, np.int64), np.zeros(1, np.int64)
    keys = np.zeros(0, np.uint64)
    return RequestBlock(numbers, keys, numbers, numbers, keys, offsets, numbers, offsets, numbers, offsets)


_EMPTY = _empty_block()
