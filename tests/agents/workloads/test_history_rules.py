from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.workloads.replay import HISTORY_RULES, HistoryRule, Pace, ReplayRules, import_trace, open_trace
from agents.workloads.request import Request
from agents.workloads.trace import Columns, TraceError, read_log
from agents.workloads.trace_file import read_header

RULES = ReplayRules(rows=1000, candidates=20, tokens_max=32, actions=4, history_tokens_min=16)


def csv_log(tmp_path: Path, order: list[int] | None = None) -> Path:
    """Two users who take different items; user 0 takes 100 + n, user 1 takes 200 + n."""
    rows = [f"{i % 2},{100 + 100 * (i % 2) + i % 7},{1_600_000_000 + 100 * i},{'buy' if i % 4 < 2 else 'view'}" for i in range(40)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,ts,kind", *(rows[i] for i in order or range(40))]) + "\n")
    return path


def requests(tmp_path: Path, rule: HistoryRule) -> list[Request]:
    workload, _ = open_trace(csv_log(tmp_path), msgspec.structs.replace(RULES, history=rule), Pace(), 1)
    return list(workload.requests())


def test_by_the_popular_rule_a_past_holds_what_everybody_took(tmp_path: Path) -> None:
    first = requests(tmp_path, "popular")[0]
    assert 16 <= first.history_items.size <= 32
    assert len(set(first.history_items.tolist())) > 7


def test_by_the_own_rule_a_past_holds_only_what_the_user_takes(tmp_path: Path) -> None:
    asked = requests(tmp_path, "own")
    own = {request.user: set() for request in asked}
    for request in asked:
        own[request.user] |= set(request.history_items.tolist())
    assert not own[0] & own[1]
    assert max(len(items) for items in own.values()) <= 7


def test_by_the_short_rule_a_history_is_one_event_and_what_the_log_adds(tmp_path: Path) -> None:
    mine = [request for request in requests(tmp_path, "short") if request.user == 0]
    assert [request.history_items.size for request in mine[:5]] == [1, 2, 3, 4, 5]
    assert max(request.history_items.size for request in mine) <= 32


def test_a_trace_remembers_the_rule_it_was_imported_with(tmp_path: Path) -> None:
    target = tmp_path / "log.trace.parquet"
    notes = import_trace(csv_log(tmp_path), target, msgspec.structs.replace(RULES, history="own"), 1)
    assert HISTORY_RULES["own"] in notes
    header = read_header(target)
    assert header is not None
    assert header.history_rule == "own"
    replayed = list(open_trace(target, RULES, Pace(), 1)[0].requests())
    direct = requests(tmp_path, "own")
    assert all(np.array_equal(a.history_items, b.history_items) for a, b in zip(replayed, direct, strict=True))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="history: unknown 'long'"):
        msgspec.structs.replace(RULES, history="long")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_only_rows_with_the_value_asked_for_are_read(tmp_path: Path, suffix: str) -> None:
    path = csv_log(tmp_path)
    if suffix != ".csv":
        whole = read_log(path)
        kinds = np.array(["buy" if i % 4 < 2 else "view" for i in range(40)])
        arrays = {"user": whole.users, "item": whole.items, "ts": whole.ts_ns // 10**9, "kind": kinds}
        path = tmp_path / f"log{suffix}"
        if suffix == ".npz":
            np.savez(path, **arrays)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table(arrays), path)
    log = read_log(path, Columns(only=(("kind", "buy"),)))
    assert log.users.size == 20
    assert "only rows with kind = buy" in log.notes
    with pytest.raises(TraceError, match="no column 'sort'"):
        read_log(path, Columns(only=(("sort", "buy"),)))


def test_rows_out_of_order_are_refused_by_their_line_unless_sorting_is_asked_for(tmp_path: Path) -> None:
    path = csv_log(tmp_path, [0, 2, 1, *range(3, 40)])
    with pytest.raises(TraceError, match="line 4: ts is earlier than the row before; `helmctl trace import --sort`"):
        read_log(path, sort=False)
    assert "rows were not in order of time: sorted" in read_log(path).notes
