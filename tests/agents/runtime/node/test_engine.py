"""The engine: order, bounds, failures that stay small, ticks and refills behind the requests."""

import asyncio
from typing import Any

import numpy as np
import pytest

from agents.node.batch import MissReason
from agents.node.node import NodeConfig
from agents.runtime.device.base import DeviceOutOfMemory, Execution
from agents.runtime.ranking import RankResult, batch_of
from agents.runtime.refill import RefillRate
from agents.wire.errors import ErrorCode, WireError
from agents.wire.events import EventKind
from agents.wire.messages import ControlRequest, Mode, NodeSpec, Phase
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, Parts, request_of, settle, tiny_profile, until


def refused(outcome: RankResult | BaseException) -> ErrorCode:
    assert isinstance(outcome, WireError)
    return outcome.code


async def test_a_request_is_answered_with_its_scores_and_stage_times() -> None:
    async with Parts() as parts:
        request = request_of(1)
        result = await parts.engine.infer(request)
        np.testing.assert_array_equal(result.scores, (request.candidates / 1_000).astype(np.float32))
        assert (result.emb_ms, result.kv_ms, result.compute_ms, result.service_ms) == (1.0, 2.0, 3.0, 6.0)
        assert result.queue_ms == 0.0  # the clock stood still
        assert (result.cached_blocks, result.cacheable_blocks, result.miss_reason) == (0, 2, MissReason.COLD)
        assert parts.engine.queue_depth == 0
        parts.node.ledger.check()


async def test_a_second_request_reuses_the_prefix_the_first_one_wrote() -> None:
    async with Parts() as parts:
        await parts.engine.infer(request_of(1, tokens=8))
        again = await parts.engine.infer(request_of(1, tokens=9))
        assert (again.cached_blocks, again.cacheable_blocks, again.miss_reason) == (2, 2, MissReason.HIT)


async def test_requests_without_blocks_leave_nothing_behind() -> None:
    async with Parts() as parts:
        nameless = request_of(1, block_hashes=np.zeros(0, np.uint64))
        for key in (11, 12, 13):
            result = await parts.engine.infer(nameless._replace(user_key=key))
            assert (result.cached_blocks, result.cacheable_blocks) == (0, 0)
        status = parts.engine.telemetry()
        assert status.kv.used_bytes == 0
        assert status.requests_total == 3


async def test_requests_that_arrive_while_the_device_works_share_batches() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        rest = [asyncio.create_task(parts.engine.infer(request_of(user))) for user in (2, 3, 4)]
        await settle()
        parts.device.release()
        await asyncio.gather(first, *rest)
        assert parts.device.log == ["batch [1]", "batch [2, 3]", "batch [4]"]


async def test_two_requests_of_one_user_never_meet_on_the_device() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        rest = [asyncio.create_task(parts.engine.infer(request_of(user))) for user in (1, 2, 3)]
        await settle()
        parts.device.release()
        results = await asyncio.gather(first, *rest)
        assert parts.device.log == ["batch [1]", "batch [2, 3]", "batch [1]"]
        assert results[1].cached_blocks == 2  # it waited, so it found the first one's prefix


async def test_a_full_queue_refuses_at_once_and_serves_what_it_has() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        tasks = [asyncio.create_task(parts.engine.infer(request_of(user))) for user in range(2, 9)]
        await settle()
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(50))
        assert refusal.value.code is ErrorCode.QUEUE_FULL
        assert refusal.value.status == 429
        assert parts.engine.retry_after_seconds >= 1
        parts.device.release()
        outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
        served = [outcome for outcome in outcomes if isinstance(outcome, RankResult)]
        assert len(served) == 7  # one running, two prepared, four in the queue
        assert parts.engine.rejections_total[ErrorCode.QUEUE_FULL] == 2


async def test_a_request_past_its_deadline_is_answered_by_the_next_tick() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        late = asyncio.create_task(parts.engine.infer(request_of(2, deadline_ms=50.0)))
        await settle()
        parts.clock.forward(0.049)
        parts.engine.tick()
        await settle()
        assert not late.done()
        parts.clock.forward(0.001)
        parts.engine.tick()
        with pytest.raises(WireError) as refusal:
            await late
        assert refusal.value.code is ErrorCode.DEADLINE_EXCEEDED
        parts.device.release()
        await first
        assert parts.engine.failures_total == 1


async def test_the_default_deadline_is_eight_slos() -> None:
    async with Parts(tiny_profile(slo_ms=100.0)) as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        second = asyncio.create_task(parts.engine.infer(request_of(2)))
        await settle()
        parts.clock.forward(0.799)
        parts.engine.tick()
        await settle()
        assert not second.done()
        parts.clock.forward(0.001)
        parts.engine.tick()
        outcome = (await asyncio.gather(second, return_exceptions=True))[0]
        assert refused(outcome) is ErrorCode.DEADLINE_EXCEEDED
        parts.device.release()
        await first


async def test_a_failing_batch_fails_alone_and_gives_its_pages_back() -> None:
    async with Parts() as parts:
        parts.device.failures = [RuntimeError("kernel died")]
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(1))
        assert refusal.value.code is ErrorCode.INTERNAL
        assert "kernel died" not in refusal.value.detail  # internals stay in the log
        assert parts.engine.failures_total == 1
        assert parts.engine.telemetry().kv.used_bytes == 0
        assert parts.engine.telemetry().emb.used_bytes == 0
        parts.node.ledger.check()
        again = await parts.engine.infer(request_of(1))
        assert again.cached_blocks == 0
        parts.node.ledger.check()


async def test_every_request_of_a_failed_batch_is_told_and_the_next_batch_is_served() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        doomed = [asyncio.create_task(parts.engine.infer(request_of(user))) for user in (2, 3)]
        spared = asyncio.create_task(parts.engine.infer(request_of(4)))
        await settle()
        pages = parts.engine.telemetry().kv.used_bytes
        fail_second(parts)
        parts.device.release()
        outcomes = await asyncio.gather(first, *doomed, spared, return_exceptions=True)
        assert [isinstance(outcome, RankResult) for outcome in outcomes] == [True, False, False, True]
        assert {refused(outcome) for outcome in outcomes[1:3]} == {ErrorCode.INTERNAL}
        assert pages == 6 * parts.profile.page_bytes  # three prefixes of two blocks were booked
        assert parts.engine.telemetry().kv.used_bytes == 4 * parts.profile.page_bytes  # those of the first and the spared one
        assert not parts.node.state.entries["pins"].any()
        parts.node.ledger.check()


def fail_second(parts: Parts) -> None:
    """The batch on the device passes; the one after it dies inside."""
    execute, calls = parts.device.execute, iter((False, True))

    def dying(*arguments: Any) -> Execution:
        if next(calls, False):
            raise RuntimeError("worker died")
        return execute(*arguments)

    next(calls)  # the first is inside already
    parts.device.execute = dying  # type: ignore[method-assign]


async def test_pages_that_cannot_be_had_cost_the_prefix_and_not_the_answer() -> None:
    async with Parts(tiny_profile(batch_max=1)) as parts:
        parts.device.hold()
        holders = [asyncio.create_task(parts.engine.infer(request_of(user, tokens=32))) for user in (1, 2)]
        await parts.device_entered()
        await settle()
        assert parts.engine.telemetry().kv.used_bytes == 16 * parts.profile.page_bytes  # every page of KV, all in use by two batches
        third = asyncio.create_task(parts.engine.infer(request_of(3, tokens=32)))
        await settle()
        ticket, plan = parts.node.admit(parts.clock.now_ns(), batch_of([request_of(4, tokens=32)]))
        assert len(plan.write_pages) == 0
        parts.node.abort(parts.clock.now_ns(), ticket)
        parts.device.release()
        for result in await asyncio.gather(*holders, third):
            assert len(result.scores) == 4
        parts.node.ledger.check()


async def test_memory_the_device_does_not_have_is_a_refusal_that_gives_its_pages_back() -> None:
    async with Parts() as parts:
        parts.device.failures = [DeviceOutOfMemory("buffers of a batch")]
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(1))
        assert (refusal.value.status, parts.engine.failures_total) == (429, 0)
        status = parts.engine.telemetry()
        assert (status.kv.used_bytes, status.emb.used_bytes) == (0, 0)
        parts.node.ledger.check()
        assert len((await parts.engine.infer(request_of(1))).scores) == 4


async def test_a_batch_stops_growing_where_its_most_urgent_request_would_be_late() -> None:
    async with Parts() as parts:
        work_ms = parts.node.predict_ms(parts.clock.now_ns(), 2, 8, 4)
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        rest = [asyncio.create_task(parts.engine.infer(request_of(user, deadline_ms=1.5 * work_ms))) for user in (2, 3)]
        await settle()
        parts.device.release()
        await asyncio.gather(first, *rest)
        assert parts.device.log == ["batch [1]", "batch [2]", "batch [3]"]


async def test_the_most_urgent_leave_first() -> None:
    async with Parts(tiny_profile(batch_max=1)) as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        prepared = asyncio.create_task(parts.engine.infer(request_of(2)))
        await settle()
        rest = [asyncio.create_task(parts.engine.infer(request_of(user, deadline_ms=ms))) for user, ms in ((3, 900.0), (4, 300.0))]
        await settle()
        parts.device.release()
        await asyncio.gather(first, prepared, *rest)
        assert parts.device.log == ["batch [1]", "batch [2]", "batch [4]", "batch [3]"]


async def test_a_batch_booked_upon_a_failed_one_is_booked_again_and_served() -> None:
    async with Parts() as parts:
        parts.device.hold()
        parts.device.failures = [RuntimeError("kernel died")]
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        # The same rows as the first: in the booked plan they are hits, in the arena they never arrive.
        twins = [asyncio.create_task(parts.engine.infer(request_of(1)._replace(user_key=user))) for user in (2, 3)]
        await settle()
        parts.device.release()
        outcomes = await asyncio.gather(first, *twins, return_exceptions=True)
        assert refused(outcomes[0]) is ErrorCode.INTERNAL
        assert all(isinstance(outcome, RankResult) for outcome in outcomes[1:])
        assert parts.device.log == ["batch [1]", "batch [2, 3]"]
        executed = parts.device.plans[-1]
        assert (executed.row_slots == -1).all()  # booked anew: nothing the failed batch inserted counts as a hit
        assert len(executed.write_pages) == 2 * 8 // parts.profile.block_tokens  # the prefixes too are written by this booking
        assert parts.engine.failures_total == 1
        assert not parts.node.state.entries["pins"].any()  # the first booking holds nothing any more
        parts.node.ledger.check()


async def test_a_refusal_of_the_device_keeps_its_own_code() -> None:
    async with Parts() as parts:
        parts.device.failures = [WireError(ErrorCode.QUEUE_FULL, "device memory is exhausted")]
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(1))
        assert refusal.value.code is ErrorCode.QUEUE_FULL
        assert parts.engine.failures_total == 0


async def test_a_score_that_is_not_finite_is_a_failure_and_not_an_answer() -> None:
    async with Parts() as parts:
        parts.device.scores = lambda rows: np.full(len(rows), np.nan, np.float32)
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(1))
        assert refusal.value.code is ErrorCode.INTERNAL


async def test_a_cancelled_client_leaves_the_queue_and_is_never_computed() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        gone = asyncio.create_task(parts.engine.infer(request_of(2)))
        await settle()
        gone.cancel()
        await settle()
        assert parts.engine.queue_depth == 1
        parts.device.release()
        await first
        assert parts.device.log == ["batch [1]"]


async def test_a_client_cancelled_in_flight_harms_nobody() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        first.cancel()
        await settle()
        parts.device.release()
        again = await parts.engine.infer(request_of(1, tokens=9))
        assert again.cached_blocks == 2  # its work was kept
        assert parts.engine.queue_depth == 0


async def test_draining_refuses_the_new_and_finishes_the_old() -> None:
    async with Parts() as parts:
        parts.device.hold()
        tasks = [asyncio.create_task(parts.engine.infer(request_of(user))) for user in (1, 2, 3)]
        await parts.device_entered()
        draining = asyncio.create_task(parts.engine.drain(PATIENCE_SECONDS))
        await settle()
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(9))
        assert refusal.value.code is ErrorCode.DRAINING
        assert parts.engine.load().phase is Phase.DRAINING
        assert not draining.done()
        parts.device.release()
        assert await draining is True
        assert all(isinstance(task.result(), RankResult) for task in await _done(tasks))


async def _done(tasks: list["asyncio.Task[RankResult]"]) -> list["asyncio.Task[RankResult]"]:
    await asyncio.wait(tasks)
    return tasks


async def test_a_drain_past_its_deadline_answers_those_it_could_not_serve() -> None:
    async with Parts() as parts:
        parts.device.hold()
        first = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        second = asyncio.create_task(parts.engine.infer(request_of(2)))
        await settle()
        assert await parts.engine.drain(0.01) is False
        outcome = (await asyncio.gather(second, return_exceptions=True))[0]
        assert refused(outcome) is ErrorCode.DRAINING
        parts.device.release()
        await first
        assert parts.device.log == ["batch [1]"]  # nobody waits for the other one any more


async def test_an_idle_drain_is_over_at_once() -> None:
    async with Parts() as parts:
        assert await parts.engine.drain(PATIENCE_SECONDS) is True


async def test_moves_of_a_tick_run_behind_the_batches_before_it() -> None:
    async with Parts() as parts:
        for user in range(20):
            await parts.engine.infer(request_of(user + 1, candidates=8))
        parts.device.log.clear()
        parts.device.hold()
        running = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        parts.engine.control(ControlRequest(mode=Mode.PIN, emb_ratio=0.2, reason="test"))
        for _ in range(30):
            parts.clock.forward(0.1)
            parts.engine.tick()
        await settle()
        assert parts.engine.telemetry().migrating_bytes > 0  # a copy is booked, the batch still reads the old place
        assert parts.device.log == []
        parts.device.release()
        await running
        await until(lambda: parts.engine.telemetry().migrating_bytes == 0)
        assert parts.device.log[0] == "batch [1]"
        assert parts.engine.telemetry().emb_ratio < 0.5
        parts.node.ledger.check()


async def test_the_ratio_moves_there_and_back_while_requests_are_served() -> None:
    async with Parts() as parts:
        for target in (0.25, 0.75, 0.25):
            parts.engine.control(ControlRequest(mode=Mode.PIN, emb_ratio=target, reason="test"))
            for step in range(60):
                parts.clock.forward(0.1)
                parts.engine.tick()
                await parts.engine.infer(request_of(step % 7 + 1, tokens=8 + step % 5))
                parts.node.ledger.check()
            await until(lambda: parts.engine.telemetry().migrating_bytes == 0)
            assert parts.engine.telemetry().emb_ratio == pytest.approx(target)
        status = parts.engine.telemetry()
        assert status.moved_pages_total >= 8 + 16 + 16
        assert status.kv_evictions_total > 0


async def test_an_override_goes_back_by_itself_and_says_so() -> None:
    async with Parts() as parts:
        heard: list[EventKind] = []
        parts.engine.on_event.append(lambda event: heard.append(event[0]))
        parts.engine.control(ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.7, ttl_ms=2_000, reason="test"))
        parts.clock.forward(0.1)
        parts.engine.tick()
        status = parts.engine.telemetry()
        assert (status.mode, status.override_remaining_ms) == (Mode.OVERRIDE, 1_900)
        parts.clock.forward(1.9)
        parts.engine.tick()
        assert parts.engine.telemetry().mode is Mode.AUTO
        assert heard.count(EventKind.OVERRIDE_APPLIED) == 1
        assert heard.count(EventKind.OVERRIDE_EXPIRED) == 1


async def test_a_stale_generation_is_refused_and_changes_nothing() -> None:
    async with Parts() as parts:
        parts.engine.apply(NodeSpec(generation=5, mode=Mode.PIN, emb_ratio=0.6, reason="keep"))
        with pytest.raises(WireError) as refusal:
            parts.engine.apply(NodeSpec(generation=4))
        assert refusal.value.code is ErrorCode.STALE_GENERATION
        status = parts.engine.telemetry()
        assert (status.mode, status.observed_generation) == (Mode.PIN, 5)


async def test_decisions_carry_unix_time_and_a_duration_newest_first() -> None:
    async with Parts() as parts:
        seen: list[int] = []
        parts.engine.on_decision.append(lambda record: seen.append(record.seq))
        for _ in range(120):
            parts.clock.forward(0.1)
            parts.engine.tick()
        records = parts.engine.decisions(2)
        assert len(records) == 2
        assert records[0].seq == records[1].seq + 1 == seen[-1]
        assert 1_700_000_000_000_000_000 < records[0].at_unix_ns <= parts.clock.unix_ns()


async def test_refill_brings_back_wanted_rows_in_the_background() -> None:
    async with Parts() as parts:
        for _ in range(2):  # rows used twice are worth having back
            for user in range(1, 31):
                await parts.engine.infer(request_of(user, candidates=8))
        for target in (0.25, 0.75):
            parts.engine.control(ControlRequest(mode=Mode.PIN, emb_ratio=target, reason="less, then more"))
            for _ in range(60):
                parts.clock.forward(0.1)
                parts.engine.tick()
                await settle()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while parts.engine.telemetry().refill_bytes_total == 0 or not any(line.startswith("write") for line in parts.device.log):
                parts.clock.forward(0.1)
                parts.engine.tick()
                await asyncio.sleep(0.005)
        await until(lambda: parts.engine.telemetry().refill_backlog_bytes == 0)
        parts.node.ledger.check()


async def test_a_failing_arena_write_breaks_the_node_instead_of_serving_garbage() -> None:
    async with Parts() as parts:
        parts.device.write_failure = RuntimeError("bus error")
        parts.engine._refill_staged(np.array([1, 2], np.int64), np.zeros((2, 64), np.float32), lambda: None)
        reason = await asyncio.wait_for(parts.engine.broken, PATIENCE_SECONDS)
        assert "bus error" in reason
        with pytest.raises(WireError) as refusal:
            await parts.engine.infer(request_of(1))
        assert refusal.value.code is ErrorCode.DRAINING


async def test_queued_milliseconds_are_what_the_brain_predicts() -> None:
    async with Parts() as parts:
        expected = parts.node.predict_ms(parts.clock.now_ns(), 1, 8, 4)
        parts.device.hold()
        running = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        load = parts.engine.load()
        assert load.queued_ms == pytest.approx(expected, rel=1e-3)
        assert load.queue_depth == 1
        parts.device.release()
        await running
        assert parts.engine.load().queued_ms == 0.0


async def test_residency_watchers_are_woken_by_a_booking() -> None:
    async with Parts() as parts:
        watcher = asyncio.Event()
        parts.engine.residency_watchers.add(watcher)
        await parts.engine.infer(request_of(7))
        assert watcher.is_set()
        frame = parts.engine.residency_since(-1)
        assert (frame.user_keys, frame.cached_tokens) == ([7], [8])


async def test_ticking_goes_on_by_itself() -> None:
    async with Parts() as parts:
        parts.engine._tick_ns = 1_000_000
        parts.engine.start()
        ticks = parts.node._serial
        await until(lambda: parts.node._serial > ticks + 3)


async def test_work_on_the_device_thread_reports_its_failure() -> None:
    async with Parts() as parts:

        def fail() -> None:
            raise ValueError("not today")

        with pytest.raises(ValueError, match="not today"):
            await parts.engine.on_device(fail)


async def test_a_history_larger_than_the_prefix_cache_is_served_and_keeps_what_fits() -> None:
    profile = tiny_profile()
    async with Parts(profile, NodeConfig(admission="none", emb_ratio_start=0.9)) as parts:  # 3 pages of KV, 4 tokens each
        result = await parts.engine.infer(request_of(1, tokens=32))
        assert (result.cached_blocks, result.cacheable_blocks) == (0, 8)
        parts.node.ledger.check()
        assert parts.engine.telemetry().kv.used_bytes == 3 * profile.page_bytes
        again = await parts.engine.infer(request_of(1, tokens=32))
        assert again.cached_blocks == 3
        two = await asyncio.gather(*(parts.engine.infer(request_of(user, tokens=32)) for user in (2, 3)))
        assert [len(one.scores) for one in two] == [4, 4]
        parts.node.ledger.check()


async def test_a_new_model_version_in_the_middle_of_a_batch_harms_nothing() -> None:
    async with Parts() as parts:
        await parts.engine.infer(request_of(2))
        parts.device.hold()
        running = asyncio.create_task(parts.engine.infer(request_of(1)))
        await parts.device_entered()
        parts.node.version_flip(parts.clock.now_ns())
        parts.device.release()
        assert len((await running).scores) == 4
        parts.node.ledger.check()
        after = await parts.engine.infer(request_of(2))
        assert (after.cached_blocks, after.miss_reason) == (0, MissReason.INVALIDATED_BY_VERSION)


async def test_every_miss_has_its_reason() -> None:
    async with Parts() as parts:
        serve = parts.engine.infer
        assert (await serve(request_of(1, tokens=32))).miss_reason is MissReason.COLD
        assert (await serve(request_of(2, resident_elsewhere=True))).miss_reason is MissReason.ROUTED_AWAY
        for user in (3, 4):
            await serve(request_of(user, tokens=32))
        assert (await serve(request_of(1, tokens=32))).miss_reason is MissReason.EVICTED_BY_PRESSURE
        parts.node.version_flip(parts.clock.now_ns())
        assert (await serve(request_of(1, tokens=32))).miss_reason is MissReason.INVALIDATED_BY_VERSION
        parts.engine.control(ControlRequest(mode=Mode.PIN, emb_ratio=0.9, reason="test"))
        for _ in range(20):
            parts.clock.forward(0.1)
            parts.engine.tick()
        assert (await serve(request_of(1, tokens=32))).miss_reason is MissReason.EVICTED_BY_SHRINK


def test_the_refill_rate_is_that_of_the_last_seconds() -> None:
    rate = RefillRate()
    assert rate.bytes_per_second == 0.0
    for tick in range(100):
        rate.read(tick * 100_000_000, 0 if tick < 50 else (tick - 50) * 1_000)
    assert rate.bytes_per_second == 10_000.0
