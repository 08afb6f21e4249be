"""What survives a restart: commands in force, for no longer than they had left."""

import stat
from pathlib import Path

import pytest

from agents.node.desired import Desired
from agents.runtime.hold_store import SavedHold, read_hold, restored, saved, write_hold
from agents.wire.messages import ControllerMode, GuardRails, Mode

SECOND = 1_000_000_000
RAILS = GuardRails(emb_ratio_min=0.2)


def desired(mode: Mode, deadline_ns: int | None = None) -> Desired:
    return Desired(7, mode, ControllerMode.ADVISORY, None if mode is Mode.AUTO else 0.4, deadline_ns, "reason", RAILS)


def hold_of(mode: Mode, remaining_seconds: float | None = None) -> SavedHold:
    """A hold saved at monotonic 100 s and unix 1,000 s."""
    deadline = None if remaining_seconds is None else 100 * SECOND + round(remaining_seconds * SECOND)
    return saved(desired(mode, deadline), 100 * SECOND, 1_000 * SECOND)


def test_an_override_comes_back_with_what_was_left_of_it() -> None:
    spec = restored(hold_of(Mode.OVERRIDE, 60), 1_020 * SECOND)
    assert (spec.mode, spec.emb_ratio, spec.reason, spec.ttl_remaining_ms) == (Mode.OVERRIDE, 0.4, "reason", 40_000)
    assert (spec.generation, spec.controller, spec.guard_rails) == (7, ControllerMode.ADVISORY, RAILS)


@pytest.mark.parametrize("down_seconds", [59.5, 60, 3_600])
def test_an_override_that_ran_out_while_the_node_was_down_does_not(down_seconds: float) -> None:
    spec = restored(hold_of(Mode.OVERRIDE, 60), 1_000 * SECOND + round(down_seconds * SECOND))
    assert (spec.mode, spec.emb_ratio, spec.ttl_remaining_ms, spec.generation) == (Mode.AUTO, None, None, 7)


def test_a_wall_clock_that_went_back_cannot_prolong_an_override() -> None:
    assert restored(hold_of(Mode.OVERRIDE, 60), 10 * SECOND).ttl_remaining_ms == 60_000


def test_a_pin_stands_however_long_the_node_was_down() -> None:
    spec = restored(hold_of(Mode.PIN), 10**9 * SECOND)
    assert (spec.mode, spec.emb_ratio, spec.ttl_remaining_ms) == (Mode.PIN, 0.4, None)


def test_a_pool_that_was_made_smaller_comes_back_as_small() -> None:
    hold = saved(desired(Mode.AUTO, None)._replace(pool_bytes=4_096), 0, 0)
    assert restored(hold, 10**9 * SECOND).pool_bytes == 4_096


def test_whose_decisions_the_mode_is_about_comes_back_with_it() -> None:
    wanted = desired(Mode.AUTO)._replace(controller=ControllerMode.ACTIVE, policy_digest="ab", policy_generation=6)
    hold = saved(wanted, 0, 0, ControllerMode.ADVISORY, "cd")
    spec = restored(hold, 0)
    assert (spec.controller, spec.policy_digest, spec.policy_generation) == (ControllerMode.ACTIVE, "ab", 6)
    assert (hold.controller_in_force, hold.demoted_policy) == (ControllerMode.ADVISORY, "cd")


def test_automatic_keeps_its_generation_and_rails() -> None:
    spec = restored(hold_of(Mode.AUTO), 1_000 * SECOND)
    assert (spec.mode, spec.generation, spec.guard_rails, spec.emb_ratio) == (Mode.AUTO, 7, RAILS, None)


def test_a_hold_is_read_as_it_was_written_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "node-0" / "spec.json"
    for hold in (hold_of(Mode.OVERRIDE, 60), hold_of(Mode.PIN), hold_of(Mode.AUTO)):
        write_hold(path, hold)
        assert read_hold(path) == hold
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["spec.json"]


def test_no_file_is_no_hold(tmp_path: Path) -> None:
    assert read_hold(tmp_path / "spec.json") is None


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"generation": "x"}'])
def test_a_damaged_file_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"spec\.json"):
        read_hold(path)
