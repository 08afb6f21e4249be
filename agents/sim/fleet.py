"""A fleet under a virtual clock: the same router, queues and nodes as live; only device time is modelled.

Events lie on one heap, ties broken by a sequence number, so one seed gives one run. What a live
body does between the calls into the brain (engine, residency stream, refill thread) is done here
in the same order, with the delays of a loopback network.
"""

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.node.batch import Batch, StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.node.queue import RequestQueue
from agents.numerics.prefix import block_hashes
from agents.profiles import Profile
from agents.router.reuse import ClusterReuseStatistics
from agents.router.router import Router, RouterConfig
from agents.sim.device import service_timings
from agents.sim.statistics import BUCKET_SECONDS, RunStatistics
from agents.wire.ids import user_key
from agents.wire.messages import Phase
from agents.workloads.request import Request, Workload

if TYPE_CHECKING:
    from agents.sim.scenario import Scenario

RESIDENCY_DELAY_NS = 20_000_000  # a live delta is on its way for about so long
LOAD_PERIOD_NS = 200_000_000
REUSE_PERIOD_NS = 1_000_000_000
HOP_NS = 500_000  # router and gateway together
DEADLINE_SLOS = 8  # as the live engine's default deadline
LINK_SHARE_MIN = 0.05  # refill never takes the whole link: it yields to the foreground


class _Waiting(NamedTuple):
    """A request between router and answer."""

    request: Request
    key: int
    arrival_ns: int
    hashes: NDArray[np.uint64]
    reuse_gap_ns: int
    resident_elsewhere: bool
    reservation: int


class _NodeBody:
    """What surrounds one node's brain: its queue, whether its device works, its refill budget."""

    def __init__(self, index: int, node: Node, profile: Profile) -> None:
        self.index = index
        self.node = node
        self.queue = RequestQueue(profile.queue_max)
        self.waiting: dict[int, _Waiting] = {}
        self.busy = False
        self.busy_until_ns = 0
        self.sequence = -1  # nothing known: the first frame is a snapshot
        self.refill_wish: NDArray[np.int64] = np.empty(0, np.int64)
        self.refill_rate = 0.0  # bytes per second being moved now


class SimulatedFleet:
    """Build once, run once."""

    def __init__(self, profile: Profile, scenario: "Scenario") -> None:
        self._profile = profile
        config = NodeConfig(
            controller=scenario.method, admission=scenario.admission, seed=scenario.seed, emb_ratio_start=_start_ratio(scenario)
        )
        nodes = [Node(f"node-{index}", profile, config) for index in range(scenario.nodes)]
        self._bodies = [_NodeBody(index, node, profile) for index, node in enumerate(nodes)]
        window_ns = 60_000_000_000 if scenario.admission == "shipped" else 0
        self._router = Router(
            [node.name for node in nodes], RouterConfig(policy=scenario.router, admission_window_ns=window_ns), scenario.seed
        )
        pool_tokens = profile.pool_bytes // profile.kv_token_bytes
        self._reuse = ClusterReuseStatistics("router-0", scenario.nodes, pool_tokens, profile.block_tokens, window_ns=window_ns)
        self._salt = scenario.seed.to_bytes(8, "little")
        self._duration_ns = int(scenario.duration_seconds * 1e9)
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._sequence = 0
        self._request_number = 0
        self.statistics = RunStatistics(profile, nodes, scenario.warmup_seconds)

    def run(
        self, workload: Workload, *, progress: Callable[[float], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> bool:
        """Run to the end of the scenario or of the stream; False when cancelled."""
        self._requests = workload.requests()
        self._next_arrival(0)
        for body in self._bodies:
            self._at(0, self._tick(body))
            self._at(0, self._report_load(body))
        self._at(REUSE_PERIOD_NS, self._publish_reuse)
        self._at(0, self._sample(progress))
        while self._heap:
            now_ns, _, event = heapq.heappop(self._heap)
            if now_ns > self._duration_ns:
                break
            if cancelled is not None and cancelled():
                return False
            event(now_ns)
        self.statistics.sample(min(self._duration_ns, now_ns))
        return True

    def _at(self, at_ns: int, event: Callable[[int], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_ns, self._sequence, event))

    # --- requests -------------------------------------------------------------------------

    def _next_arrival(self, now_ns: int) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._at(max(now_ns, request.at_ns), lambda at_ns: self._arrive(at_ns, request))

    def _arrive(self, now_ns: int, request: Request) -> None:
        self._next_arrival(now_ns)
        key = user_key(request.user, self._salt)
        tokens = request.history_items.shape[0]
        self._reuse.seen(now_ns, key, tokens)
        pick = self._router.pick(now_ns, key, tokens, request.candidates.shape[0])
        if not pick.found:
            self.statistics.refused += 1
            return
        hashes = block_hashes(request.history_items, request.history_actions, request.history_ts, self._profile.block_tokens)
        waiting = _Waiting(request, key, now_ns, hashes, pick.reuse_gap_ns, pick.resident_elsewhere, pick.reservation)
        body = self._bodies[pick.node_index]
        self._at(now_ns + HOP_NS, lambda at_ns: self._enqueue(at_ns, body, waiting))

    def _enqueue(self, now_ns: int, body: _NodeBody, waiting: _Waiting) -> None:
        self._request_number += 1
        number = self._request_number
        request = waiting.request
        work_ms = body.node.predict_ms(now_ns, waiting.key, request.history_items.shape[0], request.candidates.shape[0])
        deadline_ns = now_ns + int(self._profile.slo_ms * DEADLINE_SLOS * 1e6)
        if not body.queue.offer(number, waiting.key, now_ns, deadline_ns, int(work_ms * 1e6)):
            self.statistics.refused += 1
            self._router.completed(now_ns, waiting.reservation, None, failed=True)
            return
        body.waiting[number] = waiting
        self._serve(now_ns, body)

    def _serve(self, now_ns: int, body: _NodeBody) -> None:
        """Start the next batch when the device is idle."""
        if body.busy:
            return
        for number in body.queue.expire(now_ns):
            late = body.waiting.pop(number)
            self.statistics.refused += 1
            self._router.completed(now_ns, late.reservation, None, failed=True)
        chosen = body.queue.close(now_ns, self._profile.batch_max, np.empty(0, np.uint64), True)
        if not chosen:
            return
        members = [body.waiting.pop(number) for number in chosen]
        batch = batch_of(members)
        ticket, plan = body.node.admit(now_ns, batch)
        queue_ms = np.array([(now_ns - member.arrival_ns) / 1e6 for member in members])
        link_share = max(LINK_SHARE_MIN, 1.0 - body.refill_rate / self._profile.link_bytes_per_second)
        timings = service_timings(self._profile.cost, batch, plan, queue_ms, link_share)
        body.busy = True
        body.busy_until_ns = now_ns + int(timings.service_ms * 1e6)
        self.statistics.served(now_ns, body.index, timings.service_ms)
        self._at(body.busy_until_ns, lambda at_ns: self._finish(at_ns, body, ticket, members, timings))

    def _finish(self, now_ns: int, body: _NodeBody, ticket: int, members: list[_Waiting], timings: StageTimings) -> None:
        body.node.complete(now_ns, ticket, timings)
        body.busy = False
        self._at(now_ns + RESIDENCY_DELAY_NS, self._publish_residency(body))
        for member in members:
            done_ns = now_ns + HOP_NS
            self._router.completed(now_ns, member.reservation, (done_ns - member.arrival_ns) / 1e6)
            self.statistics.finished(member.arrival_ns, done_ns, body.index)
        self._serve(now_ns, body)

    # --- the background -------------------------------------------------------------------

    def _tick(self, body: _NodeBody) -> Callable[[int], None]:
        def tick(now_ns: int) -> None:
            backlog_bytes = body.refill_wish.shape[0] * self._profile.row_bytes
            inputs = TickInputs(len(body.queue), self._queued_ms(now_ns, body), backlog_bytes, 0)
            effects = body.node.tick(now_ns, inputs)
            body.node.moves_done(now_ns, effects.serial)  # copies inside the arena take microseconds
            for _ in (event for event in effects.events if event[0] == "ratio_moved"):
                self.statistics.moved(body.index)
            body.refill_wish = effects.refill_rows
            self._refill(now_ns, body)
            self._at(now_ns + body.node.config.tick_ns, tick)

        return tick

    def _refill(self, now_ns: int, body: _NodeBody) -> None:
        """What the refill budget brings in before the next tick."""
        budget_bytes = self._profile.refill_bytes_per_second * body.node.config.tick_ns / 1e9
        rows = body.refill_wish[: int(budget_bytes // self._profile.row_bytes)]
        body.refill_rate = rows.shape[0] * self._profile.row_bytes / (body.node.config.tick_ns / 1e9)
        if rows.shape[0]:
            body.node.refill_commit(now_ns, rows)
            self.statistics.refilled(rows.shape[0] * self._profile.row_bytes)

    def _queued_ms(self, now_ns: int, body: _NodeBody) -> float:
        running_ns = max(0, body.busy_until_ns - now_ns) if body.busy else 0
        return (body.queue.queued_ns + running_ns) / 1e6

    def _report_load(self, body: _NodeBody) -> Callable[[int], None]:
        def report(now_ns: int) -> None:
            load = body.node.load(now_ns, len(body.queue), self._queued_ms(now_ns, body), Phase.READY, now_ns)
            self._router.node_load(body.index, now_ns, load)
            self._at(now_ns + LOAD_PERIOD_NS, report)

        return report

    def _publish_residency(self, body: _NodeBody) -> Callable[[int], None]:
        def publish(now_ns: int) -> None:
            frame = body.node.residency_since(body.sequence)
            if frame is None:
                return
            body.sequence = frame.seq
            if self._router.residency(body.index, frame):
                raise AssertionError("the simulated stream has no gaps")

        return publish

    def _publish_reuse(self, now_ns: int) -> None:
        message = self._reuse.message(now_ns, now_ns)
        for body in self._bodies:
            body.node.reuse(now_ns, message)
        self._router.reap(now_ns)
        self._at(now_ns + REUSE_PERIOD_NS, self._publish_reuse)

    def _sample(self, progress: Callable[[float], None] | None) -> Callable[[int], None]:
        def sample(now_ns: int) -> None:
            self.statistics.sample(now_ns)
            if progress is not None:
                progress(now_ns / self._duration_ns)
            self._at(now_ns + int(BUCKET_SECONDS * 1e9), sample)

        return sample


def batch_of(members: list[_Waiting]) -> Batch:
    """The arrays of one batch, requests in order."""
    requests = [member.request for member in members]
    tokens = np.array([request.history_items.shape[0] for request in requests], np.int64)
    blocks = np.array([member.hashes.shape[0] for member in members], np.int64)
    candidates = np.array([request.candidates.shape[0] for request in requests], np.int64)
    return Batch(
        user_keys=np.array([member.key for member in members], np.uint64),
        history_tokens=tokens,
        block_hashes=np.concatenate([member.hashes for member in members]),
        block_offsets=np.concatenate(([0], np.cumsum(blocks))),
        history_rows=np.concatenate([request.history_items for request in requests]),
        history_offsets=np.concatenate(([0], np.cumsum(tokens))),
        candidate_rows=np.concatenate([request.candidates for request in requests]),
        candidate_offsets=np.concatenate(([0], np.cumsum(candidates))),
        reuse_gap_ns=np.array([member.reuse_gap_ns for member in members], np.int64),
        resident_elsewhere=np.array([member.resident_elsewhere for member in members], np.bool_),
    )


def _start_ratio(scenario: "Scenario") -> float | None:
    """A static method starts where it stays."""
    if scenario.emb_ratio_start is not None:
        return scenario.emb_ratio_start
    if scenario.method.startswith("static-"):
        return float(scenario.method.removeprefix("static-"))
    return None
