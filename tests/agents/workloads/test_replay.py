from itertools import islice, pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.workloads.replay import (
    EVENTS_PER_REQUEST_MAX,
    Pace,
    ReplayRules,
    TraceWorkload,
    fold,
    import_trace,
    open_trace,
    rows_of,
)
from agents.workloads.request import Request
from agents.workloads.trace import Log, TraceError
from agents.workloads.trace_file import RequestTable, read_header, read_table

NS = 1_000_000_000
RULES = ReplayRules(rows=1_000, candidates=30, tokens_max=64, actions=4, history_tokens_min=24)
T0 = 1_600_000_000


def log_of(*events: tuple[int, int, float]) -> Log:
    """A log of (user, item, seconds after T0), dense ids given as they are."""
    users, items = np.array([e[0] for e in events]), np.array([e[1] for e in events])
    times = np.array([T0 * NS + round(e[2] * NS) for e in events])  # exact: a sum of floats would miss by 100 ns
    return Log(users, items, times, int(users.max()) + 1, np.arange(items.max() + 1), [], 0, [])


def table_of(*requests: tuple[float, int, list[int]]) -> RequestTable:
    """Requests of (seconds after T0, user, items)."""
    offsets = np.concatenate(([0], np.cumsum([len(items) for _, _, items in requests])))
    flat = np.array([item for _, _, items in requests for item in items], dtype=np.int64)
    times = np.array([round((T0 + at) * NS) for at, _, _ in requests])
    return RequestTable(times, np.array([user for _, user, _ in requests], np.uint64), flat, offsets.astype(np.int64))


def regular(count: int, gap_seconds: float, users: int = 7) -> RequestTable:
    return table_of(*((place * gap_seconds, place % users, [place % 50, 50 + place % 13]) for place in range(count)))


def jagged(table: RequestTable) -> list[list[int]]:
    return [table.items[a:b].tolist() for a, b in pairwise(table.offsets.tolist())]


def as_bytes(request: Request) -> bytes:
    return b"".join([request.at_ns.to_bytes(8), request.user.to_bytes(8), *(array.tobytes() for array in request[2:])])


# --- folding ------------------------------------------------------------------------------


def test_events_of_a_user_within_seconds_are_one_request() -> None:
    log = log_of((0, 1, 0.0), (1, 2, 1.0), (0, 3, 4.0), (0, 4, 9.0), (0, 5, 14.001))
    table, notes = fold(log, np.arange(10), RULES, seed=1)
    assert jagged(table) == [[1, 3, 4], [2], [5]]  # 5 s after the event before is within, 5.001 s is not
    assert (table.ts_ns - T0 * NS).tolist() == [0, 1 * NS, 14_001_000_000]
    assert table.users[0] == table.users[2] != table.users[1]
    assert notes == ["5 events folded into 3 requests (gap up to 5 s)"]


def test_a_run_without_end_is_cut_into_requests_of_bounded_size() -> None:
    log = log_of(*((0, place % 9, place * 0.5) for place in range(150)))
    table, _ = fold(log, np.arange(10), RULES, seed=1)
    assert [len(items) for items in jagged(table)] == [EVENTS_PER_REQUEST_MAX, EVENTS_PER_REQUEST_MAX, 22]
    assert [item for items in jagged(table) for item in items] == [place % 9 for place in range(150)]


def test_raw_user_ids_are_not_stored() -> None:
    table, _ = fold(log_of((0, 1, 0.0), (1, 1, 9.0)), np.arange(10), RULES, seed=1)
    other, _ = fold(log_of((0, 1, 0.0), (1, 1, 9.0)), np.arange(10), msgspec.structs.replace(RULES, salt="00"), seed=1)
    assert table.users.min() > 1_000
    assert not set(table.users.tolist()) & set(other.users.tolist())


def daily(days: int) -> Log:
    return log_of(
        *((user, (user * 7 + day) % 40, day * 86_400.0) for day in range(days) for user in range(12) for _ in range(1 + user % 3))
    )


def test_a_days_events_are_spread_inside_their_day_by_seed() -> None:
    table, notes = fold(daily(5), np.arange(60), RULES, seed=1)
    seconds = (table.ts_ns - T0 * NS) / NS
    assert "clock of the log steps by 86400 s" in notes[0]
    assert np.bincount((seconds // 86_400).astype(int)).size == 5
    assert np.unique(seconds).size == seconds.size
    assert np.quantile(seconds % 86_400, [0.25, 0.75]) == pytest.approx([21_600, 64_800], rel=0.3)
    again, _ = fold(daily(5), np.arange(60), RULES, seed=1)
    other, _ = fold(daily(5), np.arange(60), RULES, seed=2)
    assert np.array_equal(table.ts_ns, again.ts_ns) and not np.array_equal(table.ts_ns, other.ts_ns)


def test_spreading_loses_no_event_and_keeps_each_users_order() -> None:
    log = daily(4)
    table, _ = fold(log, np.arange(60), RULES, seed=1)
    for user, key in enumerate(dict.fromkeys(_keys_in_order(log, RULES))):
        mine = [item for place, items in enumerate(jagged(table)) if table.users[place] == key for item in items]
        assert mine == log.items[log.users == user].tolist()


def _keys_in_order(log: Log, rules: ReplayRules) -> list[int]:
    """Keys of users 0, 1, ... as `fold` gives them, seen through a log of one event each."""
    single = Log(
        np.arange(log.user_count), np.zeros(log.user_count, int), np.arange(log.user_count), log.user_count, log.item_ids, [], 0, []
    )
    return [int(key) for key in fold(single, np.arange(60), rules, 1)[0].users]


def test_a_clock_of_seconds_is_left_alone() -> None:
    log = log_of((0, 1, 0.0), (1, 2, 7.0), (2, 3, 61.0))
    table, _ = fold(log, np.arange(10), RULES, seed=1)
    assert ((table.ts_ns - T0 * NS) // NS).tolist() == [0, 7, 61]


# --- items to rows ------------------------------------------------------------------------


def test_items_that_fit_are_renumbered_densely_and_said_to_be() -> None:
    rows, note = rows_of(log_of((0, 0, 0.0), (0, 4, 1.0)), RULES)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert note == "items renumbered densely: 5 items onto rows 0..4 of 1000"


def test_items_that_do_not_fit_are_hashed_and_those_sharing_a_row_counted() -> None:
    log = log_of(*((0, item, float(item)) for item in range(1_500)))
    rows, note = rows_of(log, RULES)
    shared = 1_500 - np.unique(rows).size
    assert rows.min() >= 0 and rows.max() < 1_000
    assert note == f"items mapped by keyed hash: 1500 items onto 1000 rows, {shared} share a row with another"
    with pytest.raises(TraceError, match="do not fit 1000 rows densely"):
        rows_of(log, msgspec.structs.replace(RULES, items="dense"))


def test_the_hash_of_an_item_does_not_depend_on_the_rest_of_the_log() -> None:
    rules = msgspec.structs.replace(RULES, items="hash")
    few = log_of((0, 0, 0.0))._replace(item_ids=np.array(["tea", "milk"]))
    many = log_of((0, 0, 0.0))._replace(item_ids=np.array(["salt", "milk", "bread", "tea"]))
    assert rows_of(few, rules)[0].tolist() == rows_of(many, rules)[0][[3, 1]].tolist()


# --- requests -----------------------------------------------------------------------------


def workload(table: RequestTable, pace: Pace | None = None, rules: ReplayRules = RULES, loop: bool = False) -> TraceWorkload:
    return TraceWorkload("log", table, rules, pace or Pace(), 1, loop)


def test_the_same_log_gives_the_same_requests_byte_for_byte() -> None:
    once = [as_bytes(request) for request in workload(regular(300, 2.0)).requests()]
    assert len(once) == 300
    assert once == [as_bytes(request) for request in workload(regular(300, 2.0)).requests()]


def test_every_request_is_one_a_node_accepts() -> None:
    for request in workload(regular(300, 2.0)).requests():
        n = request.history_items.size
        assert 24 <= n <= 64
        assert request.history_actions.shape == request.history_ts.shape == (n,)
        assert len(set(request.candidates.tolist())) == 30
        assert max(request.candidates.max(), request.history_items.max()) < 1_000
        assert min(request.candidates.min(), request.history_items.min(), request.history_ts.min()) >= 0
        assert request.history_actions.max() < 4
        assert (np.diff(request.history_ts) >= 0).all()


def test_a_history_is_a_past_before_the_log_and_then_the_users_own_events() -> None:
    last: dict[int, NDArray[np.int64]] = {}
    taken: dict[int, list[int]] = {}
    table = regular(120, 2.0)
    for place, request in enumerate(workload(table).requests()):
        own = taken.get(request.user, [])
        if own:
            tail = request.history_items[-len(own) :] if len(own) <= request.history_items.size else request.history_items
            assert tail.tolist() == own[-tail.size :]
        if request.user in last and request.history_items.size > last[request.user].size:
            assert np.array_equal(request.history_items[: last[request.user].size], last[request.user])
        last[request.user] = request.history_items
        taken[request.user] = own + table.items[table.offsets[place] : table.offsets[place + 1]].tolist()
    assert len(last) == 7


def test_what_a_user_takes_next_is_among_the_candidates() -> None:
    table = regular(100, 2.0)
    for place, request in enumerate(workload(table).requests()):
        assert set(table.items[table.offsets[place] : table.offsets[place + 1]].tolist()) <= set(request.candidates.tolist())


def test_candidates_are_popular_near_the_request_and_partly_from_anywhere() -> None:
    """Early in the log rows 0..49 are in fashion, late rows 500..549; a fifth comes from the whole table."""
    requests = [(place * 2.0, place % 7, [(0 if place < 1_000 else 500) + place % 50]) for place in range(2_000)]
    rules = msgspec.structs.replace(RULES, near_events=200)
    played = list(workload(table_of(*requests), rules=rules).requests())
    early, late = (np.concatenate([request.candidates for request in played[a:b]]) for a, b in ((100, 400), (1_600, 1_900)))
    assert np.mean(early < 50) == pytest.approx(0.8, abs=0.05)
    assert np.mean((late >= 500) & (late < 550)) == pytest.approx(0.8, abs=0.05)
    assert np.mean(late < 50) < 0.03


def test_a_log_poorer_than_its_candidates_is_filled_from_the_table() -> None:
    requests = list(workload(table_of((0.0, 1, [3]), (9.0, 1, [3]))).requests())
    assert [len(set(request.candidates.tolist())) for request in requests] == [30, 30]


def test_requests_without_events_are_served_too() -> None:
    requests = list(workload(table_of((0.0, 1, []), (9.0, 1, []))).requests())
    assert [request.candidates.size for request in requests] == [30, 30]


def test_users_beyond_those_remembered_return_with_another_past() -> None:
    rules = msgspec.structs.replace(RULES, users_remembered=3)
    played = list(workload(regular(140, 1.0), rules=rules).requests())
    first, later = played[0], played[70]  # seven users in turn: each is forgotten before it returns
    assert first.user == later.user
    assert later.history_items[-2:].tolist() != played[63].candidates[:2].tolist()
    assert (np.diff(later.history_ts) >= 0).all()


# --- pace ---------------------------------------------------------------------------------


def test_a_speed_divides_the_logs_time() -> None:
    times = [request.at_ns for request in workload(regular(10, 60.0), Pace(speed=60.0)).requests()]
    assert times == [place * NS for place in range(10)]


def test_without_a_speed_every_stretch_is_played_at_the_asked_rate() -> None:
    slow_then_fast = [(place * 100.0, place % 7, [1]) for place in range(400)]
    slow_then_fast += [(40_000.0 + place * 0.1, place % 7, [2]) for place in range(400)]
    stream = workload(table_of(*slow_then_fast), Pace(rate_per_second=20.0))
    times = np.array([request.at_ns / 1e9 for request in stream.requests()])
    assert times[[200, 400, 600]] == pytest.approx([10.0, 20.0, 30.0])
    assert (np.diff(times) >= 0).all()
    assert stream.duration_seconds == pytest.approx(40.0, rel=0.01)


def test_a_log_with_one_timestamp_is_still_played_at_a_rate() -> None:
    times = [request.at_ns / 1e9 for request in workload(regular(80, 0.0), Pace(rate_per_second=40.0)).requests()]
    assert times == pytest.approx([place / 40.0 for place in range(80)])


def test_speed_and_rate_together_clone_users_and_keep_the_logs_gaps() -> None:
    stream = workload(regular(600, 60.0), Pace(speed=60.0, rate_per_second=4.0))
    requests = list(stream.requests())
    assert len(requests) == 4 * 600
    assert len({request.user for request in requests}) == 4 * 7
    assert any("cloned 4 times" in note for note in stream.notes)
    mine = [request.at_ns for request in requests if request.user == 0]
    assert np.diff(mine).min() == pytest.approx(7 * NS, rel=1e-6)


def test_a_loop_begins_again_with_grown_histories_and_later_times() -> None:
    stream = workload(regular(30, 2.0), Pace(speed=2.0), loop=True)
    requests = list(islice(stream.requests(), 75))
    assert all(a.at_ns < b.at_ns for a, b in pairwise(requests))
    assert all((np.diff(request.history_ts) >= 0).all() for request in requests)
    assert requests[30].user == requests[0].user
    assert requests[30].history_ts[-1] > requests[0].history_ts[-1]


@pytest.mark.parametrize("pace", [{"speed": 0.0}, {"speed": -1.0}, {"rate_per_second": float("nan")}])
def test_a_pace_that_stands_still_is_refused(pace: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(pace))):
        Pace(**pace)


@pytest.mark.parametrize(
    "changes",
    [{"items": "random"}, {"explore_ratio": 1.5}, {"history_tokens_min": 65}, {"candidates": 0}, {"fold_seconds": -1.0}],
)
def test_rules_that_cannot_be_followed_are_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        msgspec.structs.replace(RULES, **changes)


# --- files --------------------------------------------------------------------------------


def write_csv(path: Path) -> Path:
    path.write_text("user,item,ts\n" + "".join(f"{i % 5},{i % 17},{T0 + 30 * i}\n" for i in range(400)))
    return path


def test_an_imported_log_is_replayed_as_the_log_itself(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "log.csv")
    notes = import_trace(source, tmp_path / "trace.parquet", RULES, seed=1)
    header = read_header(tmp_path / "trace.parquet")
    assert header is not None and header.source == "log.csv" and header.items_mapping.startswith("items renumbered densely")
    assert notes[-1].startswith("wrote 400 requests")
    direct, _ = open_trace(source, RULES, Pace(), 1)
    imported, told = open_trace(tmp_path / "trace.parquet", RULES, Pace(), 1)
    assert [as_bytes(r) for r in direct.requests()] == [as_bytes(r) for r in imported.requests()]
    assert "sampling 1, clone factor 1" in told[0]


def test_everything_done_to_a_log_is_told(tmp_path: Path) -> None:
    _, notes = open_trace(write_csv(tmp_path / "log.csv"), RULES, Pace(), 1)
    for words in ("time in s", "items renumbered densely", "folded into", "speed follows the log", "requests by 5 users"):
        assert any(words in note for note in notes), words


def test_a_trace_of_a_larger_table_is_refused(tmp_path: Path) -> None:
    import_trace(write_csv(tmp_path / "log.csv"), tmp_path / "trace.parquet", RULES, seed=1)
    assert read_table(tmp_path / "trace.parquet").ts_ns.size == 400
    with pytest.raises(TraceError, match="a table of 1000 rows, the profile has 100"):
        open_trace(tmp_path / "trace.parquet", msgspec.structs.replace(RULES, rows=100), Pace(), 1)
