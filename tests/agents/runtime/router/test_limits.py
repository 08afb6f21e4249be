"""How many connections there may be, held against the files that the process may open."""

import resource
from collections.abc import Callable

import pytest

from agents.runtime.router.limits import Limits, within_descriptors
from tests.agents.runtime.router.fakes import FAST, ask, infer, running

NODES = 8

Descriptors = Callable[[int, int], list[tuple[int, int]]]


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Descriptors:
    """Soft and hard limit as the process has them; returns what was set instead."""

    def pretend(soft: int, hard: int) -> list[tuple[int, int]]:
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
        return asked

    return pretend


def test_a_low_soft_limit_is_raised_and_no_bound_is_lowered(descriptors: Descriptors) -> None:
    asked = descriptors(1_024, 1 << 20)
    assert within_descriptors(Limits(), NODES) == Limits()
    ((soft, hard),) = asked
    assert soft >= Limits().connections_max + Limits().in_flight_max + NODES * Limits().upstream_idle_max
    assert hard == 1 << 20


@pytest.mark.parametrize("enough", [1 << 20, resource.RLIM_INFINITY])
def test_a_limit_that_suffices_is_left_alone(descriptors: Descriptors, enough: int) -> None:
    asked = descriptors(enough, enough)
    assert within_descriptors(Limits(), NODES) == Limits()
    assert asked == []


@pytest.mark.parametrize("hedge_seconds", [0.0, 0.01])
@pytest.mark.parametrize("hard", [512, 1_024, 4_096])
def test_a_low_hard_limit_leaves_descriptors_for_the_way_to_the_nodes(descriptors: Descriptors, hard: int, hedge_seconds: float) -> None:
    descriptors(256, hard)
    fitted = within_descriptors(Limits(hedge_seconds=hedge_seconds), NODES)
    attempts = 2 if hedge_seconds else 1
    upstream = min(fitted.in_flight_max, fitted.connections_max) * attempts + NODES * fitted.upstream_idle_max
    assert 50 < fitted.connections_max < Limits().connections_max
    assert fitted.connections_max + fitted.refused_max + upstream < hard


def test_hardly_any_descriptors_still_let_somebody_in(descriptors: Descriptors) -> None:
    descriptors(32, 32)
    assert within_descriptors(Limits(), NODES).connections_max == 1


def test_a_system_that_allows_less_than_its_hard_limit_is_taken_at_its_word(
    descriptors: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors(1_024, 1 << 20)

    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert within_descriptors(Limits(), NODES).connections_max < 1_024


async def test_a_router_with_few_descriptors_starts_with_smaller_bounds(descriptors: Descriptors) -> None:
    descriptors(256, 256)
    async with running(1, FAST) as fleet:
        assert fleet.daemon.limits.connections_max < 256 // 3
        assert (await ask(fleet.port, infer())).status == 200
