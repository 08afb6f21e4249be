from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.node.batch import Batch, BatchPlan, Moves
from agents.profiles import ModelShape, Profile, load_profile
from agents.runtime.device.base import DeviceOutOfMemory, Execution
from agents.runtime.device.cpu import CpuExecutor
from agents.runtime.device.link import Link
from agents.runtime.device.table import HostTable, ensure_table
from agents.runtime.model import HstuRanker, init_weights

SHAPE = ModelShape(layers=2, dim=8, heads=1, qk_dim=4, v_dim=4, tokens_max=40, actions=5, time_buckets=16)
PROFILE: Profile = msgspec.structs.replace(
    load_profile("cpu-demo"), pool_bytes=32 * 512, page_bytes=512, row_bytes=32, rows=200, kv_token_bytes=128, model=SHAPE
)
BLOCK = 4  # tokens in a page, which is 16 rows otherwise
NONE: dict[int, int] = {}


class Ask(NamedTuple):
    """One request with everything the plan says about it."""

    history: list[int]
    candidates: list[int]
    cached: int = 0
    read_pages: tuple[int, ...] = ()
    write_pages: tuple[int, ...] = ()


class Bench(NamedTuple):
    executor: CpuExecutor
    table: HostTable
    model: HstuRanker
    waits: list[float]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> HostTable:
    return HostTable(ensure_table(tmp_path_factory.mktemp("tables"), PROFILE.rows, SHAPE.dim, seed=1))


@pytest.fixture
def bench(table: HostTable) -> Bench:
    return make_bench(table)


def make_bench(table: HostTable) -> Bench:
    waits: list[float] = []
    # Time passes on the link only while it sleeps.
    link = Link(1e6, 1e5, chunk_bytes=64, clock=lambda: sum(waits), sleep=waits.append)
    model = HstuRanker(SHAPE, init_weights(SHAPE, 3))
    return Bench(CpuExecutor(PROFILE, model, table, link), table, model, waits)


def actions_of(history: list[int]) -> NDArray[np.int64]:
    return np.arange(len(history), dtype=np.int64) * 3 % SHAPE.actions


def times_of(history: list[int]) -> NDArray[np.int64]:
    return 1_700_000_000 + np.cumsum(np.array(history, dtype=np.int64) * 100)


def offsets(parts: list[list[int]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, parts)]).astype(np.int64)


def flat(parts: list[list[int]], dtype: type) -> NDArray[np.int64]:
    return np.array([value for part in parts for value in part], dtype=dtype)


def make_batch(asks: list[Ask]) -> Batch:
    histories, candidates = [ask.history for ask in asks], [ask.candidates for ask in asks]
    count = len(asks)
    return Batch(
        user_keys=np.arange(1, count + 1, dtype=np.uint64),
        history_tokens=np.array([len(part) for part in histories], dtype=np.int64),
        block_hashes=np.empty(0, dtype=np.uint64),
        block_offsets=np.zeros(count + 1, dtype=np.int64),
        history_rows=flat(histories, np.int64),
        history_offsets=offsets(histories),
        candidate_rows=flat(candidates, np.int64),
        candidate_offsets=offsets(candidates),
        reuse_gap_ns=np.full(count, -1, dtype=np.int64),
        resident_elsewhere=np.zeros(count, dtype=np.bool_),
    )


def make_plan(asks: list[Ask], resident: dict[int, int], inserted: dict[int, int]) -> BatchPlan:
    """Plan of `asks` with rows in `resident` slots; missing rows go to their `inserted` slot or are forgotten."""
    needed = [[*ask.history[ask.cached :], *ask.candidates] for ask in asks]
    rows = sorted({row for part in needed for row in part})
    missing = [i for i, row in enumerate(rows) if row not in resident]
    reads, writes = [list(ask.read_pages) for ask in asks], [list(ask.write_pages) for ask in asks]
    return BatchPlan(
        cached_tokens=np.array([ask.cached for ask in asks], dtype=np.int64),
        miss_reasons=np.zeros(len(asks), dtype=np.int8),
        read_pages=flat(reads, np.int32).astype(np.int32),
        read_offsets=offsets(reads),
        write_pages=flat(writes, np.int32).astype(np.int32),
        write_offsets=offsets(writes),
        rows=np.array(rows, dtype=np.int64),
        row_slots=np.array([resident.get(row, -1) for row in rows], dtype=np.int32),
        row_index=np.array([rows.index(row) for part in needed for row in part], dtype=np.int32),
        row_offsets=offsets(needed),
        missing=np.array(missing, dtype=np.int32),
        insert_slots=np.array([inserted.get(rows[i], -1) for i in missing], dtype=np.int32),
    )


def run(bench: Bench, asks: list[Ask], resident: dict[int, int] = NONE, inserted: dict[int, int] = NONE) -> Execution:
    actions = np.concatenate([actions_of(ask.history) for ask in asks])
    times = np.concatenate([times_of(ask.history) for ask in asks])
    return bench.executor.execute(make_plan(asks, resident, inserted), make_batch(asks), actions, times)


def from_scratch(bench: Bench, history: list[int], candidates: list[int]) -> NDArray[np.float32]:
    """The model alone on rows straight from the table: no arena, no cache, no batch."""
    scores, _ = bench.model.forward(
        bench.table.gather(np.array(history)),
        torch.from_numpy(actions_of(history)),
        torch.from_numpy(times_of(history)),
        torch.empty(0, bench.model.token_floats),
        bench.table.gather(np.array(candidates)),
    )
    return scores.numpy()


def assert_close(scores: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert scores.shape == expected.shape
    assert scores.dtype == np.float32
    assert np.abs(scores - expected).max() <= 1e-4


def row(bench: Bench, row_id: int) -> torch.Tensor:
    return bench.table.gather(np.array([row_id]))[0]


def test_a_cold_request_scores_as_from_scratch(bench: Bench) -> None:
    history, candidates = [5, 9, 5, 100, 7], [150, 9, 151]
    done = run(bench, [Ask(history, candidates)])
    assert_close(done.scores[0], from_scratch(bench, history, candidates))


def test_a_prefix_kept_in_pages_gives_the_scores_of_computing_from_scratch(bench: Bench) -> None:
    history, candidates = list(range(20, 33)), [150, 9, 151]
    run(bench, [Ask(history[:10], candidates, write_pages=(30, 3))])
    done = run(bench, [Ask(history, candidates, cached=8, read_pages=(30, 3))])
    assert_close(done.scores[0], from_scratch(bench, history, candidates))


def test_the_order_of_pages_is_the_order_of_the_prefix(bench: Bench) -> None:
    history, candidates = list(range(20, 33)), [150, 9, 151]
    run(bench, [Ask(history[:10], candidates, write_pages=(30, 3))])
    wrong = run(bench, [Ask(history, candidates, cached=8, read_pages=(3, 30))])
    assert np.abs(wrong.scores[0] - from_scratch(bench, history, candidates)).max() > 1e-3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_history_that_grows_visit_by_visit_keeps_its_scores(table: HostTable, data: st.DataObject) -> None:
    bench = make_bench(table)
    tokens = data.draw(st.integers(1, SHAPE.tokens_max))
    history = data.draw(st.lists(st.integers(0, 199), min_size=tokens, max_size=tokens))
    pages = data.draw(st.permutations(range(32)))
    held = 0  # blocks in pages
    for seen in sorted(data.draw(st.sets(st.integers(1, tokens), max_size=4)) | {tokens}):
        kept = data.draw(st.integers(held, max(held, seen // BLOCK)))  # the brain may keep fewer blocks than there are
        used = data.draw(st.integers(0, held))  # and may find only part of them again
        if used < held:
            kept = max(used, kept)
        writes = tuple(pages[used:kept])
        done = run(bench, [Ask(history[:seen], [1, 2, 3], used * BLOCK, tuple(pages[:used]), writes)])
        assert_close(done.scores[0], from_scratch(bench, history[:seen], [1, 2, 3]))
        held = kept


def test_a_whole_history_from_pages_needs_no_new_token(bench: Bench) -> None:
    history, candidates = [11, 12, 13, 14, 15, 16, 17, 18], [150, 9, 151]
    run(bench, [Ask(history, candidates, write_pages=(7, 6))])
    done = run(bench, [Ask(history, candidates, cached=8, read_pages=(7, 6))])
    assert_close(done.scores[0], from_scratch(bench, history, candidates))


def test_blocks_without_a_page_and_the_incomplete_last_one_are_not_written(bench: Bench) -> None:
    bench.executor.arena.pages.fill_(-1.0)
    run(bench, [Ask(list(range(11)), [50], write_pages=(4,))])
    touched = (bench.executor.arena.pages != -1.0).any(1)
    assert touched.nonzero().flatten().tolist() == [4]


def test_requests_of_a_batch_keep_to_their_own_pages_rows_and_times(bench: Bench) -> None:
    first, second, third = list(range(9)), list(range(40, 57)), [3, 44, 3]
    run(bench, [Ask(first[:8], [60], write_pages=(1, 2)), Ask(second[:12], [61], write_pages=(9, 8, 20))])
    done = run(
        bench,
        [
            Ask(second, [70, 3], cached=12, read_pages=(9, 8, 20), write_pages=(10,)),
            Ask(third, [71]),
            Ask(first, [72, 73, 40], cached=4, read_pages=(1,), write_pages=(2,)),
        ],
    )
    assert_close(done.scores[0], from_scratch(bench, second, [70, 3]))
    assert_close(done.scores[1], from_scratch(bench, third, [71]))
    assert_close(done.scores[2], from_scratch(bench, first, [72, 73, 40]))


def test_a_page_may_be_read_and_given_to_another_request_in_one_plan(bench: Bench) -> None:
    first, second = list(range(9)), list(range(40, 49))
    run(bench, [Ask(first[:8], [60], write_pages=(1, 2))])
    done = run(bench, [Ask(second, [61], write_pages=(1,)), Ask(first, [60], cached=8, read_pages=(1, 2))])
    assert_close(done.scores[1], from_scratch(bench, first, [60]))
    again = run(bench, [Ask(second, [61], cached=4, read_pages=(1,))])
    assert_close(again.scores[0], from_scratch(bench, second, [61]))


def test_hits_are_read_from_the_arena_and_misses_from_the_table(bench: Bench) -> None:
    bench.executor.arena.rows[17] = row(bench, 99)  # not what the table says of row 5: shows where it was read
    done = run(bench, [Ask([5, 6], [7])], resident={5: 17})
    model_rows = torch.stack([row(bench, 99), row(bench, 6)])
    expected, _ = bench.model.forward(
        model_rows,
        torch.from_numpy(actions_of([5, 6])),
        torch.from_numpy(times_of([5, 6])),
        torch.empty(0, bench.model.token_floats),
        row(bench, 7)[None],
    )
    assert_close(done.scores[0], expected.numpy())


def test_a_slot_may_lose_its_row_and_receive_another_in_one_plan(bench: Bench) -> None:
    bench.executor.write_rows(np.array([17], dtype=np.int32), row(bench, 5)[None])
    done = run(bench, [Ask([5, 6], [7])], resident={5: 17}, inserted={6: 17, 7: 40})
    assert_close(done.scores[0], from_scratch(bench, [5, 6], [7]))
    assert torch.equal(bench.executor.arena.rows[17], row(bench, 6))
    assert torch.equal(bench.executor.arena.rows[40], row(bench, 7))
    after = run(bench, [Ask([5, 6], [7])], resident={6: 17, 7: 40})
    assert_close(after.scores[0], from_scratch(bench, [5, 6], [7]))


def test_slot_zero_is_a_slot_like_any_other(bench: Bench) -> None:
    run(bench, [Ask([5, 6], [7])], inserted={6: 0})
    assert torch.equal(bench.executor.arena.rows[0], row(bench, 6))
    done = run(bench, [Ask([5, 6], [7])], resident={6: 0})
    assert_close(done.scores[0], from_scratch(bench, [5, 6], [7]))


def test_a_miss_without_a_slot_is_used_and_forgotten(bench: Bench) -> None:
    bench.executor.arena.rows.fill_(-1.0)
    done = run(bench, [Ask([5, 6], [7])])
    assert_close(done.scores[0], from_scratch(bench, [5, 6], [7]))
    assert bool((bench.executor.arena.rows == -1.0).all())


def test_only_missing_rows_cross_the_link_and_each_of_them_once(bench: Bench) -> None:
    bench.executor.write_rows(np.array([17], dtype=np.int32), row(bench, 5)[None])
    run(bench, [Ask([5, 6, 6], [7, 6]), Ask([7, 7], [5])], resident={5: 17})
    assert bench.executor.link_counters().foreground_bytes_total == 2 * 32
    assert bench.waits == [pytest.approx(64e-6)]
    run(bench, [Ask([5], [5])], resident={5: 17})
    assert bench.executor.link_counters().foreground_bytes_total == 2 * 32


def test_timings_are_measured_stage_by_stage(table: HostTable) -> None:
    ticks = iter(range(1000))
    model = HstuRanker(SHAPE, init_weights(SHAPE, 3))
    executor = CpuExecutor(PROFILE, model, table, Link(1e9, 1e9), clock=lambda: float(next(ticks)))
    done = run(Bench(executor, table, model, []), [Ask([1, 2], [3]), Ask([4], [5])])
    # readings: begun 0, gathered 1, prefixes 2, two requests 3-4 and 5-6, written 7, ended 8
    assert done.timings.emb_ms == 1000.0
    assert done.timings.kv_ms == 2000.0
    assert done.timings.compute_ms.tolist() == [1000.0, 1000.0]
    assert done.timings.service_ms == 8000.0


def test_rows_move_inside_the_arena(bench: Bench) -> None:
    rows = bench.executor.arena.rows
    rows[:] = torch.arange(512.0)[:, None]
    bench.executor.copy_rows(Moves(np.array([3, 9], dtype=np.int32), np.array([500, 2], dtype=np.int32)))
    assert (float(rows[500, 0]), float(rows[2, 7]), float(rows[3, 0]), float(rows[9, 0])) == (3.0, 9.0, 3.0, 9.0)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_moves_act_as_one_copy_after_the_other(table: HostTable, moves: list[tuple[int, int]]) -> None:
    executor = make_bench(table).executor
    executor.arena.rows[:] = torch.arange(512.0)[:, None]
    expected = list(range(512))
    for source, target in moves:
        expected[target] = expected[source]
    sources, targets = (np.array([move[i] for move in moves], dtype=np.int32) for i in (0, 1))
    executor.copy_rows(Moves(sources, targets))
    assert executor.arena.rows[:, 3].tolist() == expected


def test_staged_rows_come_from_the_table_at_the_background_rate_and_touch_no_slot(bench: Bench) -> None:
    bench.executor.arena.rows.fill_(-1.0)
    ids = np.array([5, 199, 5, 0, 17, *range(30, 50)])
    staged = bench.executor.stage_rows(ids)
    assert torch.equal(staged, bench.table.gather(ids))
    assert bench.executor.link_counters().background_bytes_total == 25 * 32
    # 12 chunks of 64 bytes and a half one; three need no wait (two saved, one due), the last begins 10 periods later
    assert sum(bench.waits) == pytest.approx(10 * 64 / 1e5 + 32 / 1e6)
    assert bool((bench.executor.arena.rows == -1.0).all())


def test_staged_rows_that_nobody_wants_any_more_are_not_written(bench: Bench) -> None:
    bench.executor.arena.rows.fill_(-1.0)
    staged = bench.executor.stage_rows(np.array([5, 6, 7]))
    bench.executor.write_rows(np.array([100, -1, 3], dtype=np.int32), staged)
    written = (bench.executor.arena.rows != -1.0).any(1).nonzero().flatten().tolist()
    assert written == [3, 100]
    assert torch.equal(bench.executor.arena.rows[3], row(bench, 7))


def test_nothing_to_move_write_or_stage_is_no_error(bench: Bench) -> None:
    nothing = np.empty(0, dtype=np.int32)
    bench.executor.copy_rows(Moves(nothing, nothing))
    bench.executor.write_rows(nothing, bench.executor.stage_rows(np.empty(0, dtype=np.int64)))
    assert bench.executor.link_counters().background_bytes_total == 0


def test_an_allocation_failure_in_a_batch_is_a_refusal_and_the_next_batch_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(bench.model, "forward", exhausted)
    with pytest.raises(DeviceOutOfMemory, match="buffers of a batch"):
        run(bench, [Ask([5, 6], [7])])
    monkeypatch.undo()
    assert_close(run(bench, [Ask([5, 6], [7])]).scores[0], from_scratch(bench, [5, 6], [7]))


def test_a_row_outside_the_table_fails_its_batch_only(bench: Bench) -> None:
    with pytest.raises(IndexError):
        run(bench, [Ask([5, 200], [7])])
    assert_close(run(bench, [Ask([5, 6], [7])]).scores[0], from_scratch(bench, [5, 6], [7]))


def test_parts_of_different_profiles_are_refused_by_name(table: HostTable, tmp_path: Path) -> None:
    model = HstuRanker(SHAPE, init_weights(SHAPE, 3))
    link = Link(1e6, 1e5)
    with pytest.raises(ValueError, match="kv_token_bytes is 64, the model makes 128"):
        CpuExecutor(msgspec.structs.replace(PROFILE, kv_token_bytes=64), model, table, link)
    with pytest.raises(ValueError, match="row_bytes is 64, the table has 8 floats a row, the model 8"):
        CpuExecutor(msgspec.structs.replace(PROFILE, row_bytes=64), model, table, link)
    with pytest.raises(ValueError, match="the table has 10 rows, the profile 200"):
        CpuExecutor(PROFILE, model, HostTable(ensure_table(tmp_path, 10, 8, seed=1)), link)


def test_the_device_computes_on_one_thread_and_says_that_it_is_emulated(bench: Bench) -> None:
    assert torch.get_num_threads() == 1
    assert (bench.executor.name, bench.executor.emulated) == ("cpu", True)
