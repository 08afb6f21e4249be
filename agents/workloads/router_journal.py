"""The journal of a live router: every call on its core, in order, with digests of what it picked.

Framed like a node's journal (`agents.workloads.journal`): a 4-byte big-endian length and one msgpack
map per record. Inputs are kept whole, so that a replayer makes the same calls on a router of its own;
of a pick only a 64-bit digest is kept, so that nothing can be read back instead of being recomputed.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from agents.wire.messages import NodeLoad, ResidencyDelta, ResidencySnapshot
from agents.workloads.journal import LENGTH, RECORD_BYTES_MAX, End

ROUTER_JOURNAL_VERSION = 2
SUFFIX = ".router-journal"
_OUTCOME = struct.Struct("<qqdddq?qq")


class RouterHeader(msgspec.Struct, frozen=True, kw_only=True, tag="router_header"):
    """What a replayer needs to build the same router."""

    journal_version: int
    wire_version: int
    name: str
    nodes: list[str]
    config: dict[str, Any]
    seed: int
    started_unix_ns: int


class Picked(msgspec.Struct, frozen=True, kw_only=True, tag="picked"):
    """A pick. `barred` maps node indexes to filter numbers, `retry_gap_ns` is null on a first try."""

    now_ns: int
    user_key: int
    history_tokens: int
    candidates: int
    barred: dict[int, int]
    retry_gap_ns: int | None
    digest: int


class Completed(msgspec.Struct, frozen=True, kw_only=True, tag="completed"):
    """A reservation ended; `latency_ms` is measured, hence an input."""

    now_ns: int
    reservation: int
    latency_ms: float | None
    failed: bool


class LoadHeard(msgspec.Struct, frozen=True, kw_only=True, tag="load_heard"):
    """A node reported."""

    now_ns: int
    index: int
    load: NodeLoad


class ResidencyHeard(msgspec.Struct, frozen=True, kw_only=True, tag="residency_heard"):
    """A node said what it holds; `gap` is what the core answered."""

    index: int
    frame: ResidencySnapshot | ResidencyDelta
    gap: bool


class SeenHeard(msgspec.Struct, frozen=True, kw_only=True, tag="seen_heard"):
    """A node told whom it served."""

    now_ns: int
    user_keys: list[int]
    ages_ms: list[int]


class Gone(msgspec.Struct, frozen=True, kw_only=True, tag="gone"):
    """A node could not be heard any more."""

    index: int


class Reaped(msgspec.Struct, frozen=True, kw_only=True, tag="reaped"):
    """The once-a-second sweep; `expired` is what the core answered."""

    now_ns: int
    expired: int


RouterRecord = RouterHeader | Picked | Completed | LoadHeard | ResidencyHeard | SeenHeard | Gone | Reaped | End

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(RouterRecord)


def outcome_digest(
    node: int,
    reservation: int,
    predicted_ms: float,
    service_ms: float,
    rent_ms: float,
    gap_ns: int,
    elsewhere: bool,
    cached: int,
    sample: int,
) -> int:
    """64-bit digest of everything a pick answered, in the order of its fields."""
    packed = _OUTCOME.pack(node, reservation, predicted_ms, service_ms, rent_ms, gap_ns, elsewhere, cached, sample)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def encode_router_record(record: RouterRecord) -> bytes:
    """One record as it stands in the file."""
    body = _ENCODER.encode(record)
    return LENGTH.pack(len(body)) + body


def read_router_records(path: Path) -> Iterator[RouterRecord]:
    """Records of one file in order; a record cut off at the end (the process was killed) ends it."""
    with path.open("rb") as source:
        while len(prefix := source.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(prefix)
            if length > RECORD_BYTES_MAX:
                raise ValueError(f"router journal: a record of {length} bytes")
            body = source.read(length)
            if len(body) < length:
                return
            try:
                record: RouterRecord = _DECODER.decode(body)
            except msgspec.MsgspecError as error:
                raise ValueError(f"router journal: a record does not decode: {error}") from error
            yield record
