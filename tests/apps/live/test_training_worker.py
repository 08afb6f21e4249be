"""A real Celery worker tunes a real policy, told as it goes; a cancelled run ends within seconds. Long: the simulator compiles first."""

import pytest

from tests.apps.live.system import System
from tests.patience import until

pytestmark = [pytest.mark.live, pytest.mark.verify, pytest.mark.timeout(1_800)]
SMALL = {"steps": 464, "streams": 1, "journals": 0, "episode_seconds": 60, "evaluation_seeds": 1, "evaluation_seconds": 60}
TUNED_SECONDS, CANCELLED_SECONDS = 1_500.0, 30.0


def test_a_policy_is_tuned_in_the_worker_and_a_cancelled_run_ends_within_seconds(system: System) -> None:
    console = system.console("?topics=jobs")
    system.start_worker()
    run = system.http.post("training/", json=SMALL).json()
    heard = console.next_of("training.progress", where=lambda message: message["data"]["id"] == run["id"])["data"]
    assert heard["status"] == "queued"
    console.close()

    def status(uid: str) -> str:
        return str(system.get(f"training/{uid}/")["status"])

    until("the tuned version", lambda: status(run["id"]) in {"succeeded", "failed"}, TUNED_SECONDS)
    done = system.get(f"training/{run['id']}/")
    assert done["status"] == "succeeded", done["error"]
    assert [point["steps"] for point in done["curve"]] == [464]
    version = system.get(f"policies/{done['result']['digest']}/")
    assert (version["source"], version["parent"]["label"]) == ("tuned", "helm v1")
    assert version["state"] == version["evaluation"]["verdict"]
    assert {name: change["pairs"] for name, change in version["evaluation"]["against"].items()}.keys() == {"parent", "b5", "b7"}

    long = system.http.post("training/", json={**SMALL, "steps": 200_000}).json()
    until("the long run to tune", lambda: "tuning" in system.get(f"training/{long['id']}/")["stage"], TUNED_SECONDS)
    system.http.delete(f"training/{long['id']}/")
    until("the long run to end", lambda: status(long["id"]) == "cancelled", CANCELLED_SECONDS)
    assert system.get(f"training/{long['id']}/")["result"] is None
    system.kill("worker")
