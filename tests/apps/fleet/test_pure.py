"""Lifecycle, presence and price: plain functions."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.profiles.profile import load_profile
from agents.wire.messages import Mode, Phase
from apps.fleet.lifecycle import MODE_AFTER, Verb, verdict
from apps.fleet.presence import age_seconds, phase_of
from apps.fleet.preview import Split, change, holdings, predicted, preview

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PROFILE = load_profile("cpu-demo")
LANDSCAPE = [[0.8, 40.0, 130.0, 30.0, 50.0], [0.2, 30.0, 90.0, 25.0, 35.0], [0.5, 20.0, 60.0, 15.0, 25.0]]


def at(emb_ratio: float) -> Split:
    """A split of the whole pool."""
    return Split(PROFILE.pool_bytes, emb_ratio)


def test_the_table_of_verbs() -> None:
    allowed = {(mode.value, verb.value) for mode in (Mode.AUTO, Mode.OVERRIDE, Mode.PIN) for verb in Verb if verdict(mode, verb).allowed}
    assert allowed == {
        ("auto", "override"),
        ("auto", "pin"),
        ("override", "override"),
        ("override", "pin"),
        ("override", "release"),
        ("pin", "pin"),
        ("pin", "release"),
        ("auto", "resize"),
        ("override", "resize"),
        ("pin", "resize"),
    }
    assert MODE_AFTER == {Verb.OVERRIDE: Mode.OVERRIDE, Verb.PIN: Mode.PIN, Verb.RELEASE: Mode.AUTO}


@pytest.mark.parametrize(
    ("linked", "age", "said", "phase"),
    [
        (True, 0.0, "ready", Phase.READY),
        (True, 3.5, "draining", Phase.DRAINING),
        (True, 3.6, "ready", Phase.OFFLINE),
        (False, 0.0, "ready", Phase.OFFLINE),
        (True, None, "ready", Phase.OFFLINE),
        (True, -5.0, "ready", Phase.READY),
    ],
)
def test_a_node_is_there_while_its_link_stands_and_its_frames_are_fresh(linked: bool, age: float | None, said: str, phase: Phase) -> None:
    received_at = None if age is None else NOON - timedelta(seconds=age)
    assert phase_of(linked, received_at, said, NOON) is phase


def test_ages_are_never_negative() -> None:
    assert age_seconds(NOON + timedelta(seconds=2), NOON) == 0.0
    assert age_seconds(None, NOON) is None


def test_a_split_keeps_every_byte() -> None:
    for percent in range(0, 101, 7):
        held = holdings(PROFILE, at(percent / 100))
        assert held["emb_bytes"] + held["kv_bytes"] == held["pool_bytes"] == PROFILE.pool_bytes
        assert held["emb_rows"] <= PROFILE.rows


def test_a_split_in_numbers() -> None:
    held = holdings(PROFILE, at(0.25))
    assert (held["emb_bytes"], held["kv_bytes"]) == (16 << 20, 48 << 20)
    assert (held["emb_rows"], held["kv_users"]) == ((16 << 20) // PROFILE.row_bytes, (48 << 20) // (PROFILE.kv_token_bytes * 768))


def test_a_pool_has_whole_pages() -> None:
    assert holdings(PROFILE, Split(PROFILE.page_bytes * 10 + 1, 0.5))["pool_bytes"] == PROFILE.page_bytes * 10


def test_only_growing_emb_is_refilled() -> None:
    up, down = change(PROFILE, at(0.25), at(0.5)), change(PROFILE, at(0.5), at(0.25))
    assert (up["refill_gib"], down["refill_gib"]) == (16 / 1024, 0.0)
    assert up["moved_bytes"] == down["moved_bytes"] == 16 << 20
    assert up["move_seconds"] == pytest.approx(0.25 / PROFILE.move_ratio_per_second)
    assert (up["emb_rows"], up["kv_users"]) == (-down["emb_rows"], -down["kv_users"])


def test_a_smaller_pool_takes_from_both_caches_and_its_latency_is_not_predicted() -> None:
    price = preview(PROFILE, at(0.5), Split(32 << 20, 0.5), LANDSCAPE, 50.0)
    assert (price["after"]["emb_bytes"], price["after"]["kv_bytes"]) == (16 << 20, 16 << 20)
    assert (price["change"]["moved_bytes"], price["change"]["refill_gib"], price["change"]["move_seconds"]) == (32 << 20, 0.0, None)
    assert (price["before"]["predicted"] is None, price["after"]["predicted"], price["warnings"]) == (False, None, [])


def test_a_prediction_is_read_between_the_landscapes_rows() -> None:
    assert predicted(LANDSCAPE, 0.35) == {"latency_ms_mean": 25.0, "latency_ms_p99": 75.0, "latency_ms_low": 20.0, "latency_ms_high": 30.0}
    assert predicted(LANDSCAPE, 0.5) == {"latency_ms_mean": 20.0, "latency_ms_p99": 60.0, "latency_ms_low": 15.0, "latency_ms_high": 25.0}


@pytest.mark.parametrize("ratio", [0.1, 0.9])
def test_nothing_is_predicted_outside_the_landscape(ratio: float) -> None:
    assert predicted(LANDSCAPE, ratio) is None
    assert predicted([], 0.5) is None


def test_a_price_warns_of_what_gets_worse() -> None:
    assert preview(PROFILE, at(0.5), at(0.8), LANDSCAPE, 120.0)["warnings"] == ["slower_than_now", "over_slo"]
    assert preview(PROFILE, at(0.8), at(0.5), LANDSCAPE, 120.0)["warnings"] == []
    assert preview(PROFILE, at(0.8), at(0.5), [], None)["after"]["predicted"] is None
