"""What `helmctl eval` refuses before any work starts, and how it tells what it found."""

from pathlib import Path
from typing import Any

import pytest

from helmctl.cli.evaluate import in_words
from helmctl.cli.main import run


def refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of options that end with exit code 2."""
    assert run(["eval", *options]) == 2
    return capsys.readouterr().err


def test_an_unknown_suite_or_catalogue_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown 'papers', choose one of paper" in refused(["--suite", "papers"], capsys)
    assert "unknown 'ebay', choose from taobao" in refused(["--only", "ebay"], capsys)


def test_a_log_is_refused_where_no_log_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.parquet"
    log.touch()
    assert "only the generalisation suite" in refused(["--suite", "routing", "--log", str(log)], capsys)


def test_two_logs_of_one_name_and_an_unknown_method_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [tmp_path / place / "log.parquet" for place in ("here", "there")]
    for log in logs:
        log.parent.mkdir()
        log.touch()
    asked = [part for log in logs for part in ("--log", str(log))]
    assert "same name" in refused(["--suite", "generalisation", "--quick", *asked], capsys)
    assert "cannot read" in refused(["--suite", "generalisation", "--method", "policy-/nowhere/helm.json"], capsys)


def routed(router: str, p99_ms: float, against_hashing: float | None) -> dict[str, Any]:
    """A row of the routing suite."""
    cell = {"profile": "taobao", "regime": "trend", "load": "high", "admission": "shipped", "method": "helm", "router": router}
    figures = {
        "latency_ms_p99": p99_ms,
        "latency_ms_mean": 5.0,
        "slo_ratio": 0.99,
        "utilisation": 0.8,
        "overloaded": against_hashing is None,
    }
    change = None if against_hashing is None else {"mean": against_hashing, "ci": None, "pairs": 1}
    return cell | figures | {"p99_vs_hash": change, "p99_vs_joint": None}


def test_routers_are_told_with_what_allocation_and_routing_each_take_off_hashing_and_both_together() -> None:
    rows = [routed("consistent-hash", 90.0, 0.0), routed("consistent-hash+helm", 63.0, -0.3), routed("joint", 18.0, -0.8)]
    told = in_words({"suite": "routing", "quick": False, "seeds": 1, "cells": [*rows, routed("joint+helm", 300.0, None)]})
    assert told[-1] == "  P99 against consistent hashing at the same split: allocation alone -30.0%, routing alone -80.0%, both overload"
    capacity = [{name: value for name, value in row.items() if name != "p99_vs_hash"} for row in rows]
    assert "hashing at" not in "".join(in_words({"suite": "capacity", "quick": False, "seeds": 1, "cells": capacity}))
