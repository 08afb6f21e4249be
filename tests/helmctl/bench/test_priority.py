"""A bench goes before its neighbours for as long as it measures, where it may."""

import os
from pathlib import Path

import pytest

from helmctl.bench import priority
from helmctl.bench.priority import NICE, ahead_of_others


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A session's file, and a process whose priority is a number in a list."""
    path = tmp_path / "autogroup"
    path.write_text("/autogroup-8 nice 3\n")
    monkeypatch.setattr(priority, "_SESSION", path)
    return path


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process's priorities, the newest last."""
    niceness = [0]
    monkeypatch.setattr(os, "getpriority", lambda which, who: niceness[-1])
    monkeypatch.setattr(os, "setpriority", lambda which, who, nice: niceness.append(nice))
    return niceness


def test_process_and_session_go_first_while_something_is_measured_and_back_in_line_after(session: Path, own: list[int]) -> None:
    with ahead_of_others() as ahead:
        assert ahead
        assert (own[-1], session.read_text()) == (NICE, str(NICE))
    assert (own[-1], session.read_text()) == (0, "3")


def test_an_error_while_measuring_leaves_no_priority_behind(session: Path, own: list[int]) -> None:
    with pytest.raises(RuntimeError), ahead_of_others():
        raise RuntimeError
    assert (own[-1], session.read_text()) == (0, "3")


def test_who_is_ahead_already_stays_so(session: Path, own: list[int]) -> None:
    own.append(NICE - 1)
    with ahead_of_others() as ahead:
        assert ahead
        assert own[-1] == NICE - 1
    assert own[-1] == NICE - 1


def test_a_system_without_sessions_of_their_own_priority_raises_the_process_alone(session: Path, own: list[int]) -> None:
    session.unlink()
    with ahead_of_others() as ahead:
        assert ahead
        assert own[-1] == NICE
    assert not session.exists()


def test_a_session_that_may_not_go_first_leaves_no_process_that_does(
    session: Path, own: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str, encoding: str) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with ahead_of_others() as ahead:
        assert not ahead
    assert own == [0, NICE, 0]


def test_who_may_not_measures_in_line(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, who: int, nice: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    with ahead_of_others() as ahead:
        assert not ahead
    assert session.read_text() == "/autogroup-8 nice 3\n"
