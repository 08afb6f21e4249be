"""What every device does alike. Devices that are not here are not collected: `-k cuda` on a machine with a GPU.

Without one, the CUDA device's code runs on a stand-in for streams and events; that is no test of CUDA.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.node.batch import Moves
from agents.profiles import DeviceName
from agents.runtime.device.base import DeviceOutOfMemory
from agents.runtime.device.executor import Parts
from agents.runtime.device.make import make_parts
from agents.runtime.device.table import HostTable, ensure_table
from agents.runtime.model import init_weights
from tests.agents.runtime.device.parts import (
    BLOCK,
    HALF_PROFILE,
    PROFILE,
    SHAPE,
    Ask,
    Bench,
    assert_close,
    from_scratch,
    kind_id,
    make_bench,
    row,
    run,
)
from tests.agents.runtime.device.stand_in import stand_in

KINDS = ["cpu", "cuda" if torch.cuda.is_available() else "stand-in"]


@pytest.fixture(scope="module", params=[(kind, profile) for kind in KINDS for profile in (PROFILE, HALF_PROFILE)], ids=kind_id)
def make(request: pytest.FixtureRequest, table_path: Path) -> Iterator[Callable[[], Bench]]:
    kind, profile = request.param
    device: DeviceName = "cpu" if kind == "cpu" else "cuda"
    with pytest.MonkeyPatch.context() as patch:
        if kind == "stand-in":
            stand_in(patch)
        yield lambda: make_bench(device, profile, table_path)


@pytest.fixture
def bench(make: Callable[[], Bench]) -> Bench:
    return make()


def test_a_cold_request_scores_as_from_scratch(bench: Bench) -> None:
    history, candidates = [5, 9, 5, 100, 7], [150, 9, 151]
    done = run(bench, [Ask(history, candidates)])
    assert_close(bench, done.scores[0], from_scratch(bench, history, candidates))


def test_a_prefix_kept_in_pages_gives_the_scores_of_computing_from_scratch(bench: Bench) -> None:
    history, candidates = list(range(20, 33)), [150, 9, 151]
    run(bench, [Ask(history[:10], candidates, write_pages=(30, 3))])
    done = run(bench, [Ask(history, candidates, cached=8, read_pages=(30, 3))])
    assert_close(bench, done.scores[0], from_scratch(bench, history, candidates))


def test_the_order_of_pages_is_the_order_of_the_prefix(bench: Bench) -> None:
    history, candidates = list(range(20, 33)), [150, 9, 151]
    run(bench, [Ask(history[:10], candidates, write_pages=(30, 3))])
    wrong = run(bench, [Ask(history, candidates, cached=8, read_pages=(3, 30))])
    assert np.abs(wrong.scores[0] - from_scratch(bench, history, candidates)).max() > 1e-3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_history_that_grows_visit_by_visit_keeps_its_scores(make: Callable[[], Bench], data: st.DataObject) -> None:
    bench = make()
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
        assert_close(bench, done.scores[0], from_scratch(bench, history[:seen], [1, 2, 3]))
        held = kept


def test_a_whole_history_from_pages_needs_no_new_token(bench: Bench) -> None:
    history, candidates = [11, 12, 13, 14, 15, 16, 17, 18], [150, 9, 151]
    run(bench, [Ask(history, candidates, write_pages=(7, 6))])
    done = run(bench, [Ask(history, candidates, cached=8, read_pages=(7, 6))])
    assert_close(bench, done.scores[0], from_scratch(bench, history, candidates))


def test_blocks_without_a_page_and_the_incomplete_last_one_are_not_written(bench: Bench) -> None:
    bench.store.arena.pages.fill_(-1.0)
    run(bench, [Ask(list(range(11)), [50], write_pages=(4,))])
    touched = (bench.store.arena.pages != -1.0).any(1)
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
    assert_close(bench, done.scores[0], from_scratch(bench, second, [70, 3]))
    assert_close(bench, done.scores[1], from_scratch(bench, third, [71]))
    assert_close(bench, done.scores[2], from_scratch(bench, first, [72, 73, 40]))


def test_a_page_may_be_read_and_given_to_another_request_in_one_plan(bench: Bench) -> None:
    first, second = list(range(9)), list(range(40, 49))
    run(bench, [Ask(first[:8], [60], write_pages=(1, 2))])
    done = run(bench, [Ask(second, [61], write_pages=(1,)), Ask(first, [60], cached=8, read_pages=(1, 2))])
    assert_close(bench, done.scores[1], from_scratch(bench, first, [60]))
    again = run(bench, [Ask(second, [61], cached=4, read_pages=(1,))])
    assert_close(bench, again.scores[0], from_scratch(bench, second, [61]))


def test_hits_are_read_from_the_arena_and_misses_from_the_table(bench: Bench) -> None:
    bench.store.arena.rows[17] = row(bench, 99)  # not what the table says of row 5: shows where it was read
    done = run(bench, [Ask([5, 6], [7])], resident={5: 17})
    expected = from_scratch(bench, [5, 6], [7], rows=torch.stack([row(bench, 99), row(bench, 6)]))
    assert_close(bench, done.scores[0], expected)


def test_a_slot_may_lose_its_row_and_receive_another_in_one_plan(bench: Bench) -> None:
    bench.executor.write_rows(np.array([17], dtype=np.int32), row(bench, 5)[None])
    done = run(bench, [Ask([5, 6], [7])], resident={5: 17}, inserted={6: 17, 7: 40})
    assert_close(bench, done.scores[0], from_scratch(bench, [5, 6], [7]))
    assert torch.equal(bench.store.arena.rows[17], row(bench, 6))
    assert torch.equal(bench.store.arena.rows[40], row(bench, 7))
    after = run(bench, [Ask([5, 6], [7])], resident={6: 17, 7: 40})
    assert_close(bench, after.scores[0], from_scratch(bench, [5, 6], [7]))


def test_slot_zero_is_a_slot_like_any_other(bench: Bench) -> None:
    run(bench, [Ask([5, 6], [7])], inserted={6: 0})
    assert torch.equal(bench.store.arena.rows[0], row(bench, 6))
    done = run(bench, [Ask([5, 6], [7])], resident={6: 0})
    assert_close(bench, done.scores[0], from_scratch(bench, [5, 6], [7]))


def test_a_miss_without_a_slot_is_used_and_forgotten(bench: Bench) -> None:
    bench.store.arena.rows.fill_(-1.0)
    done = run(bench, [Ask([5, 6], [7])])
    assert_close(bench, done.scores[0], from_scratch(bench, [5, 6], [7]))
    assert bool((bench.store.arena.rows == -1.0).all())


def test_only_missing_rows_cross_the_link_and_each_of_them_once(bench: Bench) -> None:
    bench.executor.write_rows(np.array([17], dtype=np.int32), row(bench, 5)[None])
    run(bench, [Ask([5, 6, 6], [7, 6]), Ask([7, 7], [5])], resident={5: 17})
    assert bench.executor.link_counters().foreground_bytes_total == 2 * bench.store.row_bytes
    run(bench, [Ask([5], [5])], resident={5: 17})
    assert bench.executor.link_counters().foreground_bytes_total == 2 * bench.store.row_bytes


def test_rows_move_inside_the_arena(bench: Bench) -> None:
    rows = bench.store.arena.rows
    rows[:] = torch.arange(512.0)[:, None]
    bench.executor.copy_rows(Moves(np.array([3, 9], dtype=np.int32), np.array([500, 2], dtype=np.int32)))
    assert (float(rows[500, 0]), float(rows[2, 7]), float(rows[3, 0]), float(rows[9, 0])) == (3.0, 9.0, 3.0, 9.0)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_moves_act_as_one_copy_after_the_other(make: Callable[[], Bench], moves: list[tuple[int, int]]) -> None:
    bench = make()
    bench.store.arena.rows[:] = (torch.arange(512.0) % 128)[:, None]
    expected = [slot % 128 for slot in range(512)]
    for source, target in moves:
        expected[target] = expected[source]
    sources, targets = (np.array([move[i] for move in moves], dtype=np.int32) for i in (0, 1))
    bench.executor.copy_rows(Moves(sources, targets))
    assert bench.store.arena.rows[:, 3].tolist() == expected


def test_staged_rows_are_those_of_the_table_and_touch_no_slot(bench: Bench) -> None:
    bench.store.arena.rows.fill_(-1.0)
    ids = np.array([5, 199, 5, 0, 17, *range(30, 50)])
    staged = bench.executor.stage_rows(ids)
    assert torch.equal(staged.cpu(), bench.table.gather(ids))
    assert bench.executor.link_counters().background_bytes_total == 25 * bench.store.row_bytes
    assert bool((bench.store.arena.rows == -1.0).all())


def test_laps_are_not_negative_and_sum_to_the_service(bench: Bench) -> None:
    timings = run(bench, [Ask([5, 6], [7]), Ask([8], [9])]).timings
    assert timings.compute_ms.shape == (2,)
    assert min(timings.emb_ms, timings.kv_ms, *timings.compute_ms) >= 0.0
    assert timings.service_ms == pytest.approx(timings.emb_ms + timings.kv_ms + timings.compute_ms.sum())


def test_another_version_is_taken_up_whole_between_two_batches(bench: Bench, tmp_path: Path) -> None:
    profile = HALF_PROFILE if bench.model.dtype is torch.bfloat16 else PROFILE
    run(bench, [Ask([5, 6], [7])])
    table = HostTable(ensure_table(tmp_path, PROFILE.rows, SHAPE.dim, seed=2), bench.model.dtype)
    parts = make_parts(bench.executor, profile, init_weights(SHAPE, 4), table)
    bench.executor.install(parts)
    other = bench._replace(table=table, model=parts.model)
    assert_close(other, run(other, [Ask([5, 6], [7])]).scores[0], from_scratch(other, [5, 6], [7]))


def test_a_version_for_another_profile_is_refused_and_the_old_one_serves_on(bench: Bench, tmp_path: Path) -> None:
    small = HostTable(ensure_table(tmp_path, 10, SHAPE.dim, seed=2), bench.model.dtype)
    with pytest.raises(ValueError, match="the table has 10 rows, the profile 200"):
        bench.executor.install(Parts(bench.model, small))
    assert_close(bench, run(bench, [Ask([5, 6], [7])]).scores[0], from_scratch(bench, [5, 6], [7]))


def test_staged_rows_that_nobody_wants_any_more_are_not_written(bench: Bench) -> None:
    bench.store.arena.rows.fill_(-1.0)
    staged = bench.executor.stage_rows(np.array([5, 6, 7]))
    bench.executor.write_rows(np.array([100, -1, 3], dtype=np.int32), staged)
    written = (bench.store.arena.rows != -1.0).any(1).nonzero().flatten().tolist()
    assert written == [3, 100]
    assert torch.equal(bench.store.arena.rows[3], row(bench, 7))


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
    assert_close(bench, run(bench, [Ask([5, 6], [7])]).scores[0], from_scratch(bench, [5, 6], [7]))


def test_a_row_outside_the_table_fails_its_batch_only(bench: Bench) -> None:
    with pytest.raises(IndexError):
        run(bench, [Ask([5, 200], [7])])
    assert_close(bench, run(bench, [Ask([5, 6], [7])]).scores[0], from_scratch(bench, [5, 6], [7]))
