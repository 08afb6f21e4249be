"""A real Celery worker runs a real simulation; whatever happens to it, the run ends."""

import sys

import pytest

from tests.apps.live.system import System
from tests.patience import until

pytestmark = pytest.mark.live
SHORT = {"workload": "steady", "nodes": 2, "static_ratios": [0.3, 0.7], "duration_seconds": 10, "seed": 5}
LONG = {**SHORT, "nodes": 4, "duration_seconds": 3600}


def start(system: System, body: dict[str, object], key: str | None = None) -> dict[str, object]:
    headers = {"Idempotency-Key": key} if key else {}
    answer = system.http.post("whatifs/", json=body, headers=headers)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/whatifs/{answer.json()['id']}/"
    return dict(answer.json())


def status(system: System, job: dict[str, object]) -> str:
    return str(system.get(f"whatifs/{job['id']}/")["status"])


def test_a_what_if_runs_in_the_worker_and_a_lost_or_cancelled_one_ends(system: System) -> None:
    console = system.console("?topics=jobs")
    job = start(system, SHORT, key="the same")
    assert job["status"] == "queued"
    system.start_worker()

    # 1. It runs, its progress is told, and the same key does not start it twice.
    heard = [console.next_of("job.progress", where=lambda message: message["data"]["id"] == job["id"])["data"]]
    while heard[-1]["status"] not in {"succeeded", "failed", "cancelled"}:
        heard.append(console.next_of("job.progress", where=lambda message: message["data"]["id"] == job["id"])["data"])
    assert [heard[0]["status"], heard[-1]["status"]] == ["queued", "succeeded"], heard[-1]["error"]
    assert [item["progress"] for item in heard] == sorted(item["progress"] for item in heard)
    console.close()
    assert start(system, SHORT, key="the same")["id"] == job["id"]

    result = system.get(f"whatifs/{job['id']}/")["result"]
    assert [(run["label"], run["method"]) for run in result["runs"]] == [
        ("static 0.30", "static-0.30"),
        ("static 0.70", "static-0.70"),
        ("controller", "helm"),
    ]
    for run in result["runs"]:
        assert run["cell"]["latency_ms_p50"] > 0
        assert len({len(run["series"][name]) for name in ("at_seconds", "emb_ratio", "latency_ms_p99", "emb_hit_ratio")}) == 1
    assert result["runs"][0]["series"]["emb_ratio"][-1] < result["runs"][1]["series"]["emb_ratio"][-1]
    figure = system.get(f"whatifs/{job['id']}/figure/")
    assert len(figure["data"]) == 12
    assert {trace["name"] for trace in figure["data"]} == {"static 0.30", "static 0.70", "controller"}

    # 2. Cancelled while running: the worker stops by itself and takes the next job.
    long = start(system, LONG)
    until("the long run to start", lambda: status(system, long) == "running")
    system.http.delete(f"whatifs/{long['id']}/")
    until("the long run to end", lambda: status(system, long) == "cancelled")

    # 3. Lost with its worker: the beat's task ends it.
    lost = start(system, LONG)
    until("the next run's first simulation to be under way", lambda: system.get(f"whatifs/{lost['id']}/")["progress"] > 0)
    system.kill("worker")
    system.manage(
        "shell",
        "-c",
        "from apps.whatif.models import Piece; from datetime import timedelta; from django.db.models import F; "
        "Piece.objects.filter(status='running').update(heartbeat_at=F('heartbeat_at') - timedelta(seconds=60))",
    )
    system.start_worker("worker-2")
    system.start("beat", sys.executable, "-m", "celery", "-A", "helmctl.celery", "beat", "--loglevel", "info")
    until("the lost run to be ended", lambda: status(system, lost) == "failed")
    assert system.get(f"whatifs/{lost['id']}/")["error"] == "The worker running this was lost."
    for name in ("worker-2", "beat"):
        system.kill(name)
