"""Frames of agents: decoded strictly, checked for what the types cannot say, turned into rows (pure)."""

import math
from typing import Any

import msgspec

from agents.wire.messages import AgentFrame, NodeTelemetry
from apps.telemetry import percentiles
from apps.telemetry.models import Point

FRAME_BYTES_MAX = 1 << 20  # telemetry is some kilobytes; a megabyte is somebody's mistake
LANDSCAPE_ROWS_MAX = 129  # a node sends 17; no grid in the product is finer than this
TABLES_MAX = 16  # as many as a node counts apart
_YEAR_2100_NS = 4_102_444_800 * 10**9  # dates beyond it do not fit Python's or the databases' calendars
_INT_MAX = 2**63 - 1
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AgentFrame)


class FrameError(ValueError):
    """A frame that is not what the wire says; the sentence names the field."""


def decode(data: bytes) -> Any:
    """One agent frame, or `FrameError`."""
    if len(data) > FRAME_BYTES_MAX:
        raise FrameError(f"frame of {len(data)} bytes, at most {FRAME_BYTES_MAX} are read")
    try:
        frame = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error
    check(frame)
    return frame


def check(frame: Any) -> None:
    """Refuse numbers that would poison a database, a merge or a calendar."""
    _check_values(msgspec.to_builtins(frame), "$")
    at_unix_ns = getattr(frame, "at_unix_ns", 0)
    if not 0 <= at_unix_ns < _YEAR_2100_NS:
        raise FrameError("at_unix_ns: not a time of this century")
    if isinstance(frame, NodeTelemetry):
        _check_telemetry(frame)


def _check_telemetry(frame: NodeTelemetry) -> None:
    for name in ("emb_ratio", "target_emb_ratio", "recommended_emb_ratio", "emb_hit_ratio", "kv_hit_ratio", "slo_ratio"):
        value = getattr(frame, name)
        if value is not None and not 0.0 <= value <= 1.0:
            raise FrameError(f"{name}: {value} is not a share")
    if len(frame.landscape) > LANDSCAPE_ROWS_MAX or any(len(row) != 5 or min(row) < 0.0 for row in frame.landscape):
        raise FrameError(f"landscape: at most {LANDSCAPE_ROWS_MAX} rows of five numbers, none below zero")
    if len(frame.tables) > TABLES_MAX or any(not 0 <= table.hits_total <= table.lookups_total for table in frame.tables):
        raise FrameError(f"tables: at most {TABLES_MAX}, each with no more hits than look-ups")
    try:
        percentiles.sketch.from_sparse(frame.sketch.indexes, frame.sketch.counts)
    except ValueError as error:
        raise FrameError(f"sketch: {error}") from error


def _check_values(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(item, f"{path}.{key}")
            _check_values(key, path)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, f"{path}[...]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise FrameError(f"{path}: not a finite number")
    elif isinstance(value, int) and not -_INT_MAX <= value <= _INT_MAX:
        raise FrameError(f"{path}: does not fit 64 bits")
    elif isinstance(value, str) and "\x00" in value:
        raise FrameError(f"{path}: contains a NUL character")


def point_of(node_id: int, at_seconds: int, frame: NodeTelemetry) -> Point:
    """The one-second point of a frame."""
    return Point(
        node_id=node_id,
        resolution_seconds=1,
        at_seconds=at_seconds,
        mode=frame.mode.value,
        emb_ratio=frame.emb_ratio,
        target_emb_ratio=frame.target_emb_ratio,
        recommended_emb_ratio=frame.recommended_emb_ratio,
        emb_hit_ratio=frame.emb_hit_ratio,
        kv_hit_ratio=frame.kv_hit_ratio,
        latency_ms_p50=frame.latency_ms_p50,
        latency_ms_p99=frame.latency_ms_p99,
        slo_ms=frame.slo_ms,
        slo_ratio=frame.slo_ratio,
        requests_per_second=frame.requests_per_second,
        queue_depth=frame.queue_depth,
        utilisation=frame.utilisation,
        queue_ms=frame.stages.queue_ms,
        emb_ms=frame.stages.emb_ms,
        kv_ms=frame.stages.kv_ms,
        compute_ms=frame.stages.compute_ms,
        refill_backlog_bytes=frame.refill_backlog_bytes,
        migrating_bytes=frame.migrating_bytes,
        sketch=percentiles.pack(frame.sketch.indexes, frame.sketch.counts),
    )
