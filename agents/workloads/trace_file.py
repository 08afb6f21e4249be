"""The one format of recorded traffic: a Parquet file of requests with a header, for captures and imports alike.

A row is a request: when, by whom (a 64-bit key, never a raw id), which events the user added since the request
before (table rows, newest last) and, where they are known, the candidates. The header says how keys were salted,
which share of the users was sampled and how often each was cloned, without which a rate cannot be read.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agents.workloads.trace import Log, TraceError

HEADER_KEY = b"helm_trace"
TRACE_VERSION = 1
ROW_GROUP = 8_192  # requests buffered before they are written; with 6 events each about half a megabyte

_SCHEMA = pa.schema(
    [
        ("ts_ns", pa.int64()),
        ("user", pa.uint64()),
        ("items", pa.list_(pa.int32())),
        ("candidates", pa.list_(pa.int32())),
        ("history_tokens", pa.int32()),
    ]
)


class TraceHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be known to read the rates and ids of a trace."""

    version: int = TRACE_VERSION
    salt: str  # hex; keys the users' hashes, so that traces of one cluster can be joined
    sampling_ratio: float = 1.0  # share of the users that were recorded, by hash
    clone_factor: int = 1  # copies of each user in the file
    rows: int  # size of the item table; items are below it
    items_mapping: str  # how the source's items became rows
    source: str
    history_rule: str = "popular"  # how histories shorter than the model's are to be lengthened

    def __post_init__(self) -> None:
        """Refuse a header that makes rates meaningless, naming the field."""
        if self.version != TRACE_VERSION:
            raise ValueError(f"version {self.version} is not {TRACE_VERSION}")
        if not 0.0 < self.sampling_ratio <= 1.0:
            raise ValueError("sampling_ratio must be in (0, 1]")
        if self.clone_factor < 1 or self.rows < 1:
            raise ValueError("clone_factor and rows must be >= 1")


class TraceRecord(NamedTuple):
    """One request. `candidates` is None and `history_tokens` negative where they were not recorded."""

    ts_ns: int  # unix
    user: int  # 64-bit key
    items: Sequence[int]  # events since the user's request before, newest last
    candidates: Sequence[int] | None = None
    history_tokens: int = -1


class RequestTable(NamedTuple):
    """R requests in order of time; `items` are jagged: request i has `items[offsets[i]:offsets[i + 1]]`."""

    ts_ns: NDArray[np.int64]  # [R] unix
    users: NDArray[np.uint64]  # [R]
    items: NDArray[np.int64]  # [E]
    offsets: NDArray[np.int64]  # [R + 1]


class TraceWriter:
    """Writes a trace row group by row group; a context manager, complete only after it closed."""

    def __init__(self, path: Path, header: TraceHeader) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        schema = _SCHEMA.with_metadata({HEADER_KEY: msgspec.json.encode(header)})
        self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self._schema = schema

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def write(self, records: Iterable[TraceRecord]) -> int:
        """Append records; returns how many."""
        written = 0
        for group in _groups(records):
            columns = [
                [record.ts_ns for record in group],
                [record.user for record in group],
                [list(record.items) for record in group],
                [None if record.candidates is None else list(record.candidates) for record in group],
                [record.history_tokens if record.history_tokens >= 0 else None for record in group],
            ]
            arrays = [pa.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            written += len(group)
        return written


def write_trace(path: Path, header: TraceHeader, records: Iterable[TraceRecord]) -> int:
    """Write a whole trace; the file appears only when it is complete. Returns the number of requests."""
    with TraceWriter(path, header) as writer:
        return writer.write(records)


def write_table(path: Path, header: TraceHeader, table: RequestTable) -> int:
    """Write requests held in arrays: an import's way, without a Python object per request."""
    schema = _SCHEMA.with_metadata({HEADER_KEY: msgspec.json.encode(header)})
    count = int(table.ts_ns.shape[0])
    items = pa.ListArray.from_arrays(pa.array(table.offsets, pa.int32()), pa.array(table.items, pa.int32()))
    arrays = [
        pa.array(table.ts_ns),
        pa.array(table.users),
        items,
        pa.nulls(count, _SCHEMA.field("candidates").type),
        pa.nulls(count, pa.int32()),
    ]
    partial = path.with_name(path.name + ".partial")
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), partial, compression="zstd", row_group_size=ROW_GROUP)
    partial.replace(path)
    return count


def read_header(path: Path) -> TraceHeader | None:
    """Header of a trace of ours; None if the file is another kind of Parquet or none at all."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{path}: cannot be read as parquet: {' '.join(str(error).split())[:200]}") from None
    if HEADER_KEY not in metadata:
        return None
    try:
        return msgspec.json.decode(metadata[HEADER_KEY], type=TraceHeader)
    except (msgspec.MsgspecError, ValueError) as error:
        raise TraceError(f"{path}: broken trace header: {error}") from None


def read_records(path: Path) -> Iterator[TraceRecord]:
    """Requests one by one, in the file's order, candidates included."""
    for batch in pq.ParquetFile(path).iter_batches(batch_size=ROW_GROUP):
        for row in batch.to_pylist():
            tokens = row["history_tokens"]
            yield TraceRecord(row["ts_ns"], row["user"], row["items"], row["candidates"], -1 if tokens is None else tokens)


def read_table(path: Path) -> RequestTable:
    """Requests as arrays, sorted by time; `TraceError` if columns, items or times are broken."""
    header = read_header(path)
    if header is None:
        raise TraceError(f"{path}: no trace header")
    try:
        table = pq.read_table(path, columns=["ts_ns", "user", "items"]).combine_chunks()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise TraceError(f"{path}: cannot be read as a trace: {' '.join(str(error).split())[:200]}") from None
    if table.num_rows == 0:
        raise TraceError(f"{path}: empty, no requests")
    if any(table.column(name).null_count for name in ("ts_ns", "user", "items")):
        raise TraceError(f"{path}: a request without time, user or items")
    lists = table.column("items").combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    result = _sorted(
        table.column("ts_ns").to_numpy(), table.column("user").to_numpy(), lists.flatten().to_numpy(zero_copy_only=False), lengths
    )
    if result.items.size and (result.items.min() < 0 or result.items.max() >= header.rows):
        raise TraceError(f"{path}: an item is outside the header's {header.rows} rows")
    return result


def table_as_log(table: RequestTable, notes: list[str]) -> Log:
    """Requests as the events they brought, each at its request's time."""
    lengths = np.diff(table.offsets)
    keys, users = np.unique(np.repeat(table.users, lengths), return_inverse=True)
    item_ids, items = np.unique(table.items, return_inverse=True)
    if not items.size:
        raise TraceError("trace: its requests brought no events")
    ts_ns = np.repeat(table.ts_ns, lengths)
    return Log(users.astype(np.int64), items.astype(np.int64), ts_ns, int(keys.size), item_ids, [], 0, notes)


def _sorted(ts_ns: NDArray[np.int64], users: NDArray[np.uint64], items: NDArray[np.int32], lengths: NDArray[np.int64]) -> RequestTable:
    order = np.argsort(ts_ns, kind="stable")
    starts = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    offsets = np.concatenate(([0], np.cumsum(lengths[order]))).astype(np.int64)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths[order]) + np.repeat(starts[order], lengths[order])
    return RequestTable(ts_ns[order].astype(np.int64), users[order], items[place].astype(np.int64), offsets)


def _groups(records: Iterable[TraceRecord]) -> Iterator[list[TraceRecord]]:
    """Row groups of bounded size, so that a capture of hours needs no more memory than one of minutes."""
    source = iter(records)
    while group := list(islice(source, ROW_GROUP)):
        yield group
