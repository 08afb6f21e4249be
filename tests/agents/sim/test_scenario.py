"""Simulated fleets: one seed one run, the impossible refused by name, a ratio that stays where it is put."""

import msgspec
import pytest

from agents.sim.scenario import Scenario, SimResult, run


def small(**changes: object) -> Scenario:
    values: dict[str, object] = {"profile": "cpu-tiny", "workload": "steady", "nodes": 2, "rate_per_second": 20.0}
    values |= {"duration_seconds": 12.0, "warmup_seconds": 4.0}
    return Scenario(**{**values, **changes})  # type: ignore[arg-type]


def result_of(scenario: Scenario) -> SimResult:
    result = run(scenario)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def b5() -> SimResult:
    return result_of(small())


def test_one_seed_gives_one_run(b5: SimResult) -> None:
    assert msgspec.json.encode(result_of(small())) == msgspec.json.encode(b5)


def test_another_seed_gives_another_run(b5: SimResult) -> None:
    assert result_of(small(seed=2)).cell["latency_ms_mean"] != b5.cell["latency_ms_mean"]


def test_every_request_after_the_warm_up_is_counted_once(b5: SimResult) -> None:
    assert sum(node["requests"] for node in b5.nodes) == b5.cell["requests"] > 100
    assert b5.cell["refused"] == 0


def test_a_static_ratio_stays_where_it_is_put() -> None:
    result = result_of(small(method="static-0.30"))
    assert result.cell["moves"] == result.cell["moved_pages"] == 0
    assert result.cell["emb_ratio_min"] == result.cell["emb_ratio_max"] == pytest.approx(0.30, abs=0.005)


def test_more_traffic_than_the_fleet_can_serve_is_called_overload() -> None:
    assert result_of(small(rate_per_second=600.0, duration_seconds=4.0, warmup_seconds=1.0, settled=False)).cell["overloaded"]


def test_a_cancelled_run_has_no_result() -> None:
    assert run(small(), cancelled=lambda: True) is None


def test_progress_only_grows() -> None:
    seen: list[float] = []
    run(small(), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] > 0.8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodes", 0),
        ("nodes", 5000),
        ("duration_seconds", 0.0),
        ("duration_seconds", float("inf")),
        ("warmup_seconds", 99.0),
        ("rate_per_second", -1.0),
        ("rate_per_second", float("nan")),
        ("router", "random"),
        ("speed", 0.0),
        ("emb_ratio_start", 1.0),
    ],
)
def test_an_impossible_scenario_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        small(**{field: value})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "magic"}, "controller"),
        ({"profile": "abacus"}, "profile"),
        ({"workload": "quiet"}, "workload"),
        ({"admission": "all"}, "admission"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(changes: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        run(small(**changes))
