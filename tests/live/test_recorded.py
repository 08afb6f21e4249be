"""A recorded run of a live fleet holds all that a simulator needs to run it again."""

import numpy as np
import pytest

from agents.profiles import load_profile
from agents.workloads.demo import DemoParameters, synthetic_workload
from helmctl.bench.recorded import record

pytestmark = pytest.mark.live

SECONDS, RATE_PER_SECOND = 4.0, 30.0


def test_a_recorded_run_tells_who_decided_and_of_every_request_when_where_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELM_STATE_DIR", raising=False)  # where the kernels of this checkout are; its processes get a folder of their own
    stream = synthetic_workload("steady", 1, RATE_PER_SECOND, True, DemoParameters.for_profile(load_profile("cpu-demo")))
    run = record(stream, SECONDS, 2, "cpu-demo", lambda line: None)
    assert [node.controller for node in run.nodes] == ["helm", "helm"]  # what a node has where nothing else is said
    assert all(node.parity.holds for node in run.nodes)
    answered = np.isfinite(run.latency_ms)
    assert answered.mean() > 0.9
    assert set(run.node[answered].tolist()) == {0, 1}
    assert (run.latency_ms[answered] > run.inside_ms[answered]).all()
    assert sum(one.requests for node in run.nodes for one in node.served) == answered.sum()
    assert run.sent_ns[-1] < SECONDS * 1e9 * 2.0
