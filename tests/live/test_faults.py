"""What happens to clients when a node dies, and to a node that is taken by hand."""

import json
import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.processes import LiveFleet, live_fleet

pytestmark = pytest.mark.live

PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("faults")) as running:
        yield running


def router_view(fleet: LiveFleet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(node for node in fleet.status("router")["nodes"] if node["name"] == name)
    return found


def test_a_node_killed_under_load_costs_no_client_an_answer_and_rejoins_by_itself(fleet: LiveFleet) -> None:
    load = fleet.start("load", "--workload", "steady", "--json", "--rate", "8", "--duration", "16")
    fleet.wait_until(lambda: router_view(fleet, "node-1")["picks_total"] > 10, PATIENCE_SECONDS, "traffic on node-1")
    killed = fleet.running.pop("node-1")
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    fleet.wait_until(lambda: router_view(fleet, "node-1")["phase"] == "offline", PATIENCE_SECONDS, "node-1 offline")
    fleet.start("node-1")
    fleet.wait_until(lambda: router_view(fleet, "node-1")["phase"] == "ready", PATIENCE_SECONDS, "node-1 ready again")
    picked = router_view(fleet, "node-1")["picks_total"]
    load.wait(PATIENCE_SECONDS)
    summary = json.loads(fleet.log("load").splitlines()[-1])
    assert summary["failures_by_reason"] == {}
    assert summary["answered"] + summary["shed"] == summary["requests"]
    assert router_view(fleet, "node-1")["picks_total"] >= picked


def test_a_ratio_set_by_hand_is_reached_and_goes_back_by_itself(fleet: LiveFleet) -> None:
    before = fleet.status("node-0")["target_emb_ratio"]
    fleet.control("node-0", mode="override", emb_ratio=0.54, ttl_ms=15_000, reason="by hand")
    fleet.wait_until(lambda: fleet.status("node-0")["emb_ratio"] == pytest.approx(0.54, abs=0.01), PATIENCE_SECONDS, "ratio 0.54")
    assert fleet.status("node-0")["mode"] == "override"
    fleet.wait_until(lambda: fleet.status("node-0")["mode"] == "auto", PATIENCE_SECONDS, "expiry")
    fleet.wait_until(lambda: fleet.status("node-0")["target_emb_ratio"] == pytest.approx(before, abs=0.02), PATIENCE_SECONDS, "going back")


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        ({"mode": "override", "emb_ratio": 0.97, "ttl_ms": 5000, "reason": "x"}, 422, "emb_ratio"),
        ({"mode": "override", "emb_ratio": float("nan"), "ttl_ms": 5000, "reason": "x"}, 400, None),
        ({"mode": "override", "emb_ratio": 0.5, "ttl_ms": 0, "reason": "x"}, 400, "ttl_ms"),
        ({"mode": "override", "emb_ratio": 0.5, "ttl_ms": 5000, "reason": ""}, 400, "reason"),
        ({"mode": "sideways", "reason": "x"}, 400, "mode"),
    ],
)
def test_a_bad_command_is_refused_and_the_node_goes_on(fleet: LiveFleet, content: dict[str, Any], status: int, field: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        fleet.control("node-0", **content)
    assert refused.value.code == status
    answer = json.loads(refused.value.read())
    assert answer["error"]
    if field is not None:
        assert answer["field"] == field
    assert fleet.status("node-0")["phase"] == "ready"


def test_a_log_of_somebody_elses_replays_as_requests(fleet: LiveFleet, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    start = 1_700_000_000
    events = [f"{user},{(user * 7 + turn * 13) % 500},{start + turn * 20 + user}" for turn in range(40) for user in range(12)]
    log.write_text("\n".join(["user,item,ts", *events]))
    load = fleet.start(
        "load", "--trace", str(log), "--json", "--rate", "8", "--rate-max", "8", "--duration", "6", "--status", str(tmp_path / "load.json")
    )
    assert load.wait(PATIENCE_SECONDS) == 0
    summary = json.loads(fleet.log("load").splitlines()[-1])
    assert summary["failures_by_reason"] == {}
    assert summary["answered"] > 20
