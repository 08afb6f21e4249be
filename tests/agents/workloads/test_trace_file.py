from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agents.workloads.trace import TraceError
from agents.workloads.trace_file import (
    HEADER_KEY,
    RequestTable,
    TraceHeader,
    TraceRecord,
    TraceWriter,
    read_header,
    read_records,
    read_table,
    write_table,
    write_trace,
)

HEADER = TraceHeader(salt="ab12", sampling_ratio=0.25, clone_factor=4, rows=100, items_mapping="dense", source="router-0")
RECORDS = [
    TraceRecord(10, 2**64 - 1, [1, 2, 3], [4, 5], 300),
    TraceRecord(30, 7, [], None),
    TraceRecord(20, 8, [99]),
]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    assert write_trace(path, HEADER, RECORDS) == 3
    assert read_header(path) == HEADER
    assert list(read_records(path)) == RECORDS


def test_as_arrays_requests_stand_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    write_trace(path, HEADER, RECORDS)
    table = read_table(path)
    assert table.ts_ns.tolist() == [10, 20, 30]
    assert table.users.tolist() == [2**64 - 1, 8, 7]
    assert table.items.tolist() == [1, 2, 3, 99]
    assert table.offsets.tolist() == [0, 3, 4, 4]


def test_arrays_written_are_the_arrays_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    table = RequestTable(np.array([5, 6]), np.array([1, 2], np.uint64), np.array([9, 8, 7]), np.array([0, 1, 3]))
    assert write_table(path, HEADER, table) == 2
    again = read_table(path)
    assert all(np.array_equal(a, b) for a, b in zip(table, again, strict=True))
    assert [record.items for record in read_records(path)] == [[9], [8, 7]]


def test_many_row_groups_are_one_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    assert write_trace(path, HEADER, (TraceRecord(at, at % 7, [at % 100]) for at in range(20_000))) == 20_000
    assert pq.ParquetFile(path).num_row_groups == 3
    assert read_table(path).items.tolist() == [at % 100 for at in range(20_000)]


def test_a_writer_appends_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    with TraceWriter(path, HEADER) as writer:
        writer.write(RECORDS[:1])
        assert not path.exists()
        writer.write(RECORDS[1:])
    assert len(list(read_records(path))) == 3


def test_a_capture_that_breaks_off_leaves_no_half_file(tmp_path: Path) -> None:
    def broken() -> Iterator[TraceRecord]:
        yield RECORDS[0]
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_trace(tmp_path / "trace.parquet", HEADER, broken())
    assert list(tmp_path.iterdir()) == []


def test_another_parquet_has_no_header(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1]}), tmp_path / "log.parquet")
    assert read_header(tmp_path / "log.parquet") is None
    assert read_header(tmp_path / "log.csv") is None


def test_a_broken_header_is_refused_in_one_line(tmp_path: Path) -> None:
    table = pa.table({"ts_ns": [1]}).replace_schema_metadata({HEADER_KEY: b'{"version": 9}'})
    pq.write_table(table, tmp_path / "trace.parquet")
    with pytest.raises(TraceError, match="broken trace header") as error:
        read_header(tmp_path / "trace.parquet")
    assert "\n" not in str(error.value)


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.parquet", HEADER, [])
    with pytest.raises(TraceError, match="empty"):
        read_table(tmp_path / "trace.parquet")


def test_an_item_outside_the_table_is_refused(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.parquet", HEADER, [TraceRecord(1, 1, [100])])
    with pytest.raises(TraceError, match="outside the header's 100 rows"):
        read_table(tmp_path / "trace.parquet")


@pytest.mark.parametrize("changes", [{"sampling_ratio": 0.0}, {"sampling_ratio": 1.5}, {"clone_factor": 0}, {"rows": 0}, {"version": 2}])
def test_a_header_that_makes_rates_meaningless_is_refused(changes: dict[str, float]) -> None:
    fields = {name: getattr(HEADER, name) for name in HEADER.__struct_fields__}
    with pytest.raises(ValueError, match=next(iter(changes))):
        TraceHeader(**{**fields, **changes})
