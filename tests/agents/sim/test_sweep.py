"""A sweep's runs, and its table: gains seed by seed, none where a queue only grew."""

from typing import Any

import pytest

from agents.sim.scenario import Scenario
from agents.sim.sweep import rows, sweep, variants

BASE = Scenario(profile="cpu-tiny", workload="steady", nodes=1, rate_per_second=10.0, duration_seconds=4.0, warmup_seconds=1.0)


def cell(method: str, seed: int, p99: float, overloaded: bool = False) -> dict[str, Any]:
    known = dict.fromkeys(("utilisation", "latency_ms_mean", "latency_ms_p50", "emb_hit_ratio", "kv_hit_ratio"), 0.5)
    return known | {"method": method, "seed": seed, "latency_ms_p99": p99, "overloaded": overloaded}


def test_methods_come_before_ratios_and_seeds_inside() -> None:
    found = variants(BASE, ["b5"], [0.25], [1, 2])
    assert [(one.method, one.seed) for one in found] == [("b5", 1), ("b5", 2), ("static-0.250", 1), ("static-0.250", 2)]


@pytest.mark.parametrize(
    ("methods", "ratios", "seeds", "named"),
    [([], [], [1], "method"), (["b5"], [1.0], [1], "ratio"), (["magic"], [], [1], "controller"), (["b5"], [], [], "seed")],
)
def test_an_impossible_sweep_is_refused_before_it_starts(methods: list[str], ratios: list[float], seeds: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        variants(BASE, methods, ratios, seeds)


def test_a_gain_is_the_median_of_pairs_of_the_same_stream() -> None:
    found = rows([cell("a", 1, 10.0), cell("a", 2, 100.0), cell("a", 3, 50.0), cell("b", 1, 9.0), cell("b", 2, 50.0), cell("b", 3, 40.0)])
    assert [row.method for row in found] == ["a", "b"]
    assert found[0].p99_change_percent is None
    assert found[1].p99_change_percent == pytest.approx(-20.0)
    assert found[1].latency_ms_p99 == 40.0


@pytest.mark.parametrize("overloaded", ["a", "b"])
def test_no_percentage_is_given_of_or_against_an_overloaded_run(overloaded: str) -> None:
    found = rows([cell("a", 1, 10.0, overloaded == "a"), cell("b", 1, 9.0, overloaded == "b")])
    assert found[1].p99_change_percent is None
    assert [row.overloaded for row in found] == [int(overloaded == "a"), int(overloaded == "b")]


@pytest.mark.parametrize("processes", [0, 1000])
def test_a_sweep_needs_a_sane_number_of_processes(processes: int) -> None:
    with pytest.raises(ValueError, match="processes"):
        sweep([BASE], processes, lambda done: None)


@pytest.mark.verify
def test_runs_in_other_processes_come_back_in_order() -> None:
    counted: list[int] = []
    cells = sweep(variants(BASE, ["b5"], [0.5], [1, 2]), 2, counted.append)
    assert counted == [1, 2, 3, 4]
    assert [(one["method"], one["seed"]) for one in cells] == [("b5", 1), ("b5", 2), ("static-0.500", 1), ("static-0.500", 2)]
    assert all(one["requests"] > 0 for one in cells)
