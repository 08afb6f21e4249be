import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.controller.guard import NO_DATA_DECAY_NS, NO_DATA_HOLD_NS, REUSE_STALE_NS, Guard, GuardedRatio, GuardInputs
from agents.wire.messages import GuardRails

SECOND = 1_000_000_000
RAILS = GuardRails(emb_ratio_min=0.2, emb_ratio_max=0.8, step_ratio_max=0.1, dead_band_ratio=0.01, dwell_seconds_min=5.0)


def guard(emb_ratio: float = 0.5) -> Guard:
    return Guard(RAILS, move_ratio_per_second=0.02, emb_ratio=emb_ratio)


def propose(guarded: Guard, now_seconds: float, proposed: float | None, **more: float) -> GuardedRatio:
    given_inputs: dict[str, float | None] = {"proposed": proposed, "held": None, "emb_ratio": 0.0} | more
    return guarded.limit(int(now_seconds * SECOND), GuardInputs(**given_inputs))  # type: ignore[arg-type]


def test_a_modest_proposal_becomes_the_target() -> None:
    assert propose(guard(), 0, 0.56) == GuardedRatio(0.56, [])


@pytest.mark.parametrize(("start", "proposed", "target", "reason"), [(0.75, 0.95, 0.8, "ceiling"), (0.25, 0.05, 0.2, "floor")])
def test_floor_and_ceiling_bound_the_target(start: float, proposed: float, target: float, reason: str) -> None:
    assert propose(guard(start), 0, proposed) == GuardedRatio(target, [reason])


def test_a_change_inside_the_dead_band_is_not_made() -> None:
    assert propose(guard(), 0, 0.509) == GuardedRatio(0.5, ["dead_band"])
    assert propose(guard(), 0, 0.511) == GuardedRatio(0.511, [])


def test_a_large_proposal_is_cut_to_the_largest_step() -> None:
    result = propose(guard(), 0, 0.9)
    assert result.target == pytest.approx(0.6)
    assert result.reasons == ["ceiling", "largest_step"]


def test_targets_change_no_more_often_than_the_dwell() -> None:
    guarded = guard()
    assert propose(guarded, 0, 0.55).target == 0.55
    assert propose(guarded, 4.9, 0.45) == GuardedRatio(0.55, ["dwell"])
    assert propose(guarded, 5.0, 0.5).target == 0.5


def test_a_proposal_equal_to_the_granted_ratio_means_hold_and_lets_a_move_finish() -> None:
    guarded = guard()
    propose(guarded, 0, 0.6)
    assert propose(guarded, 10, 0.56, emb_ratio=0.56) == GuardedRatio(0.6, [])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_proposal_that_is_no_number_keeps_the_last_good_target(bad: float) -> None:
    guarded = guard()
    propose(guarded, 0, 0.55)
    assert propose(guarded, 10, bad) == GuardedRatio(0.55, ["proposal_not_finite"])


def test_stale_reuse_freezes_and_fresh_reuse_thaws() -> None:
    guarded = guard()
    assert propose(guarded, 0, 0.6, reuse_age_ns=REUSE_STALE_NS) == GuardedRatio(0.6, [])
    assert propose(guarded, 10, 0.5, reuse_age_ns=REUSE_STALE_NS + 1) == GuardedRatio(0.6, ["reuse_stale"])
    assert propose(guarded, 20, 0.5, reuse_age_ns=0) == GuardedRatio(0.5, [])


def test_without_data_it_holds_and_then_decays_to_the_safe_split_in_steps() -> None:
    guarded = Guard(RAILS, 0.02, emb_ratio=0.75, safe_ratio=0.5)
    assert propose(guarded, 0, 0.2, data_age_ns=NO_DATA_HOLD_NS + 1) == GuardedRatio(0.75, ["no_data_hold"])
    targets = [propose(guarded, 5 * turn, 0.2, data_age_ns=NO_DATA_DECAY_NS + 1).target for turn in range(5)]
    assert targets == pytest.approx([0.65, 0.55, 0.5, 0.5, 0.5])


def test_nobody_proposing_means_hold() -> None:
    assert propose(guard(), 0, None) == GuardedRatio(0.5, ["no_proposal"])


def test_an_operator_is_above_step_dwell_floor_and_policy() -> None:
    guarded = guard()
    propose(guarded, 0, 0.55)
    assert propose(guarded, 1, math.nan, held=0.9, reuse_age_ns=10**12) == GuardedRatio(0.9, ["held_by_operator"])
    assert propose(guarded, 2, 0.3, held=0.1) == GuardedRatio(0.1, ["held_by_operator"])


def test_after_a_hold_the_target_goes_back_to_where_automatic_control_was() -> None:
    guarded = guard()
    propose(guarded, 0, 0.58)
    propose(guarded, 1, 0.58, held=0.8)
    propose(guarded, 50, 0.58, held=0.3)
    assert propose(guarded, 60, 0.3, emb_ratio=0.3) == GuardedRatio(0.58, ["released"])
    assert propose(guarded, 62, 0.5) == GuardedRatio(0.58, ["dwell"])
    assert propose(guarded, 65, 0.5).target == 0.5


def test_a_held_ratio_that_is_no_share_is_refused() -> None:
    assert propose(guard(), 0, 0.5, held=math.nan) == GuardedRatio(0.5, ["held_ratio_refused"])
    assert propose(guard(), 0, 0.5, held=1.5) == GuardedRatio(0.5, ["held_ratio_refused"])


def test_new_rails_pull_the_target_inside_at_once() -> None:
    guarded = guard()
    guarded.set_rails(GuardRails(emb_ratio_min=0.6, emb_ratio_max=0.8))
    assert propose(guarded, 0, 0.5) == GuardedRatio(0.6, ["floor", "rails_changed"])


@pytest.mark.parametrize(("start", "proposed", "nearest", "next_target"), [(0.95, 0.3, 0.8, 0.7), (0.05, 0.7, 0.2, 0.3)])
def test_a_start_outside_the_rails_goes_to_the_nearer_one_and_on_as_any_other_target(
    start: float, proposed: float, nearest: float, next_target: float
) -> None:
    guarded = guard(start)
    assert propose(guarded, 0, proposed) == GuardedRatio(nearest, ["rails_changed", "dwell"])
    assert propose(guarded, 4.9, proposed) == GuardedRatio(nearest, ["dwell"])
    after = propose(guarded, 5.0, proposed)
    assert after.target == pytest.approx(next_target)
    assert after.reasons == ["largest_step"]


def test_edited_rails_do_not_let_a_proposal_past_step_dwell_and_refill_budget() -> None:
    guarded = guard()
    guarded.set_rails(GuardRails(emb_ratio_min=0.54, emb_ratio_max=0.9, step_ratio_max=0.1, dwell_seconds_min=0.0))
    moved = propose(guarded, 0, 0.85, refill_room_ratio=0.07)
    assert moved.target == pytest.approx(0.57)  # the floor took four hundredths of the seven
    assert moved.reasons == ["rails_changed", "largest_step", "refill_budget"]


def test_rails_that_need_more_than_the_refill_budget_are_obeyed_and_nothing_beyond_them() -> None:
    guarded = guard()
    guarded.set_rails(GuardRails(emb_ratio_min=0.6, emb_ratio_max=0.8, dwell_seconds_min=0.0))
    assert propose(guarded, 0, 0.65, refill_room_ratio=0.05) == GuardedRatio(0.6, ["rails_changed", "refill_budget"])


@pytest.mark.parametrize("proposed", [None, math.nan, 0.0])
def test_a_target_outside_the_rails_goes_inside_even_while_nothing_is_proposed(proposed: float | None) -> None:
    guarded = guard(0.95)
    result = propose(guarded, 0, proposed)  # 0.0 is what is granted: hold
    assert result.target == 0.8
    assert "rails_changed" in result.reasons
    assert "ceiling" not in result.reasons  # nothing that was proposed was lowered


def test_the_ratio_walks_to_the_target_at_the_actuators_rate() -> None:
    guarded = guard()
    assert guarded.step(0) == 0.5
    propose(guarded, 0, 0.55)
    walked = [guarded.step(turn * SECOND // 10) for turn in range(1, 31)]
    assert walked[:3] == pytest.approx([0.502, 0.504, 0.506])
    assert walked[24:] == pytest.approx([0.55] * 6)
    assert guarded.target == 0.55


def test_a_hold_walks_at_the_same_rate_and_can_turn_half_way() -> None:
    guarded = guard()
    guarded.step(0)
    propose(guarded, 0, None, held=0.9)
    assert guarded.step(5 * SECOND) == pytest.approx(0.6)
    propose(guarded, 5, None)
    assert guarded.step(7 * SECOND) == pytest.approx(0.56)
    assert guarded.step(20 * SECOND) == 0.5


def test_a_clock_running_backwards_moves_nothing() -> None:
    guarded = guard()
    guarded.step(10 * SECOND)
    propose(guarded, 10, 0.6)
    assert guarded.step(5 * SECOND) == 0.5
    assert guarded.step(11 * SECOND) == pytest.approx(0.52)


@pytest.mark.parametrize(("rate", "ratio", "field"), [(0.0, 0.5, "move_ratio"), (math.nan, 0.5, "move_ratio"), (0.02, 1.5, "emb_ratio")])
def test_an_impossible_guard_is_refused(rate: float, ratio: float, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Guard(RAILS, rate, ratio)


moments = st.tuples(
    st.floats(0.0, 12.0),
    st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    st.one_of(st.none(), st.none(), st.none(), st.floats(0.0, 1.0)),
    st.sampled_from([0, 20 * SECOND, 400 * SECOND]),
    st.sampled_from([0, 0, 11 * SECOND]),
)


all_rails = st.builds(
    lambda low, width, step, dwell: GuardRails(
        emb_ratio_min=low, emb_ratio_max=low + width, step_ratio_max=step, dead_band_ratio=0.01, dwell_seconds_min=dwell
    ),
    st.floats(0.05, 0.7),
    st.floats(0.05, 0.25),
    st.floats(0.02, 0.2),
    st.sampled_from([0.0, 5.0]),
)
edits = st.tuples(
    st.floats(0.0, 12.0),
    st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    st.one_of(st.none(), all_rails),
    st.floats(0.0, 0.3),
)


@given(st.floats(0.0, 1.0), st.lists(edits, max_size=40))
def test_wherever_it_starts_and_whoever_edits_the_rails_a_target_moves_by_rail_or_by_damped_proposal(
    start: float, turns: list[tuple[float, float | None, GuardRails | None, float]]
) -> None:
    guarded, now, changed_ns = guard(start), 0, None
    for gap, proposed, rails, room in turns:
        now += int(gap * SECOND)
        if rails is not None:
            guarded.set_rails(rails)
        before, rails = guarded.target, guarded.rails
        nearest = min(max(before, rails.emb_ratio_min), rails.emb_ratio_max)
        target = guarded.limit(now, GuardInputs(proposed, None, before, refill_room_ratio=room)).target
        assert rails.emb_ratio_min <= target <= rails.emb_ratio_max
        assert abs(target - nearest) <= rails.step_ratio_max + 1e-9
        assert target - before <= max(room, nearest - before) + 1e-9
        if target != nearest and changed_ns is not None:
            assert now - changed_ns >= rails.dwell_seconds_min * SECOND
        if target != before:
            changed_ns = now


@given(st.lists(moments, max_size=40))
def test_whatever_is_proposed_targets_stay_inside_and_steps_stay_slow(
    turns: list[tuple[float, float | None, float | None, int, int]],
) -> None:
    guarded = guard()
    now, before = 0, guarded.step(0)
    for gap, proposed, held, data_age, reuse_age in turns:
        now += int(gap * SECOND)
        result = guarded.limit(now, GuardInputs(proposed, held, before, data_age, reuse_age))
        inside = RAILS.emb_ratio_min <= result.target <= RAILS.emb_ratio_max
        assert inside or result.target == held
        after = guarded.step(now)
        assert abs(after - before) <= 0.02 * gap + 1e-9
        before = after
