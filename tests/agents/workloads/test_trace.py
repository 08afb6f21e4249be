from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.workloads.trace import Columns, TraceError, read_log

NS = 1_000_000_000


def csv_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return path


def long_csv(rows: int, **replace: str) -> str:
    """A log of `rows` good rows; `replace` puts other text at a line, e.g. line7="x,y"."""
    lines = ["user,item,ts", *(f"{i % 5},{i % 11},{1_600_000_000 + i}" for i in range(rows))]
    for key, text in replace.items():
        lines[int(key.removeprefix("line")) - 1] = text
    return "\n".join(lines) + "\n"


def parquet_file(tmp_path: Path, **columns: object) -> Path:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_csv_parquet_and_npz_of_the_same_events_are_the_same_log(tmp_path: Path) -> None:
    users, items, times = [7, 3, 7], [100, 50, 100], [1_600_000_000, 1_600_000_005, 1_600_000_009]
    np.savez(tmp_path / "log.npz", user=users, item=items, ts=times)
    paths = [
        csv_file(tmp_path, "user,item,ts\n7,100,1600000000\n3,50,1600000005\n7,100,1600000009\n"),
        parquet_file(tmp_path, user=users, item=items, ts=times),
        tmp_path / "log.npz",
    ]
    for log in map(read_log, paths):
        assert log.users.tolist() == [0, 1, 0]
        assert log.items.tolist() == [0, 1, 0]
        assert log.item_ids.tolist() == [100, 50]
        assert log.ts_ns.tolist() == [time * NS for time in times]
        assert (log.user_count, log.bad_count) == (2, 0)


def test_columns_are_mapped_by_option_and_ids_may_be_text(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "when,who,what\n1600000000,anna,tea\n1600000001,ben,milk\n1600000002,anna,milk\n")
    log = read_log(path, Columns("who", "what", "when"))
    assert log.users.tolist() == [0, 1, 0]
    assert log.item_ids.tolist() == ["tea", "milk"]


def test_a_bad_row_is_skipped_counted_and_named_by_its_line(tmp_path: Path) -> None:
    log = read_log(csv_file(tmp_path, long_csv(300, line17="1,2,yesterday")))
    assert log.bad_count == 1
    assert log.bad_rows[0].line == 17
    assert any("line 17" in note and "1 of 300" in note for note in log.notes)
    assert log.users.shape == (299,)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",2,1600000000", "user is empty"),
        ("1,,1600000000", "item is empty"),
        ("1,2,", "ts is not a time"),
        ("1,2,nan", "ts is not a time"),
        ("1,2,-5", "ts is not a time"),
        ("1,2", "2 fields where the header has 3"),
        ("1,2,1600000000,4", "4 fields where the header has 3"),
    ],
)
def test_each_kind_of_bad_row_has_its_reason(tmp_path: Path, row: str, reason: str) -> None:
    log = read_log(csv_file(tmp_path, long_csv(200, line9=row)))
    assert [(bad.line, bad.reason) for bad in log.bad_rows] == [(9, reason)]


def test_more_than_one_percent_of_bad_rows_stops_in_one_line(tmp_path: Path) -> None:
    path = csv_file(tmp_path, long_csv(100, line5="x,y,z", line50="1,2,"))
    with pytest.raises(TraceError, match=r"line 5: ts is not a time \(2 of 100 rows are bad") as error:
        read_log(path)
    assert "\n" not in str(error.value)


def test_exactly_one_percent_of_bad_rows_passes(tmp_path: Path) -> None:
    assert read_log(csv_file(tmp_path, long_csv(100, line5="x,y,z"))).bad_count == 1


def test_lines_are_counted_as_an_editor_counts_them_behind_quoted_breaks(tmp_path: Path) -> None:
    text = long_csv(200, line3='"two\nlines",2,1600000001', line10="1,2,bad")
    assert read_log(csv_file(tmp_path, text)).bad_rows[0].line == 11


def test_an_unsorted_log_is_sorted_and_says_so(tmp_path: Path) -> None:
    log = read_log(csv_file(tmp_path, "user,item,ts\n1,10,1600000009\n2,20,1600000001\n"))
    assert log.ts_ns.tolist() == [1_600_000_001 * NS, 1_600_000_009 * NS]
    assert log.item_ids.tolist() == [20, 10]
    assert "rows were not in order of time: sorted" in log.notes


def test_a_sorted_log_is_not_said_to_be_sorted(tmp_path: Path) -> None:
    assert not any("sorted" in note for note in read_log(csv_file(tmp_path, long_csv(10))).notes)


@pytest.mark.parametrize("text", ["", "user,item,ts\n", "user,item,ts\n\n\n"])
def test_an_empty_log_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TraceError, match="empty"):
        read_log(csv_file(tmp_path, text))


def test_an_empty_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="empty"):
        read_log(parquet_file(tmp_path, user=pa.array([], pa.int32()), item=pa.array([], pa.int32()), ts=pa.array([], pa.int64())))


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no column 'item', the file has user, thing, ts"):
        read_log(csv_file(tmp_path, "user,thing,ts\n1,2,3\n"))


@pytest.mark.parametrize("name", ["log.parquet", "log.npz", "log.csv", "log.tsv"])
def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match=r"no such file|unknown kind"):
        read_log(tmp_path / name)


@pytest.mark.parametrize("name", ["log.parquet", "log.npz", "log.csv"])
def test_garbage_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(TraceError) as error:
        read_log(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(("scale", "unit"), [(1, "s"), (1_000, "ms"), (1_000_000, "us"), (NS, "ns")])
def test_the_unit_of_time_is_known_by_its_magnitude(tmp_path: Path, scale: int, unit: str) -> None:
    log = read_log(parquet_file(tmp_path, user=[1, 2], item=[1, 2], ts=[1_600_000_000 * scale, 1_600_000_060 * scale]))
    assert log.ts_ns.tolist() == [1_600_000_000 * NS, 1_600_000_060 * NS]
    assert f"time in {unit} (by magnitude)" in log.notes


def test_a_stated_unit_is_taken_at_its_word(tmp_path: Path) -> None:
    log = read_log(parquet_file(tmp_path, user=[1, 2], item=[1, 2], ts=[0, 1_500]), Columns(ts_unit="ms"))
    assert log.ts_ns.tolist() == [0, 1_500_000_000]
    with pytest.raises(TraceError, match="ts_unit"):
        read_log(tmp_path / "log.parquet", Columns(ts_unit="weeks"))


def test_parquet_timestamps_and_iso_dates_need_no_unit(tmp_path: Path) -> None:
    stamps = pa.array([1_600_000_000_000, 1_600_000_001_500], pa.timestamp("ms"))
    assert read_log(parquet_file(tmp_path, user=[1, 2], item=[1, 2], ts=stamps)).ts_ns[1] == 1_600_000_001_500_000_000
    log = read_log(csv_file(tmp_path, "user,item,ts\n1,2,2020-09-13T12:26:40+00:00\n1,3,2020-09-13 12:26:41\n"))
    assert log.ts_ns.tolist() == [1_600_000_000 * NS, 1_600_000_001 * NS]


def test_empty_parquet_cells_are_bad_rows(tmp_path: Path) -> None:
    users: list[int | None] = [1] * 200
    users[41] = None
    items: list[float | None] = [2.0] * 200
    items[100] = float("nan")
    log = read_log(parquet_file(tmp_path, user=users, item=items, ts=list(range(1_600_000_000, 1_600_000_200))))
    assert [(bad.line, bad.reason) for bad in log.bad_rows] == [(42, "user is empty"), (101, "item is empty")]


def test_arrays_of_different_length_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", user=[1, 2], item=[1], ts=[1, 2])
    with pytest.raises(TraceError, match="'item' must be one-dimensional and as long as 'user'"):
        read_log(tmp_path / "log.npz")


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", user=np.array([{"a": 1}], dtype=object), item=[1], ts=[1])
    with pytest.raises(TraceError, match="cannot be read as npz"):
        read_log(tmp_path / "log.npz")


def test_fractional_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="'item' holds fractions"):
        read_log(parquet_file(tmp_path, user=[1, 2], item=[1.5, 2.0], ts=[1_600_000_000, 1_600_000_001]))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.text("abc", min_size=1, max_size=2), st.integers(0, 50)), min_size=1, max_size=30))
def test_renumbering_loses_no_event(tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str, int]]) -> None:
    path = csv_file(tmp_path_factory.mktemp("log"), "user,item,ts\n" + "".join(f"{u},{i},{1_600_000_000 + t}\n" for u, i, t in events))
    log = read_log(path)
    ordered = sorted(events, key=lambda event: event[2])
    assert [log.item_ids[item] for item in log.items] == [item for _, item, _ in ordered]
    first_seen: dict[int, int] = {}
    assert log.users.tolist() == [first_seen.setdefault(user, len(first_seen)) for user, _, _ in ordered]
