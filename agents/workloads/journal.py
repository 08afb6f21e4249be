"""The journal of a live node: every call on its brain, in order, with digests of what came out.

A file is a sequence of records, each a 4-byte big-endian length and one msgpack map; the first is
a `Header`, the last of a run that ended properly an `End`. Inputs are kept whole, so that a
replayer makes the same calls and recomputes the outputs; of the outputs only 64-bit digests are
kept, so that nothing can be read back instead of being recomputed. Arrays are stored with the
narrowest integer type that holds them and restored to their own.

A run is as many files as it needs, so that what was served last is always there: `1234.journal`, `1234.p2.journal`,
`1234.p3.journal`. Each begins with a header and ends, but for the last, with `continued`. All of them in a row replay; one
without those before it does not, but its requests can be learned from.
"""

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.wire.messages import ClusterReuse, ControlRequest, DecisionRecord, NodeSpec, VersionPart

JOURNAL_VERSION = 1
SUFFIX = ".journal"
CONTINUED = "continued"  # why a part ends: the next one goes on
_PART = re.compile(r"(.+)\.p([1-9]\d{0,8})")
RECORD_BYTES_MAX = 256 << 20  # a longer length prefix is damage: the gateway admits no batch near it
LENGTH = struct.Struct(">I")
NARROW_TYPES = ("int8", "int16", "int32")


class PackedArray(msgspec.Struct, frozen=True, array_like=True):
    """A one-dimensional array: its own type, the type it is stored in, its bytes (little-endian)."""

    dtype: str
    stored: str
    data: bytes


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="header"):
    """What a replayer needs to build the same brain. The salt itself is never written."""

    journal_version: int
    wire_version: int
    name: str
    profile: str
    config: dict[str, Any]  # the node's configuration as plain values
    salt_digest: str
    started_unix_ns: int  # of this part
    part: int = 1


class Admit(msgspec.Struct, frozen=True, kw_only=True, tag="admit"):
    """A batch was booked. `batch` holds the arrays in the order of the batch's fields."""

    now_ns: int
    batch: list[PackedArray]
    ticket: int
    digest: int


class Complete(msgspec.Struct, frozen=True, kw_only=True, tag="complete"):
    """The device served a batch; timings are measured, hence inputs."""

    now_ns: int
    ticket: int
    queue_ms: PackedArray
    emb_ms: float
    kv_ms: float
    compute_ms: PackedArray
    service_ms: float


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    """The device failed a batch, or never started it."""

    now_ns: int
    ticket: int


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    """One tick, its effects' digest, and totals after it for whoever skims the file."""

    now_ns: int
    queue_depth: int
    queued_ms: float
    refill_backlog_bytes: int
    failures: int
    serial: int
    digest: int
    emb_ratio: float
    moved_pages_total: int
    evictions_total: int


class MovesDone(msgspec.Struct, frozen=True, kw_only=True, tag="moves_done"):
    """The row copies of a tick finished."""

    now_ns: int
    serial: int


class RefillCommit(msgspec.Struct, frozen=True, kw_only=True, tag="refill_commit"):
    """Staged rows were booked."""

    now_ns: int
    rows: PackedArray
    digest: int


class Apply(msgspec.Struct, frozen=True, kw_only=True, tag="apply"):
    """A command of the control plane; `error_code` is empty when it was accepted."""

    now_ns: int
    spec: NodeSpec
    error_code: str = ""


class Control(msgspec.Struct, frozen=True, kw_only=True, tag="control"):
    """A local command; `error_code` is empty when it was accepted."""

    now_ns: int
    request: ControlRequest
    error_code: str = ""


class Reuse(msgspec.Struct, frozen=True, kw_only=True, tag="reuse_received"):
    """The cluster's reuse statistics arrived."""

    now_ns: int
    message: ClusterReuse


class VersionFlip(msgspec.Struct, frozen=True, kw_only=True, tag="version_flip"):
    """A new version of the model or of the feature schema voided the prefixes."""

    now_ns: int
    part: VersionPart = VersionPart.MODEL


class UsePolicy(msgspec.Struct, frozen=True, kw_only=True, tag="use_policy"):
    """Another policy decides from the next decision on; without bytes the node's own controller."""

    weights: bytes
    card: bytes


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """Why the journal stops here: `closed`, `continued`, `writer_overrun`; all before it replays."""

    reason: str


Record = Header | Admit | Complete | Abort | Tick | MovesDone | RefillCommit | Apply | Control | Reuse | VersionFlip | UsePolicy | End

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


def pack(array: NDArray[Any]) -> PackedArray:
    """Store a one-dimensional array, integers in the narrowest type that holds them."""
    own = array.dtype.name
    stored = own
    if array.dtype.kind == "i" and array.shape[0]:
        low, high = int(array.min()), int(array.max())
        fits = (name for name in NARROW_TYPES if np.iinfo(name).min <= low and high <= np.iinfo(name).max)
        stored = next(fits, own)
    return PackedArray(own, stored, np.ascontiguousarray(array, dtype=np.dtype(stored).newbyteorder("<")).tobytes())


def unpack(packed: PackedArray) -> NDArray[Any]:
    """The array as it was, in memory of its own."""
    return np.frombuffer(packed.data, np.dtype(packed.stored).newbyteorder("<")).astype(packed.dtype)


def digest(arrays: Iterable[NDArray[Any]]) -> int:
    """64-bit digest of the bytes of arrays in order; lengths count, so moved borders are noticed."""
    state = hashlib.blake2b(digest_size=8)
    for array in arrays:
        state.update(LENGTH.pack(array.nbytes))
        state.update(np.ascontiguousarray(array).data)
    return int.from_bytes(state.digest(), "little")


def effects_digest(arrays: Iterable[NDArray[Any]], records: Iterable[DecisionRecord]) -> int:
    """Digest of a tick's effects: its arrays and what was decided, without when and how fast on the wall clock."""
    state = hashlib.blake2b(digest_size=8)
    state.update(LENGTH.pack(0) + digest(arrays).to_bytes(8, "little"))
    for record in records:
        ratios = (record.emb_ratio_before, record.emb_ratio_proposed, record.emb_ratio_granted)
        state.update(struct.pack("<3d", *ratios))
        state.update("|".join((record.mode, record.reason, *record.guard_reasons)).encode())
    return int.from_bytes(state.digest(), "little")


def encode_record(record: Record) -> bytes:
    """One record as it stands in the file."""
    body = _ENCODER.encode(record)
    return LENGTH.pack(len(body)) + body


def part_path(first: Path, part: int) -> Path:
    """File of a run's part, by the run's first file."""
    return first if part == 1 else first.with_name(f"{first.stem}.p{part}{first.suffix}")


def part_of(path: Path) -> tuple[Path, int]:
    """First file of the run that a file belongs to, and which part of it the file is."""
    named = _PART.fullmatch(path.stem)
    return (path, 1) if named is None else (path.with_name(named[1] + path.suffix), int(named[2]))


def read_run(first: Path) -> Iterator[Record]:
    """Records of a run from its first part on, as if it were one file; errors as of `read_records`."""
    part = 1
    while True:
        following = part_path(first, part + 1)
        for record in read_records(part_path(first, part)):
            if isinstance(record, End) and record.reason == CONTINUED and following.exists():
                break
            if part == 1 or not isinstance(record, Header):
                yield record
        else:
            return
        part += 1


def read_records(path: Path) -> Iterator[Record]:
    """Records of one file in order.

    A file cut off in the middle of a record (the process was killed) ends before it; anything
    else that does not decode is a `ValueError` with the offset.
    """
    with path.open("rb") as source:
        yield from _records(source)


def _records(source: BinaryIO) -> Iterator[Record]:
    while len(prefix := source.read(LENGTH.size)) == LENGTH.size:
        offset = source.tell() - LENGTH.size
        (length,) = LENGTH.unpack(prefix)
        if length > RECORD_BYTES_MAX:
            raise ValueError(f"journal: record of {length} bytes at offset {offset}")
        body = source.read(length)
        if len(body) < length:
            return
        try:
            yield _DECODER.decode(body)
        except msgspec.MsgspecError as error:
            raise ValueError(f"journal: record at offset {offset} does not decode: {error}") from error


def read_header(path: Path) -> Header:
    """The header of a file; `ValueError` when it has none or is of another version."""
    first = next(read_records(path), None)
    if not isinstance(first, Header):
        raise ValueError(f"journal: {path.name} does not begin with a header")
    if first.journal_version != JOURNAL_VERSION:
        raise ValueError(f"journal: {path.name} has version {first.journal_version}, this reader knows {JOURNAL_VERSION}")
    return first
