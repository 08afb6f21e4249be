"""A node's brain, assembled: book a batch, learn from it, and every tick decide, move and refill.

Read this file first. Each method is one entry of a body into the brain; all of them are
deterministic in their arguments, so a journal of the calls replays to the same decisions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.caches import emb, exchange, kv
from agents.caches.policy import CachePolicy, cache_policy
from agents.controller.baselines.b10 import Residents
from agents.controller.guard import Guard, GuardInputs, refill_room_ratio
from agents.controller.interface import Controller, Observation, Proposal
from agents.controller.landscape import LandscapePoint, landscape
from agents.controller.registry import uses_cluster_reuse
from agents.controller.status import feature_shares_of, mode_in_force
from agents.node import booking, desired, residency
from agents.node.batch import Batch, BatchPlan, Moves, StageTimings
from agents.node.decider import Decider
from agents.node.estimators import NodeEstimators
from agents.node.meters import Meters, predict_here_ms
from agents.node.report import BodyFacts, Reporter
from agents.numerics import reuse
from agents.numerics.jit import bound_by_first_call
from agents.pool import migration
from agents.pool.ledger import Ledger
from agents.pool.state import Counter, Owner, PoolState, allocate, lay_out_tables
from agents.profiles import Profile
from agents.wire.events import EventKind
from agents.wire.messages import (
    ClusterReuse,
    ControllerMode,
    ControlRequest,
    DecisionRecord,
    GuardRails,
    Mode,
    NodeLoad,
    NodeSpec,
    NodeTelemetry,
    Phase,
    ResidencyDelta,
    ResidencySnapshot,
    VersionPart,
)

REFILL_ROWS_PER_TICK_MAX = 4_096  # 1 MiB of 256 B rows: more than any budget lets through in a tick
LANDSCAPE_PERIOD_NS = 5_000_000_000  # curves forget half in 30 s; one prediction costs milliseconds
DECISIONS_KEPT = 512  # ring behind `helmctl node explain`; older ones live in the control plane


_ROWS_GONE = [Counter.EVICTED_RING, Counter.EMB_EVICTED_PRESSURE, Counter.EMB_EVICTED_SHRINK]  # one rises when a row goes


class NodeConfig(NamedTuple):
    """How one node is run."""

    controller: str = "b5"
    admission: str = "shipped"
    seed: int = 0
    guard_rails: GuardRails = GuardRails()
    emb_ratio_start: float | None = None
    tick_ns: int = 100_000_000
    row_sampling_rate: float = 1.0  # share of rows the stream was thinned to before it came here (simulation)


class TickInputs(NamedTuple):
    """What the body measured since the last tick."""

    queue_depth: int
    queued_ms: float
    refill_backlog_bytes: int
    failures: int


class Effects(NamedTuple):
    """What the body must do after a tick. `refill_rows` replaces every earlier wish."""

    serial: int
    moves: Moves
    refill_rows: NDArray[np.int64]
    records: list[DecisionRecord]
    events: list[tuple[EventKind, dict[str, str]]]


class _Ticket(NamedTuple):
    batch: Batch
    plan: BatchPlan
    entries: NDArray[np.int32]


class Node:
    """One node. One thread owns it."""

    def __init__(
        self,
        name: str,
        profile: Profile,
        config: NodeConfig,
        policy: CachePolicy | None = None,
        controller: Controller | None = None,
    ) -> None:
        self.name = name
        self.profile = profile
        self.config = config
        self.rows_per_page = max(1, round(profile.rows_per_page * config.row_sampling_rate))
        self.policy = policy or cache_policy(config.admission, self.rows_per_page)
        start_ratio = profile.emb_ratio_start if config.emb_ratio_start is None else config.emb_ratio_start
        self._pool_pages = profile.pages
        self.state = allocate(profile.pages, self.rows_per_page, self._pages_of(start_ratio))
        self.ledger = Ledger(self.state, self.rows_per_page)
        self._desired = desired.initial(config.guard_rails)
        self._decider = Decider(config.controller, config.guard_rails, self._residents(), controller)
        self._guard = Guard(config.guard_rails, profile.move_ratio_per_second, self.ledger.emb_ratio)
        self._estimators = NodeEstimators(profile, config.row_sampling_rate, self.policy, self._decider.valuation)
        self._reporter = Reporter(name, profile, config.controller)
        self._tickets: dict[int, _Ticket] = {}
        self._next_ticket = 1
        rows_max = profile.batch_max * (profile.model.tokens_max + profile.candidates)
        self._scratch = booking.new_scratch(max(1, round(rows_max * config.row_sampling_rate)))
        self._book_prefixes, self._book_rows = bound_by_first_call(booking.book_prefixes), bound_by_first_call(booking.book_rows)
        self._unpin, self._predict_ms = bound_by_first_call(booking.unpin), bound_by_first_call(predict_here_ms)
        self._serial = 0
        self._migrating: dict[int, NDArray[np.int32]] = {}
        self._nothing_wanted: tuple[int, ...] | None = None
        self._next_decision_ns = 0
        self._decisions: list[DecisionRecord] = []
        self._proposed_ratio = self.ledger.emb_ratio
        self._pending_events: list[tuple[EventKind, dict[str, str]]] = []
        self._observation: Observation | None = None
        self._predicted: list[LandscapePoint] = []
        self._predicted_ns = -LANDSCAPE_PERIOD_NS

    def adopt(self, state: PoolState, meters: Meters) -> None:
        """Go on in other memory with the same content: a simulated fleet lays its nodes' states end to end."""
        self.state = state
        self.ledger = Ledger(state, self.rows_per_page)
        self._estimators.meters = meters
        self._decider.show(self._residents())

    @property
    def meters(self) -> Meters:
        """What is counted of every batch."""
        return self._estimators.meters

    def _residents(self) -> Residents:
        return Residents(
            state=self.state,
            rows_per_page=self.rows_per_page,
            rows_per_followed_row=1.0 / self.config.row_sampling_rate,
            block_tokens=self.profile.block_tokens,
            page_bytes=self.profile.page_bytes,
            cost=lambda: self._estimators.costs,
        )

    # --- per batch ------------------------------------------------------------------------

    def admit(self, now_ns: int, batch: Batch) -> tuple[int, BatchPlan]:
        """Book a batch: what is reused, what is missing, where new rows and blocks go. Users must be distinct."""
        entries, plan = self._book(now_ns, batch)
        ticket = self._next_ticket
        self._next_ticket += 1
        self._tickets[ticket] = _Ticket(batch, plan, entries)
        self._estimators.booked(now_ns, batch, plan)
        return ticket, plan

    def complete(self, now_ns: int, ticket: int, timings: StageTimings) -> None:
        """The device served a batch: unpin its prefixes and learn what it cost."""
        done = self._tickets.pop(ticket)
        self._unpin(self.state, done.entries)
        self._estimators.completed(now_ns, done.batch, done.plan, timings)

    def abort(self, now_ns: int, ticket: int) -> None:
        """The device failed: what was booked but never written is forgotten."""
        failed = self._tickets.pop(ticket)
        plan = failed.plan
        self._nothing_wanted = None  # a row that was lost and booked again is lost again
        booking.undo_batch(
            self.state,
            self.profile.block_tokens,
            self.rows_per_page,
            failed.entries,
            plan.cached_tokens,
            plan.rows,
            plan.missing,
            plan.insert_slots,
        )

    def _book(self, now_ns: int, batch: Batch) -> tuple[NDArray[np.int32], BatchPlan]:
        requests = batch.user_keys.shape[0]
        blocks = int(batch.block_offsets[-1])
        cached, reasons = np.empty(requests, np.int64), np.empty(requests, np.int8)
        entries = np.empty(requests, np.int32)
        read_pages, read_offsets = np.empty(blocks, np.int32), np.empty(requests + 1, np.int64)
        write_pages, write_offsets = np.empty(blocks, np.int32), np.empty(requests + 1, np.int64)
        costs = self._estimators.costs
        self._book_prefixes(
            self.state,
            self.policy,
            now_ns,
            self.profile.block_tokens,
            costs.ms_per_token,
            costs.ms_per_token_squared,
            batch.user_keys,
            batch.history_tokens,
            batch.block_hashes,
            batch.block_offsets,
            batch.reuse_gap_ns,
            batch.resident_elsewhere,
            cached,
            reasons,
            entries,
            read_pages,
            read_offsets,
            write_pages,
            write_offsets,
        )
        uses = int(batch.history_offsets[-1] - cached.sum() + batch.candidate_offsets[-1])
        if 2 * uses > self._scratch.shape[0]:
            self._scratch = booking.new_scratch(uses)  # a rare oversized batch: its room stays
        rows, row_slots = np.empty(uses, np.int64), np.empty(uses, np.int32)
        row_index, row_offsets = np.empty(uses, np.int32), np.empty(requests + 1, np.int64)
        missing, insert_slots = np.empty(uses, np.int32), np.empty(uses, np.int32)
        unique, misses = self._book_rows(
            self.state,
            self.policy,
            self.rows_per_page,
            batch.history_rows,
            batch.history_offsets,
            batch.history_tokens,
            batch.candidate_rows,
            batch.candidate_offsets,
            cached,
            self._scratch,
            rows,
            row_slots,
            row_index,
            row_offsets,
            missing,
            insert_slots,
        )
        return entries, BatchPlan(
            cached_tokens=cached,
            miss_reasons=reasons,
            read_pages=read_pages[: read_offsets[-1]],
            read_offsets=read_offsets,
            write_pages=write_pages[: write_offsets[-1]],
            write_offsets=write_offsets,
            rows=rows[:unique],
            row_slots=row_slots[:unique],
            row_index=row_index,
            row_offsets=row_offsets,
            missing=missing[:misses],
            insert_slots=insert_slots[:misses],
        )

    # --- per tick -------------------------------------------------------------------------

    def tick(self, now_ns: int, inputs: TickInputs) -> Effects:
        """Expire, decide when it is time, take one bounded migration step, name the rows worth refilling."""
        self._estimators.ticked(now_ns, self.state, inputs.queue_depth, inputs.queued_ms, inputs.refill_backlog_bytes)
        self._expire(now_ns)
        records = self._decide(now_ns) if now_ns >= self._next_decision_ns else []
        self._serial += 1
        moves = self._migrate(self._pages_of(self._guard.step(now_ns)))
        wanted = self._wanted_rows()
        events, self._pending_events = self._pending_events, []
        return Effects(self._serial, moves, wanted, records, events)

    def quiet_until_ns(self, now_ns: int) -> int:
        """Until when a tick would change nothing: a virtual clock may jump there. `now_ns` when the next tick matters."""
        moving = self._migrating or self.emb_pages != self._pages_of(self._guard.target)
        if moving or self._pending_events or self._refillable_rows() > 0:
            return now_ns
        ends_ns = self._desired.deadline_ns
        due_ns = min(self._next_decision_ns, self._estimators.next_second_ns)
        return max(now_ns, due_ns if ends_ns is None else min(due_ns, ends_ns))

    @property
    def next_decision_ns(self) -> int:
        """When it decides next, if a tick comes then; 0: at the next tick."""
        return self._next_decision_ns

    def moves_done(self, now_ns: int, serial: int) -> None:
        """The device finished the row copies of that tick: the pages they left become KV's."""
        pages = self._migrating.pop(serial, None)
        if pages is not None:
            migration.grant_all_to_kv(self.state, pages)

    def refill_commit(self, now_ns: int, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Book rows that were staged from host memory; -1 where a row is no longer wanted."""
        slots = np.empty(rows.shape[0], np.int32)
        emb.refill_rows(self.state, rows, self.rows_per_page, slots)
        return slots

    def recall_rows(self, rows: NDArray[np.int64]) -> None:
        """Let the row curve know rows, newest first, that were in use before this node's time began."""
        reuse.recall_rows(self.meters.row_curve, rows, self.profile.row_bytes)

    def _expire(self, now_ns: int) -> None:
        if self._desired.expired(now_ns):
            self._desired = self._desired.released()
            self._next_decision_ns = 0
            self._pending_events.append((EventKind.OVERRIDE_EXPIRED, {}))

    def _decide(self, now_ns: int) -> list[DecisionRecord]:
        """One decision: observe, propose, limit, record. Every method is limited by the same guard."""
        self._next_decision_ns = now_ns + self._decider.controller.period_ns
        before = self.ledger.emb_ratio
        observation = self._estimators.observation(now_ns, before, self.state)
        self._observation = observation
        proposal, events = self._decider.propose(observation, self._desired.emb_ratio is not None)
        self._pending_events += events
        self._proposed_ratio = proposal.emb_ratio
        target = self._guard.target
        limited = self._guard.limit(now_ns, self._guard_inputs(now_ns, observation, proposal))
        moved = limited.target != target
        if moved:
            self._pending_events.append((EventKind.RATIO_MOVED, {"from": f"{target:.3f}", "to": f"{limited.target:.3f}"}))
        self._estimators.retargeted(now_ns, moved)
        shares = feature_shares_of(self._decider.controller)
        record = self._reporter.decision(now_ns, self.mode, observation, proposal, limited, self._decider.status, shares)
        self._decisions = [*self._decisions[-(DECISIONS_KEPT - 1) :], record]
        return [record]

    def _guard_inputs(self, now_ns: int, observation: Observation, proposal: Proposal) -> GuardInputs:
        refill = observation.pool_bytes, observation.refill_bytes_per_second, observation.refill_backlog_bytes
        return GuardInputs(
            proposed=proposal.emb_ratio if self._decider.mode is ControllerMode.ACTIVE else None,
            held=self._desired.emb_ratio,
            emb_ratio=observation.emb_ratio,
            data_age_ns=self._estimators.data_age_ns(now_ns),
            reuse_age_ns=observation.reuse_age_ns if uses_cluster_reuse(self._decider.controller) else 0,
            refill_room_ratio=refill_room_ratio(*refill),
        )

    def _pages_of(self, emb_ratio: float) -> int:
        """Whole pages of EMB for a ratio of the pool asked for; each cache keeps at least one."""
        return min(max(round(emb_ratio * self._pool_pages), 1), self._pool_pages - 1)

    def _migrate(self, setpoint_pages: int) -> Moves:
        """One step to the paced setpoint; a step that was held up is caught up with at most a second's worth a tick."""
        most = max(1, round(self.profile.move_ratio_per_second * self.profile.pages))
        block_tokens = self.profile.block_tokens
        if self._pool_pages != self.state.counters[Counter.POOL_PAGES]:
            exchange.resize_pool(self.state, block_tokens, self._pool_pages, self._pool_pages - setpoint_pages, most)
        step = migration.migration_step(self.emb_pages, setpoint_pages, most)
        if step.kv_to_emb > 0 and not self._migrating:  # shrink before grow: the last shrink may not be finished yet
            exchange.grow_emb(self.state, block_tokens, step.kv_to_emb)
        return self._shrink_emb(step.emb_to_kv)

    def _shrink_emb(self, count: int) -> Moves:
        if count == 0:
            return Moves(np.empty(0, np.int32), np.empty(0, np.int32))
        pages = np.empty(exchange.candidate_pages(count), np.int32)
        copies_max = count * self.policy.rescue_rows_per_page
        rows, sources, targets = np.empty(copies_max, np.int64), np.empty(copies_max, np.int32), np.empty(copies_max, np.int32)
        rows_per_page = self.rows_per_page
        leaving, copies = exchange.shrink_emb(self.state, self.policy, rows_per_page, count, pages, rows, sources, targets)
        self._migrating[self._serial] = pages[:leaving]
        return Moves(sources[:copies], targets[:copies])

    def _wanted_rows(self) -> NDArray[np.int64]:
        """Rows worth a refill now. When all that were lost are back, they are not looked up again before another one goes."""
        room = self._refillable_rows()
        gone = tuple(self.state.counters[_ROWS_GONE].tolist())
        if room == 0 or gone == self._nothing_wanted:
            return np.empty(0, np.int64)
        wanted = np.empty(room, np.int64)
        found = emb.wanted_rows(self.state, wanted)
        self._nothing_wanted = None if found else gone
        return wanted[:found]

    def _refillable_rows(self) -> int:
        """Rows that fresh pages could take now; a refill never displaces anything."""
        if self.state.counters[Counter.FRESH_PAGES] == 0:
            return 0
        fresh = self.state.lists["fresh_page"][: self.state.counters[Counter.FRESH_PAGES]]
        empty = int(fresh.shape[0]) * self.rows_per_page - int(self.state.pages["filled"][fresh].sum())
        return min(empty, REFILL_ROWS_PER_TICK_MAX, self._refill_cap_rows())

    def _refill_cap_rows(self) -> int:
        """What the controller leaves of the refill budget in a burst, as rows per tick."""
        share = self._decider.status.refill_share
        if share >= 1.0:
            return REFILL_ROWS_PER_TICK_MAX
        budget_bytes = share * self.profile.refill_bytes_per_second * self.config.tick_ns / 1e9
        return int(budget_bytes // self.profile.row_bytes)

    # --- commands and knowledge from outside ----------------------------------------------

    def apply(self, now_ns: int, spec: NodeSpec) -> None:
        """Desired state from the control plane; `WireError` if refused, and then nothing changes."""
        before = self._desired
        self._set_desired(desired.from_spec(before, now_ns, spec))
        self._decider.obey(before, self._desired)

    def control(self, now_ns: int, request: ControlRequest) -> None:
        """Local override, pin or release; `WireError` if refused, and then nothing changes."""
        self._set_desired(desired.from_control(self._desired, now_ns, request))

    def _set_desired(self, wanted: desired.Desired) -> None:
        self._pool_pages = desired.pool_pages(wanted, self.profile)
        kinds = {Mode.OVERRIDE: EventKind.OVERRIDE_APPLIED, Mode.PIN: EventKind.PIN_APPLIED}
        if wanted.mode is not Mode.AUTO:
            self._pending_events.append((kinds[wanted.mode], {"emb_ratio": f"{wanted.emb_ratio:.3f}", "reason": wanted.reason}))
        elif self._desired.mode is not Mode.AUTO:
            self._pending_events.append((EventKind.RELEASED, {}))
        self._desired = wanted
        self._guard.set_rails(wanted.guard_rails)
        self._decider.set_rails(wanted.guard_rails)
        self._next_decision_ns = 0  # a command is obeyed at the next tick, not at the next period

    def use_policy(self, weights: bytes, card: bytes) -> str:
        """Decide by another policy from the next decision on; returns its digest.

        A controller without layers makes room for the three layers. Raises `ArtefactError` for files that are refused,
        and `WireError` where the caches are valued in a way that no policy knows; then nothing changes.
        """
        before = self._decider.controller
        digest = self._decider.use_policy(weights, card, self._desired)
        if self._decider.controller is not before:
            self._reporter.decided_by(self._decider.controller.name)
        return digest

    def use_own_controller(self) -> None:
        """Decide by the controller the node was made with, from the next decision on; what the adapter has learned stays."""
        self._decider.use_own(self._desired)
        self._reporter.decided_by(self._decider.controller.name)

    @property
    def controller_mode(self) -> ControllerMode:
        """Whether what the controller decides is done: as desired, once the policy that this was said of decides."""
        return self._decider.mode

    @property
    def policy_digest(self) -> str:
        """Who decides, as commands name it; empty: the node's own controller."""
        return self._decider.policy_digest

    @property
    def demoted_policy(self) -> str | None:
        """Digest of the policy in whose place the shadow decides, empty for the node's own; `None`: nobody was demoted."""
        return self._decider.demoted_policy

    def demote(self) -> None:
        """Let the shadow decide, as it did before a restart."""
        self._decider.demote()

    def adapter_state(self) -> dict[str, float]:
        """What the residual adapter has learned, to be kept over a restart; empty without one."""
        return self._decider.adapter_state()

    def restore_adapter(self, state: dict[str, float]) -> bool:
        """Give back what was kept; False, and nothing changes, if it is damaged or there is no adapter."""
        return self._decider.restore_adapter(state)

    def reuse(self, now_ns: int, message: ClusterReuse) -> None:
        """The cluster's reuse statistics from one router."""
        self._estimators.reuse(now_ns, message)

    def version_flip(self, now_ns: int, part: VersionPart = VersionPart.MODEL) -> None:
        """Another version of one part: no prefix of the old is found any more, and with another model no row of its tables.

        A prefix that a batch in flight reads goes with its user's next request.
        """
        is_model = part is VersionPart.MODEL
        kv.void_all(self.state, self.profile.block_tokens, int(is_model), int(not is_model))
        if is_model:
            emb.forget_rows(self.state, self.rows_per_page)
            self._nothing_wanted = None

    def lay_out_tables(self, first_rows: Sequence[int]) -> None:
        """Count look-ups from now on by embedding tables that begin at these row ids; decides nothing."""
        lay_out_tables(self.state, first_rows)

    # --- what others may know -------------------------------------------------------------

    def observe(self, now_ns: int) -> Observation:
        """What a decision at this moment would see."""
        return self._estimators.observation(now_ns, self.ledger.emb_ratio, self.state)

    @property
    def pool_rows(self) -> int:
        """Rows that the whole pool could hold."""
        return int(self.state.counters[Counter.POOL_PAGES]) * self.rows_per_page

    @property
    def emb_pages(self) -> int:
        """Pages granted to EMB."""
        return int(self.state.counters[Counter.EMB_PAGES])

    @property
    def target_emb_ratio(self) -> float:
        """Ratio the migration is heading for."""
        return self._guard.target

    @property
    def mode(self) -> Mode:
        """Mode in force."""
        return mode_in_force(self._desired.mode, self._decider.status)

    @property
    def desired(self) -> desired.Desired:
        """Desired state in force."""
        return self._desired

    def residency_since(self, seq: int) -> ResidencySnapshot | ResidencyDelta | None:
        """Residency changes after `seq`, or a snapshot; `None` when there is nothing newer."""
        return residency.residency_since(self.state, self.profile.block_tokens, seq)

    def load(self, now_ns: int, queue_depth: int, queued_ms: float, phase: Phase, at_unix_ns: int) -> NodeLoad:
        """What a router needs to predict this node's milliseconds. `queued_ms` is the body's sum of `predict_ms`."""
        return self._estimators.load(self.state, queue_depth, queued_ms, phase, at_unix_ns)

    def predict_ms(self, now_ns: int, user_key: int, history_tokens: int, candidates: int) -> float:
        """Expected service time of one request here, for queue estimates and deadlines."""
        return self._predict_ms(self.meters, self.state, self.profile.block_tokens, np.uint64(user_key), history_tokens, candidates)

    def telemetry(self, now_ns: int, facts: BodyFacts) -> NodeTelemetry:
        """The node's state in one message."""
        return self._reporter.telemetry(
            now_ns,
            facts,
            self.state,
            self._desired,
            self._pages_of(self._guard.target),
            self._pool_pages,
            self._proposed_ratio,
            self._migrating_pages(),
            self._estimators,
            self._landscape(now_ns),
        )

    def _landscape(self, now_ns: int) -> list[LandscapePoint]:
        """Latency predicted at every ratio, from the last decision's observation; not told more often than it changes."""
        if self._observation is not None and now_ns - self._predicted_ns >= LANDSCAPE_PERIOD_NS:
            self._predicted_ns = now_ns
            self._predicted = landscape(self._observation, self._estimators.measured(now_ns), self._desired.guard_rails)
        return self._predicted

    def _migrating_pages(self) -> int:
        return int(np.count_nonzero(self.state.pages["owner"] == Owner.MIGRATING))

    def decisions(self, limit: int) -> list[DecisionRecord]:
        """The newest decisions, newest first."""
        return self._decisions[::-1][:limit]

    def moved_pages(self) -> int:
        """Pages that changed their owner so far."""
        return self.ledger.counter(Counter.MOVED_PAGES)

    def evictions(self) -> int:
        """Rows and prefixes evicted so far, for any reason."""
        which = (Counter.EMB_EVICTED_PRESSURE, Counter.EMB_EVICTED_SHRINK, Counter.KV_EVICTED_PRESSURE, Counter.KV_EVICTED_SHRINK)
        return sum(self.ledger.counter(counter) for counter in which)
