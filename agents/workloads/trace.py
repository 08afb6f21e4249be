"""Reads a log of `user, item, ts` from Parquet, NPZ or CSV, and says what it did to it.

The edge of the product: files come from strangers. A bad row is counted and named by its line; more than 1 %
of them stop the import, because a mapping that is wrong for some rows is usually wrong for all. Whatever is
changed on the way (sorting, time unit, skipped rows) becomes a note for the person who asked.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BAD_RATIO_MAX = 0.01
UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_TS_SECONDS_MAX = 2**32  # year 2106; beyond it is a wrong unit or garbage


class TraceError(ValueError):
    """A log that cannot be used; the message is one line naming file and reason."""


class Columns(NamedTuple):
    """Names of the log's columns, the unit of its time (`auto`: by magnitude), and which rows count."""

    user: str = "user"
    item: str = "item"
    ts: str = "ts"
    ts_unit: str = "auto"
    only: tuple[tuple[str, str], ...] = ()  # (column, value): rows with another value are no events of interest

    @property
    def names(self) -> list[str]:
        """Every column that is read, each once."""
        return list(dict.fromkeys((self.user, self.item, self.ts, *(name for name, _ in self.only))))


class BadRow(NamedTuple):
    """A row that was skipped. `line` counts from 1; in a CSV the header is line 1."""

    line: int
    reason: str


class Log(NamedTuple):
    """Events in order of time, ids renumbered densely in order of first appearance; E events."""

    users: NDArray[np.int64]  # [E] 0..user_count-1
    items: NDArray[np.int64]  # [E] 0..item_count-1
    ts_ns: NDArray[np.int64]  # [E] unix time
    user_count: int
    item_ids: NDArray[np.generic]  # [item_count] the log's own ids: integers or strings
    bad_rows: list[BadRow]  # the first few
    bad_count: int
    notes: list[str]


class _Raw(NamedTuple):
    """Columns as read; `lines` holds each row's line in the file, `bad` the rows already refused."""

    users: NDArray[np.generic]
    items: NDArray[np.generic]
    times: NDArray[np.float64] | NDArray[np.int64]
    lines: NDArray[np.int64]
    unit: str
    bad: list[BadRow]
    total: int


def read_log(path: Path, columns: Columns | None = None, *, sort: bool = True) -> Log:
    """Events of a log file; `TraceError` in one line if it cannot be used. Without `sort`, rows out of order are refused."""
    columns = columns or Columns()
    if columns.ts_unit not in ("auto", *UNIT_NS):
        raise TraceError(f"ts_unit: unknown {columns.ts_unit!r}, choose one of auto, {', '.join(UNIT_NS)}")
    readers = {".parquet": _read_parquet, ".npz": _read_npz, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TraceError(f"{path}: unknown kind of file, expected {', '.join(readers)}")
    try:
        raw = reader(path, columns)
    except TraceError:
        raise
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, pa.ArrowException, UnicodeDecodeError, EOFError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read as {path.suffix[1:]}: {_one_line(error)}") from None
    return _checked(path, raw, columns, sort)


def _checked(path: Path, raw: _Raw, columns: Columns, sort: bool) -> Log:
    """Refuse what is bad, convert time to ns, sort, renumber."""
    if raw.total == 0:
        raise TraceError(f"{path}: empty, no rows")
    unit = raw.unit or (columns.ts_unit if columns.ts_unit != "auto" else _unit_of(raw.times))
    seconds = raw.times.astype(np.float64) * UNIT_NS[unit] / UNIT_NS["s"]
    with np.errstate(invalid="ignore"):
        good = np.isfinite(seconds) & (seconds >= 0) & (seconds < _TS_SECONDS_MAX)
    bad = sorted(raw.bad + [BadRow(int(line), f"{columns.ts} is not a time") for line in raw.lines[~good]])
    _refuse_too_many(path, bad, raw.total)
    if not good.any():
        raise TraceError(f"{path}: empty, no usable rows")
    times = raw.times[good]
    scale = UNIT_NS[unit]
    ts_ns = (times * scale if times.dtype == np.int64 else np.round(times * scale)).astype(np.int64)
    users, items = raw.users[good], raw.items[good]
    notes = [f"time in {unit}" + (" (by magnitude)" if not raw.unit and columns.ts_unit == "auto" else "")]
    if bad:
        notes.append(f"{len(bad)} of {raw.total} rows skipped as bad, first at line {bad[0].line}: {bad[0].reason}")
    if columns.only:
        notes.append("only rows with " + " and ".join(f"{name} = {value}" for name, value in columns.only))
    if (backwards := np.flatnonzero(np.diff(ts_ns) < 0)).size:
        if not sort:
            line = int(raw.lines[good][backwards[0] + 1])
            raise TraceError(
                f"{path}: line {line}: {columns.ts} is earlier than the row before; `helmctl trace import --sort` puts rows in order"
            )
        notes.append("rows were not in order of time: sorted")
        order = np.argsort(ts_ns, kind="stable")
        users, items, ts_ns = users[order], items[order], ts_ns[order]
    dense_users, user_ids = _dense(users)
    dense_items, item_ids = _dense(items)
    return Log(dense_users, dense_items, ts_ns, user_ids.shape[0], item_ids, bad[:20], len(bad), notes)


def _refuse_too_many(path: Path, bad: Sequence[BadRow], total: int) -> None:
    if len(bad) > BAD_RATIO_MAX * total:
        first = bad[0]
        share = 100.0 * len(bad) / total
        raise TraceError(f"{path}: line {first.line}: {first.reason} ({len(bad)} of {total} rows are bad, {share:.1f} % is more than 1 %)")


def _unit_of(times: NDArray[np.float64] | NDArray[np.int64]) -> str:
    """Unit of unix times by their magnitude: 1e11 seconds would be the year 5138."""
    finite = times[np.isfinite(times)]
    typical = float(np.median(np.abs(finite))) if finite.size else 0.0
    if typical >= 1e17:
        return "ns"
    if typical >= 1e14:
        return "us"
    return "ms" if typical >= 1e11 else "s"


def _dense(ids: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Ids renumbered in order of first appearance, and the id of each number."""
    distinct, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(order.shape[0], dtype=np.int64)
    rank[order] = np.arange(order.shape[0])
    return rank[inverse], distinct[order]


def _read_parquet(path: Path, columns: Columns) -> _Raw:
    names = pq.read_schema(path).names
    _need_columns(path, columns, names)
    table = pq.read_table(path, columns=columns.names)
    lines = np.arange(1, table.num_rows + 1, dtype=np.int64)
    wanted = _wanted({name: table.column(name).to_numpy() for name, _ in columns.only}, columns, table.num_rows)
    table, lines = table.filter(pa.array(wanted)), lines[wanted]
    ts_column = table.column(columns.ts)
    unit = ""
    if pa.types.is_timestamp(ts_column.type):
        unit = ts_column.type.unit
        ts_column = ts_column.cast(pa.int64())
    elif pa.types.is_date(ts_column.type):
        unit, ts_column = "s", ts_column.cast(pa.timestamp("s")).cast(pa.int64())
    fields = (columns.user, table.column(columns.user)), (columns.item, table.column(columns.item)), (columns.ts, ts_column)
    bad = _nulls(fields, lines)
    keep = ~np.isin(lines, [row.line for row in bad])
    mask = pa.array(keep)
    users, items = (_ids(path, name, column.filter(mask).to_numpy()) for name, column in fields[:2])
    times = _numbers(path, columns.ts, ts_column.filter(mask).to_numpy())
    return _Raw(users, items, times, lines[keep], unit, bad, table.num_rows)


def _nulls(fields: Iterable[tuple[str, pa.ChunkedArray]], lines: NDArray[np.int64]) -> list[BadRow]:
    found: dict[int, BadRow] = {}
    for name, column in fields:
        for place in np.flatnonzero(column.is_null(nan_is_null=True).to_numpy()):
            found.setdefault(int(place), BadRow(int(lines[place]), f"{name} is empty"))
    return [found[place] for place in sorted(found)]


def _read_npz(path: Path, columns: Columns) -> _Raw:
    with np.load(path, allow_pickle=False) as file:
        _need_columns(path, columns, file.files)
        arrays = {name: np.asarray(file[name]) for name in columns.names}
    total = arrays[columns.user].shape
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != total:
            raise TraceError(f"{path}: array {name!r} must be one-dimensional and as long as {columns.user!r}")
    wanted = _wanted(arrays, columns, total[0])
    lines = np.flatnonzero(wanted) + 1
    users, items, times = (arrays[name][wanted] for name in columns[:3])
    keep = np.ones(users.shape[0], dtype=bool)
    bad: list[BadRow] = []
    for name, array in ((columns.user, users), (columns.item, items)):
        if array.dtype.kind == "f":
            broken = keep & ~np.isfinite(array)
            bad += [BadRow(int(line), f"{name} is not a number") for line in lines[broken]]
            keep &= ~broken
    return _Raw(
        _ids(path, columns.user, users[keep]),
        _ids(path, columns.item, items[keep]),
        _numbers(path, columns.ts, times[keep]),
        lines[keep],
        "ns" if times.dtype.kind == "M" else "",
        sorted(bad),
        users.shape[0],
    )


def _read_csv(path: Path, columns: Columns) -> _Raw:
    """The standard library's reader: a bad row must be named by its line, also behind quoted line breaks."""
    users: list[str] = []
    items: list[str] = []
    times: list[float] = []
    lines: list[int] = []
    bad: list[BadRow] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise TraceError(f"{path}: empty, no rows")
        _need_columns(path, columns, header)
        places = [header.index(name) for name in columns[:3]]
        only = [(header.index(name), value) for name, value in columns.only]
        for fields in reader:
            if not fields or any(len(fields) == len(header) and fields[place].strip() != value for place, value in only):
                continue  # a blank line is no row
            parsed = _csv_row(fields, places, columns, len(header))
            if isinstance(parsed, str):
                bad.append(BadRow(reader.line_num, parsed))
                continue
            users.append(parsed[0])
            items.append(parsed[1])
            times.append(parsed[2])
            lines.append(reader.line_num)
    return _Raw(
        _ids(path, columns.user, np.array(users)),
        _ids(path, columns.item, np.array(items)),
        _numbers(path, columns.ts, np.array(times)),
        np.array(lines, dtype=np.int64),
        "",
        bad,
        len(lines) + len(bad),
    )


def _csv_row(fields: list[str], places: list[int], columns: Columns, width: int) -> tuple[str, str, float] | str:
    """User, item and time of a row, or what is wrong with it."""
    if len(fields) != width:
        return f"{len(fields)} fields where the header has {width}"
    user, item, text = (fields[place].strip() for place in places)
    if not user:
        return f"{columns.user} is empty"
    if not item:
        return f"{columns.item} is empty"
    time = _csv_time(text)
    return (user, item, time) if math.isfinite(time) else f"{columns.ts} is not a time"


def _csv_time(text: str) -> float:
    """A number in the log's unit, or an ISO date in unix seconds; NaN if it is neither."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _need_columns(path: Path, columns: Columns, names: Sequence[str]) -> None:
    for name in columns.names:
        if name not in names:
            raise TraceError(f"{path}: no column {name!r}, the file has {', '.join(map(str, names)) or 'none'}")


def _wanted(arrays: dict[str, NDArray[np.generic]], columns: Columns, total: int) -> NDArray[np.bool_]:
    """Rows that have the values asked for, compared as text."""
    wanted = np.ones(total, dtype=np.bool_)
    for name, value in columns.only:
        wanted &= arrays[name].astype(np.str_) == value
    return wanted


def _ids(path: Path, name: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Ids as int64 where they are whole numbers, as strings otherwise."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        if values.size and not (values == np.floor(values)).all():
            raise TraceError(f"{path}: column {name!r} holds fractions, ids are integers or strings")
        return values.astype(np.int64)
    text = values.astype(np.str_)
    try:
        return text.astype(np.int64)
    except (ValueError, OverflowError):
        return text


def _numbers(path: Path, name: str, values: NDArray[np.generic]) -> NDArray[np.float64] | NDArray[np.int64]:
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "M":
        return values.astype("datetime64[ns]").astype(np.int64)
    try:
        return values.astype(np.float64)
    except (ValueError, TypeError):
        raise TraceError(f"{path}: column {name!r} holds no times") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
