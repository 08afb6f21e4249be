"""Frames as a node would send them."""

from typing import Any

import msgspec

from agents.wire.messages import (
    Condition,
    ConditionStatus,
    DecisionRecord,
    EventFrame,
    Hello,
    LatencySketch,
    Mode,
    NodeTelemetry,
    Phase,
    PoolBytes,
    StageMillis,
)

MIB = 1 << 20
AT_UNIX_NS = 1_800_000_000 * 10**9


def telemetry(name: str = "node-0", **changes: Any) -> NodeTelemetry:
    """A healthy second of a node at half and half."""
    whole = NodeTelemetry(
        name=name,
        at_unix_ns=AT_UNIX_NS,
        seq=1,
        phase=Phase.READY,
        mode=Mode.AUTO,
        observed_generation=1,
        emb_ratio=0.5,
        target_emb_ratio=0.5,
        recommended_emb_ratio=0.55,
        emb_hit_ratio=0.8,
        kv_hit_ratio=0.6,
        latency_ms_p50=10.0,
        latency_ms_p99=40.0,
        latency_count=400,
        slo_ms=120.0,
        slo_ratio=1.0,
        requests_per_second=10.0,
        requests_total=1000,
        failures_total=0,
        queue_depth=1,
        utilisation=0.4,
        emb=PoolBytes(requested_bytes=32 * MIB, granted_bytes=32 * MIB, used_bytes=30 * MIB),
        kv=PoolBytes(requested_bytes=32 * MIB, granted_bytes=32 * MIB, used_bytes=20 * MIB),
        pool_bytes=64 * MIB,
        migrating_bytes=0,
        refill_backlog_bytes=0,
        refill_bytes_total=0,
        refill_throttled_seconds_total=0.0,
        emb_evictions_total=0,
        kv_evictions_total=0,
        moved_pages_total=0,
        moves_total=0,
        stages=StageMillis(queue_ms=1.0, emb_ms=2.0, kv_ms=3.0, compute_ms=4.0),
        miss_reasons={"cold": 3},
        sketch=LatencySketch(indexes=[231], counts=[400]),
        conditions=[
            Condition(type="ReuseStale", status=ConditionStatus.FALSE, reason="Fresh", message="", last_transition_unix_ns=AT_UNIX_NS)
        ],
        controller="b5",
        profile="cpu-demo",
        device="cpu",
        emulated=True,
        model_version="1",
        landscape=[[0.2, 30.0, 90.0, 25.0, 35.0], [0.5, 20.0, 60.0, 15.0, 25.0], [0.8, 40.0, 130.0, 30.0, 50.0]],
    )
    return msgspec.structs.replace(whole, **changes)


def hello(name: str = "node-0", **changes: Any) -> Hello:
    """A node's first frame."""
    whole = Hello(
        name=name,
        wire_version=1,
        observed_generation=1,
        profile="cpu-demo",
        device="cpu",
        emulated=True,
        infer_url="http://127.0.0.1:8790",
        started_unix_ns=AT_UNIX_NS,
    )
    return msgspec.structs.replace(whole, **changes)


def decision(name: str = "node-0", seq: int = 1, before: float = 0.5, granted: float = 0.5) -> DecisionRecord:
    """A decision of a node's controller."""
    return DecisionRecord(
        name=name,
        at_unix_ns=AT_UNIX_NS,
        seq=seq,
        controller="b5",
        mode=Mode.AUTO,
        emb_ratio_before=before,
        emb_ratio_proposed=granted,
        emb_ratio_granted=granted,
        reason="gradient",
        guard_reasons=[],
        shadow_emb_ratio=None,
        features={"utilisation": 0.4},
        layers={"base": granted},
        decision_us=5.0,
    )


def event(kind: str = "override_applied", **detail: str) -> EventFrame:
    """Something worth a line in the feed."""
    return EventFrame(kind=kind, at_unix_ns=AT_UNIX_NS, detail=detail)
