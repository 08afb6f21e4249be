"""What a node says about itself: telemetry once a second, and a record of every decision."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from agents.controller.guard import GuardedRatio
from agents.controller.interface import Observation, Proposal
from agents.controller.landscape import LandscapePoint
from agents.controller.recovery import Phase as RecoveryPhase
from agents.controller.status import ControllerStatus, mode_in_force
from agents.node.batch import MissReason
from agents.node.desired import Desired
from agents.node.estimators import P99_COUNT_MIN, NodeEstimators
from agents.numerics import sketch
from agents.pool.state import TABLES_MAX, Counter, PoolState
from agents.profiles import Profile
from agents.wire.messages import (
    Condition,
    ConditionStatus,
    DecisionRecord,
    LatencySketch,
    Mode,
    NodeTelemetry,
    Phase,
    PoolBytes,
    StageMillis,
    TableLookups,
)

REUSE_STALE_NS = 10_000_000_000
_LEARNED_CONDITIONS = ("Recovering", "PolicyDemoted", "PolicyMissing")


class PolicyFacts(NamedTuple):
    """Whether the node decides by what it was told to decide by; no reason: it was never told."""

    applied: bool = False
    reason: str = ""
    message: str = ""


class BodyFacts(NamedTuple):
    """What only the body knows."""

    at_unix_ns: int
    seq: int
    phase: Phase
    queue_depth: int
    failures_total: int
    refill_backlog_bytes: int
    refill_bytes_total: int
    refill_throttled_seconds_total: float
    device: str
    emulated: bool
    model_version: str
    started_ns: int
    refill_bytes_per_second: float = 0.0
    feature_schema: str = ""
    tables: tuple[str, ...] = ()  # names of the embedding tables, in the order of their rows
    policy: PolicyFacts = PolicyFacts()


class Reporter:
    """Turns state into messages; remembers only when conditions last changed."""

    def __init__(self, name: str, profile: Profile, controller: str) -> None:
        self._name = name
        self._profile = profile
        self._controller = controller
        self._decision_seq = 0
        self._conditions: dict[str, Condition] = {}
        self._last_reuse_age_ns = 0
        self._last_status = ControllerStatus()
        self._last_reasons: list[str] = []

    def decided_by(self, controller: str) -> None:
        """Another controller has taken over; its own conditions come with its first decision."""
        self._controller = controller
        self._last_status = ControllerStatus()
        for kind in _LEARNED_CONDITIONS:
            self._conditions.pop(kind, None)

    def decision(
        self,
        now_ns: int,
        mode: Mode,
        observation: Observation,
        proposal: Proposal,
        limited: GuardedRatio,
        status: ControllerStatus = ControllerStatus(),  # noqa: B008  a tuple of constants
        feature_shares: dict[str, float] | None = None,
    ) -> DecisionRecord:
        """One decision in full. Time is the node's monotonic time; the body knows its offset to unix time.

        All numbers are finite, or the control plane would refuse the whole record: a proposal that is not stands as the
        present ratio, which is what was made of it, and its reason says so.
        """
        self._decision_seq += 1
        self._last_reuse_age_ns = observation.reuse_age_ns
        self._last_status, self._last_reasons = status, limited.reasons
        scalars = {key: value for key, value in observation._asdict().items() if isinstance(value, int | float)}
        usable = math.isfinite(proposal.emb_ratio)
        return DecisionRecord(
            name=self._name,
            at_unix_ns=now_ns,
            seq=self._decision_seq,
            controller=self._controller,
            mode=mode,
            emb_ratio_before=observation.emb_ratio,
            emb_ratio_proposed=proposal.emb_ratio if usable else observation.emb_ratio,
            emb_ratio_granted=limited.target,
            reason=proposal.reason if usable else f"{proposal.reason}_not_finite",
            guard_reasons=list(limited.reasons),
            shadow_emb_ratio=status.shadow_emb_ratio,
            features=_finite_ones(scalars),
            layers=_finite_ones(proposal.layers),
            decision_us=0.0,
            feature_shares=_finite_ones(feature_shares or {}),
            regret_ms=_zero(status.regret_ms),
        )

    def telemetry(
        self,
        now_ns: int,
        facts: BodyFacts,
        state: PoolState,
        desired: Desired,
        target_pages: int,
        target_pool_pages: int,
        recommended_ratio: float,
        migrating_pages: int,
        estimators: NodeEstimators,
        predicted: list[LandscapePoint],
    ) -> NodeTelemetry:
        """The node's state now."""
        counters, profile = state.counters, self._profile
        pages, page_bytes = int(counters[Counter.POOL_PAGES]), profile.page_bytes
        counts = estimators.latency_counts(now_ns)
        latency_count = int(counts.sum())
        indexes, sparse = sketch.to_sparse(counts)
        stages = estimators.stages
        return NodeTelemetry(
            name=self._name,
            at_unix_ns=facts.at_unix_ns,
            seq=facts.seq,
            phase=facts.phase,
            mode=mode_in_force(desired.mode, self._last_status),
            observed_generation=desired.generation,
            emb_ratio=int(counters[Counter.EMB_PAGES]) / pages,
            target_emb_ratio=target_pages / target_pool_pages,
            recommended_emb_ratio=_share(recommended_ratio),
            emb_hit_ratio=_finite(estimators.emb_hit_ratio),
            kv_hit_ratio=_finite(estimators.kv_hit_ratio),
            latency_ms_p50=_finite(sketch.quantile(counts, 0.50)),
            latency_ms_p99=_finite(sketch.quantile(counts, 0.99)) if latency_count >= P99_COUNT_MIN else None,
            latency_count=latency_count,
            slo_ms=profile.slo_ms,
            slo_ratio=_finite(sketch.share_at_most(counts, profile.slo_ms)),
            requests_per_second=estimators.requests_per_second(now_ns),
            requests_total=estimators.requests_total,
            failures_total=facts.failures_total,
            queue_depth=facts.queue_depth,
            utilisation=estimators.utilisation(now_ns),
            emb=PoolBytes(
                requested_bytes=target_pages * page_bytes,
                granted_bytes=int(counters[Counter.EMB_PAGES]) * page_bytes,
                used_bytes=int(counters[Counter.EMB_ROWS]) * profile.row_bytes,
            ),
            kv=PoolBytes(
                requested_bytes=(target_pool_pages - target_pages) * page_bytes,
                granted_bytes=int(counters[Counter.KV_PAGES]) * page_bytes,
                used_bytes=int(counters[Counter.KV_PAGES_USED]) * page_bytes,
            ),
            pool_bytes=pages * page_bytes,
            migrating_bytes=migrating_pages * page_bytes,
            refill_backlog_bytes=facts.refill_backlog_bytes,
            refill_bytes_total=facts.refill_bytes_total,
            refill_bytes_per_second=facts.refill_bytes_per_second,
            refill_throttled_seconds_total=facts.refill_throttled_seconds_total,
            emb_evictions_total=int(counters[Counter.EMB_EVICTED_PRESSURE] + counters[Counter.EMB_EVICTED_SHRINK]),
            kv_evictions_total=int(counters[Counter.KV_EVICTED_PRESSURE] + counters[Counter.KV_EVICTED_SHRINK]),
            moved_pages_total=int(counters[Counter.MOVED_PAGES]),
            moves_total=estimators.moves_total,
            stages=StageMillis(
                queue_ms=_zero(stages.queue),
                emb_ms=_zero(stages.emb),
                kv_ms=_zero(stages.kv),
                compute_ms=_zero(stages.compute),
            ),
            miss_reasons={reason.name.lower(): int(estimators.miss_reasons[reason]) for reason in MissReason},
            sketch=LatencySketch(indexes=indexes, counts=sparse),
            conditions=self._conditions_now(facts, desired, target_pages, int(counters[Counter.EMB_PAGES])),
            controller=self._controller,
            profile=profile.name,
            device=facts.device,
            emulated=facts.emulated,
            model_version=facts.model_version,
            feature_schema=facts.feature_schema,
            tables=_tables(state, facts.tables),
            override_remaining_ms=None if desired.deadline_ns is None else max(0, (desired.deadline_ns - now_ns) // 1_000_000),
            landscape=[list(point) for point in predicted if all(map(math.isfinite, point))],
            policy_digest=self._last_status.policy_digest,
        )

    def _conditions_now(self, facts: BodyFacts, desired: Desired, target_pages: int, emb_pages: int) -> list[Condition]:
        stale = self._last_reuse_age_ns > REUSE_STALE_NS
        moving = target_pages != emb_pages
        self._condition(facts, desired, "Ready", facts.phase is Phase.READY, "Serving" if facts.phase is Phase.READY else "Draining")
        self._condition(facts, desired, "Migrating", moving, "MovingPages" if moving else "AtTarget")
        self._condition(facts, desired, "ReuseStale", stale, "NoRouterStatistics" if stale else "Fresh")
        self._controller_conditions(facts, desired)
        if facts.policy.reason:
            self._condition(facts, desired, "PolicyApplied", facts.policy.applied, facts.policy.reason, facts.policy.message)
        return list(self._conditions.values())

    def _controller_conditions(self, facts: BodyFacts, desired: Desired) -> None:
        """What is wrong with the deciding, if anything; the learned controllers' own conditions only where one runs."""
        status = self._last_status
        refused = "proposal_not_finite" in self._last_reasons
        missing = refused or bool(status.missing_features)
        reason = "ProposalNotFinite" if refused else "FeaturesNotFinite" if missing else "AllFinite"
        self._condition(facts, desired, "SignalMissing", missing, reason, ", ".join(status.missing_features))
        if status.learned:
            calm = status.phase is RecoveryPhase.CALM
            self._condition(facts, desired, "Recovering", not calm, status.phase.name.capitalize())
            lost = "LostToShadow" if status.demoted else "Trusted"
            self._condition(facts, desired, "PolicyDemoted", status.demoted, lost, f"base {status.base}")
            absent = not status.policy_digest
            self._condition(facts, desired, "PolicyMissing", absent, "NoArtefact" if absent else "Loaded", f"base {status.base}")

    def _condition(self, facts: BodyFacts, desired: Desired, kind: str, holds: bool, reason: str, message: str = "") -> None:
        status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
        before = self._conditions.get(kind)
        since = before.last_transition_unix_ns if before is not None and before.status is status else facts.at_unix_ns
        self._conditions[kind] = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_transition_unix_ns=since,
            observed_generation=desired.generation,
        )


def _tables(state: PoolState, names: tuple[str, ...]) -> list[TableLookups]:
    """Look-ups by table; where there are more tables than places, the last place has the rest of them."""
    counted = zip(names[:TABLES_MAX], state.tables["lookups"].tolist(), state.tables["hits"].tolist(), strict=False)
    return [TableLookups(name=name, lookups_total=lookups, hits_total=hits) for name, lookups, hits in counted]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _share(value: float) -> float | None:
    """Of the pool: a proposal may lie outside, and the control plane refuses telemetry with a share that does."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else None


def _finite_ones(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
