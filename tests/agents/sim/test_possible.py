"""What cannot be served is refused before any work starts, by the field that makes it so."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.sim.possible import least_ms, require_possible
from agents.sim.scenario import Scenario, checked, profiles_of
from tests.agents.sim.streams import TINY, costing, every, written


def test_the_least_a_request_costs_is_a_hit_of_everything() -> None:
    profile = costing(TINY, ms_fixed=1.0, ms_per_candidate=0.1, ms_per_hit_row=0.04, ms_per_token=1.0, ms_kv_hit_floor=0.5)
    block = written(every(1.0, 3), users=np.array([1, 2, 3]), tokens=np.full(3, 130), rows=np.zeros((3, 10), np.int64)).block
    assert least_ms(profile, block) == pytest.approx(1.0 + 0.1 * 10 + 0.04 * 10 / profile.batch_max + 2.0)  # two tokens beyond the blocks


def test_a_fleet_that_is_too_slow_at_every_ratio_is_refused() -> None:
    stream, profile = written(every(1.0, 3)), costing(TINY, ms_fixed=10.0)
    require_possible((profile, profile), stream, 199.0)
    with pytest.raises(ValueError, match=r"rate_per_second: 250 is utilisation 1\.25 even if every lookup hit"):
        require_possible((profile, profile), stream, 250.0)


def test_a_faster_node_in_a_mix_counts_with_what_it_can_do() -> None:
    stream = written(every(1.0, 3))
    require_possible((costing(TINY, ms_fixed=10.0), costing(TINY, ms_fixed=2.0)), stream, 590.0)


def test_a_pool_smaller_than_one_user_is_refused() -> None:
    small = msgspec.structs.replace(TINY, pool_bytes=2 * TINY.page_bytes)
    stream = written(every(1.0, 2), users=np.array([1, 2]), tokens=np.array([64, 192]))
    with pytest.raises(ValueError, match=r"profile: cpu-tiny's pool_bytes hold 128 tokens of KV, fewer than one user's 192"):
        require_possible((small,), stream, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate_per_second": 5_000.0}, "rate_per_second"),
        ({"method": "magic"}, "controller"),
        ({"workload": "taobao/quiet"}, "regime"),
        ({"workload": "ebay/steady"}, "workload"),
        ({"profile": "cpu-tiny*3"}, "profile"),
        ({"profile": "cpu-tiny*1,cpu-tiny"}, "profile"),
        ({"profile": "cpu-tiny*0,cpu-tiny*2"}, "profile"),
        ({"profile": "cpu-tiny*1,a100-80g*1"}, "profile"),
    ],
)
def test_a_scenario_is_refused_by_its_field(changes: dict[str, object], named: str) -> None:
    values: dict[str, object] = {"profile": "cpu-tiny", "workload": "steady", "nodes": 2, "rate_per_second": 20.0}
    with pytest.raises(ValueError, match=named):
        checked(Scenario(**{**values, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("faults", "named"), [(("node-loss@1:2",), "no node 2"), (("slow-link@-1:0",), "fault"), (("fire@1",), "fault")])
def test_a_fault_that_cannot_happen_is_refused(faults: tuple[str, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Scenario(nodes=2, faults=faults)


def test_a_mix_lists_its_nodes_in_order() -> None:
    found = profiles_of(Scenario(profile="a100-80g*1, h100-80g*2", nodes=3))
    assert [profile.name for profile in found] == ["a100-80g", "h100-80g", "h100-80g"]


@pytest.mark.parametrize(
    ("seconds", "line"), [([], "empty"), ([1.7e9, 1.7e9 + 5, 1.7e9 + 3], "line 3: ts is earlier"), ([-5.0, -4.0, -3.0], "ts is not a time")]
)
def test_a_log_that_is_empty_unsorted_or_before_time_is_refused(tmp_path: Path, seconds: list[float], line: str) -> None:
    path, count = tmp_path / "log.npz", len(seconds)
    np.savez(path, user=np.arange(count), item=np.arange(count), ts=(np.array(seconds) * 1000).astype(np.int64))
    with pytest.raises(ValueError, match=line):
        checked(Scenario(trace=str(path), nodes=1))
