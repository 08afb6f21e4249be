import math

import pytest

from agents.runtime.load.client import Answer
from agents.runtime.load.report import Report


def good(node: str = "node-0", kv: str = "hit") -> Answer:
    return Answer("", False, node, kv)


def test_a_run_is_summed_up_exactly() -> None:
    report = Report()
    for kv, node in (("hit", "node-0"), ("partial", "node-0"), ("miss", "node-1"), ("", "node-1")):
        report.answer(good(node, kv), 10.0)
    report.answer(Answer("", True, "", ""), 1.0)
    report.answer(Answer("status 500", False, "node-1", ""), 1.0)
    report.failed("timeout")
    report.second(0.5, 0.7, starved=False)
    summary = report.summary(2.0)
    assert (summary["requests"], summary["answered"], summary["failures"], summary["shed"]) == (7, 4, 2, 1)
    assert summary["failures_by_reason"] == {"status 500": 1, "timeout": 1}
    assert summary["requests_per_second"] == 2.0
    assert summary["kv_hit_ratio"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["latency_ms_p50"] == pytest.approx(10.0, rel=0.01)
    assert summary["host_cpu_ratio_mean"] == 0.5
    assert summary["nodes"]["node-0"] == {
        "requests": 2, "share": 0.5, "kv_hit_ratio_client": 1.0, "kv_hits": 1, "kv_partial": 1, "kv_misses": 0,
    }  # fmt: skip
    assert summary["nodes"]["node-1"]["kv_hit_ratio_client"] == 0.0


def test_latencies_of_a_saturated_host_are_kept_apart() -> None:
    report = Report()
    report.answer(good(), 10.0)
    assert report.second(0.5, 0.7, starved=False) is False
    report.answer(good(), 900.0)
    assert report.second(0.97, 0.7, starved=False) is True
    report.answer(good(), 800.0)
    assert report.second(0.2, 0.7, starved=True) is True
    summary = report.summary(3.0)
    assert summary["saturated_seconds"] == 2
    assert summary["cpu_over_target_seconds"] == 1
    assert summary["latency_ms_p99"] == pytest.approx(800.0, rel=0.15)
    assert summary["latency_ms_p99_unsaturated"] == pytest.approx(10.0, rel=0.01)


def test_failures_and_shed_requests_have_no_latency() -> None:
    report = Report()
    report.answer(Answer("", True, "", ""), 1.0)
    report.answer(Answer("status 500", False, "", ""), 1.0)
    report.second(0.1, 0.7, starved=False)
    assert report.summary(1.0)["latency_ms_p50"] is None


def test_recent_latency_covers_ten_seconds_and_needs_enough_answers() -> None:
    report = Report()
    report.answer(good(), 500.0)
    report.second(0.1, 0.7, starved=False)
    assert report.recent_ms(0.99, 1) == pytest.approx(500.0, rel=0.01)
    assert math.isnan(report.recent_ms(0.99, 2))
    for _ in range(10):
        report.second(0.1, 0.7, starved=False)
    assert math.isnan(report.recent_ms(0.99, 1))


def test_a_run_without_requests_has_no_figures_but_a_summary() -> None:
    summary = Report().summary(0.0)
    assert summary["requests"] == 0
    assert summary["requests_per_second"] is summary["latency_ms_p99"] is summary["kv_hit_ratio"] is None
