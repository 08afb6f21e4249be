"""Training runs: asked sensibly, one at a time, told as they go, ended whatever happens; what comes of them is a version."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django_celery_beat.models import PeriodicTask
from rest_framework.test import APIClient

from apps.audit.models import AuditEntry, Event
from apps.fleet.models import Node
from apps.outbox.models import OutboxMessage
from apps.policies import tasks, training
from apps.policies import training_actions as actions
from apps.policies.models import PolicyVersion, TrainingRun
from apps.policies.training import Answer, Question, Told, carry_out, newest_journals
from tests.apps.policies.files import tiny_file

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DEFAULTS = {
    "steps": 6000,
    "streams": 8,
    "journals": 4,
    "episode_seconds": 300.0,
    "seed": None,
    "evaluation_seeds": 2,
    "evaluation_seconds": 150.0,
}
EVALUATION = {
    "verdict": "usable",
    "reason": "P99 -3.0% against its parent over 6 runs",
    "against": {"parent": {"mean": -0.03, "low": -0.04, "high": -0.02, "pairs": 6}},
    "cells": {},
    "seeds": [7000, 7001],
    "seconds": 150.0,
}
FILE = tiny_file(3)


class StillPulse:
    """A pulse that never beats: tests of the flow need no second thread."""

    last: "StillPulse"

    def __init__(self, pk: int, heartbeat: Any) -> None:
        self.progress, self.stage, self.stop_wanted, self.more = 0.0, "", False, {}
        StillPulse.last = self

    def __enter__(self) -> "StillPulse":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Pulse", StillPulse)


def post(client: APIClient, **body: Any) -> Any:
    return client.post("/api/v1/training/", body, format="json")


def claimed(client: APIClient, **body: Any) -> TrainingRun:
    row = actions.JOBS.claim(post(client, **body).json()["id"], NOON)
    assert row is not None
    return row


def fresh(row: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.get(pk=row.pk)


def answered(evaluation: dict[str, Any]) -> Any:
    def tune(question: Question, told: Told) -> Answer:
        told.stage("tuning", 0.4)
        told.point({"steps": 464, "reward_mean": -0.1, "seconds": 3.0, "loss": None})
        told.point({"steps": 928, "reward_mean": 0.1, "seconds": 6.0, "loss": 0.02})
        told.stage("an older share", 0.2)
        assert StillPulse.last.progress == 0.4  # never goes back
        return Answer(FILE.weights, FILE.card, evaluation)

    return tune


def test_asking_queues_a_job_from_the_shipped_policy_and_says_where_it_is(operator: APIClient) -> None:
    answer = post(operator)
    document = answer.json()
    assert (answer.status_code, answer["Location"]) == (202, f"/api/v1/training/{document['id']}/")
    assert (document["status"], document["parent"]["label"], document["trigger"]) == ("queued", "helm v1", "person")
    assert document["options"] == {**DEFAULTS, "seed": document["options"]["seed"]}
    assert OutboxMessage.objects.filter(topic="policies.tune", payload__uid=document["id"]).count() == 1
    assert AuditEntry.objects.get(action="training.start").after["parent"] == "helm v1"
    assert operator.get(answer["Location"]).json() == document


def test_it_tunes_the_version_that_most_nodes_decide_by(operator: APIClient, make_node: Any) -> None:
    paper = PolicyVersion.objects.get(name="paper").digest
    for name, digest, controller in (("a", paper, "active"), ("b", paper, "active"), ("c", "", "active"), ("d", "ff" * 32, "advisory")):
        make_node(name)
        Node.objects.filter(name=name).update(policy_digest=digest, controller=controller)
    assert post(operator).json()["parent"]["label"] == "paper v1"


def test_another_version_is_tuned_when_it_is_named(operator: APIClient) -> None:
    paper = PolicyVersion.objects.get(name="paper").digest
    assert post(operator, parent=paper[:8]).json()["parent"]["digest"] == paper


def test_one_run_at_a_time(operator: APIClient) -> None:
    first = post(operator).json()["id"]
    answer = post(operator)
    assert (answer.status_code, answer.json()["code"], answer.json()["run"]) == (409, "training_open", first)


def test_the_database_itself_lets_one_run_be_open(operator: APIClient) -> None:
    row = claimed(operator)
    values = {"parent": row.parent, "options": row.options, "created_by": "olga", "created_at": NOON}
    for status in ("queued", "running"):
        with pytest.raises(IntegrityError), transaction.atomic():
            TrainingRun.objects.create(status=status, **values)
    for status in ("failed", "failed"):
        TrainingRun.objects.create(status=status, **values)


def test_a_run_draws_a_fresh_seed_unless_one_is_asked_for(operator: APIClient) -> None:
    seeds = []
    for asked in ({}, {"seed": None}, {"seed": 1}, {"seed": 0}, {}):
        run = post(operator, **asked).json()
        seeds.append(run["options"]["seed"])
        operator.delete(f"/api/v1/training/{run['id']}/")
    drawn = [seeds[place] for place in (0, 1, 4)]
    assert drawn == sorted(set(drawn))  # another each time; a database may leave numbers out
    assert seeds[2:4] == [1, 0]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": -1}, "/steps"),
        ({"steps": 10**9}, "/steps"),
        ({"steps": "many"}, "/steps"),
        ({"streams": 0}, "/streams"),
        ({"journals": 17}, "/journals"),
        ({"episode_seconds": 5}, "/episode_seconds"),
        ({"seed": -1}, "/seed"),
        ({"seed": 5_000}, "/seed"),
        ({"evaluation_seeds": 0}, "/evaluation_seeds"),
        ({"parent": "../x"}, "/parent"),
        ({"gpu": True}, "/gpu"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_by_name(operator: APIClient, body: dict[str, Any], field: str) -> None:
    answer = post(operator, **body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, field)
    assert TrainingRun.objects.count() == 0


@pytest.mark.parametrize(("who", "reads", "acts"), [("viewer", 200, 403), ("outsider", 403, 403), ("nobody", 401, 401)])
def test_viewers_watch_operators_train_and_others_get_nothing(people: Any, who: str, reads: int, acts: int) -> None:
    path = f"/api/v1/training/{post(people.client('operator')).json()['id']}/"
    client = people.client(who)
    for read in ("/api/v1/training/", path, "/api/v1/training/schedule/"):
        assert client.get(read).status_code == reads
    assert post(client).status_code == acts
    assert client.delete(path).status_code == acts
    assert client.put("/api/v1/training/schedule/", {"enabled": True, "cron": "0 3 * * *"}, format="json").status_code == acts
    assert TrainingRun.objects.get().status == "queued"


def test_what_comes_of_it_is_a_version_with_lineage_curve_and_verdict(operator: APIClient) -> None:
    row = claimed(operator)
    carry_out(row, answered(EVALUATION))
    done = operator.get(f"/api/v1/training/{row.uid}/").json()
    assert (done["status"], done["progress"], done["result"]["label"]) == ("succeeded", 1.0, "random v1")
    assert [point["steps"] for point in done["curve"]] == [464, 928]
    assert [point["steps"] for point in operator.get("/api/v1/training/").json()["results"][0]["curve"]] == [928]
    version = operator.get(f"/api/v1/policies/{done['result']['digest']}/").json()
    assert (version["state"], version["source"], version["parent"]["label"]) == ("usable", "tuned", "helm v1")
    assert version["evaluation"]["against"]["parent"]["mean"] == -0.03
    assert AuditEntry.objects.get(action="policy.tune").target == "random v1"
    assert Event.objects.get(kind="training_finished").detail["status"] == "succeeded"


def test_a_worse_one_is_kept_and_marked_rejected_with_the_reason(operator: APIClient) -> None:
    carry_out(claimed(operator), answered({**EVALUATION, "verdict": "rejected", "reason": "P99 +4.0% against its parent"}))
    version = PolicyVersion.objects.get(source="tuned")
    assert (version.state, version.state_reason) == ("rejected", "P99 +4.0% against its parent")


def test_bytes_that_are_here_already_are_no_failure_and_the_run_says_so(operator: APIClient) -> None:
    carry_out(claimed(operator), answered(EVALUATION))
    again = claimed(operator)
    carry_out(again, answered(EVALUATION))
    done = operator.get(f"/api/v1/training/{again.uid}/").json()
    assert (done["status"], done["error"], done["result"]["label"]) == ("succeeded", "", "random v1")
    assert (done["stage"], len(done["curve"])) == ("succeeded, the same as random v1", 2)
    assert Event.objects.filter(kind="training_finished").latest("id").text == "tuning of helm v1: succeeded, the same as random v1"
    assert PolicyVersion.objects.filter(source="tuned").count() == 1
    assert AuditEntry.objects.filter(action="policy.tune").count() == 1


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [(None, "cancelled", ""), (ValueError("journal 7.journal: 3 requests"), "failed", "ValueError: journal 7.journal: 3 requests")],
)
def test_a_run_that_is_cancelled_or_breaks_ends_and_leaves_no_version(operator: APIClient, outcome: Any, status: str, error: str) -> None:
    row = claimed(operator)

    def tune(question: Question, told: Told) -> None:
        if outcome is not None:
            raise outcome

    carry_out(row, tune)
    assert (fresh(row).status, fresh(row).error) == (status, error)
    assert not PolicyVersion.objects.filter(source="tuned").exists()


def test_a_result_that_a_node_would_refuse_is_a_failure(operator: APIClient) -> None:
    row = claimed(operator)
    carry_out(row, lambda question, told: Answer(FILE.weights[:-4], FILE.card, EVALUATION))
    assert fresh(row).status == "failed"
    assert "artefact" in fresh(row).error


def test_a_run_that_ended_meanwhile_keeps_no_version(operator: APIClient) -> None:
    row = claimed(operator)
    actions.finish(row.pk, "failed", NOON, error="The worker running this was lost.")
    carry_out(row, answered(EVALUATION))
    assert fresh(row).status == "failed"
    assert not PolicyVersion.objects.filter(source="tuned").exists()


def test_cancelling_is_at_once_while_queued_and_at_the_next_step_while_running(operator: APIClient) -> None:
    queued = post(operator).json()["id"]
    assert operator.delete(f"/api/v1/training/{queued}/").json()["status"] == "cancelled"
    row = claimed(operator)
    assert operator.delete(f"/api/v1/training/{row.uid}/").json()["status"] == "running"
    assert actions.heartbeat(row.pk, 0.1, None, "tuning", NOON, curve=[]) is False
    assert AuditEntry.objects.filter(action="training.cancel").count() == 2


def test_a_run_whose_worker_is_gone_fails(operator: APIClient) -> None:
    row = claimed(operator)
    assert actions.JOBS.reconcile(NOON + timedelta(seconds=21)) == 1
    assert fresh(row).error == "The worker running this was lost."


def test_the_newest_journals_are_learned_from(tmp_path: Path, settings: Any) -> None:
    settings.JOURNAL_DIR = tmp_path
    for age, name in enumerate(("node-0/3", "node-1/2", "node-0/1")):
        path = tmp_path / f"{name}.journal"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (1_000 - age, 1_000 - age))
    (tmp_path / "notes.txt").touch()
    assert [path.stem for path in newest_journals(2)] == ["3", "2"]
    (tmp_path / "node-1" / "2.p2.journal").touch()  # of a run in parts the last one stands for all
    (tmp_path / "node-1" / "2.p10.journal").touch()
    for age, name in enumerate(("2.p10", "2.p2")):
        os.utime(tmp_path / "node-1" / f"{name}.journal", (2_000 - age, 2_000 - age))
    assert [path.stem for path in newest_journals(4)] == ["2.p10", "3", "1"]
    assert newest_journals(0) == []
    settings.JOURNAL_DIR = tmp_path / "nowhere"
    assert newest_journals(4) == []


# --- by the clock


def plan(client: APIClient, **body: Any) -> Any:
    return client.put("/api/v1/training/schedule/", {"enabled": True, "cron": "30 2 * * 1", **body}, format="json")


def test_the_schedule_is_off_until_an_operator_writes_one_that_beat_reads(operator: APIClient) -> None:
    before = operator.get("/api/v1/training/schedule/").json()
    assert (before["enabled"], before["cron"], before["next_run_at"]) == (False, "0 3 * * *", None)
    after = plan(operator, options={"steps": 500}).json()
    assert after == operator.get("/api/v1/training/schedule/").json()
    assert (after["enabled"], after["cron"], after["options"]["steps"]) == (True, "30 2 * * 1", 500)
    assert datetime.fromisoformat(after["next_run_at"]).strftime("%A %H:%M") == "Monday 02:30"
    task = PeriodicTask.objects.get()
    assert (task.task, task.enabled, json.loads(task.kwargs)["options"]["steps"]) == ("policies.tune_on_schedule", True, 500)
    entry = AuditEntry.objects.get(action="training.schedule")
    assert (entry.before["enabled"], entry.after["cron"]) == (False, "30 2 * * 1")
    assert plan(operator, enabled=False).json()["next_run_at"] is None
    assert PeriodicTask.objects.get().enabled is False


@pytest.mark.parametrize("cron", ["", "at night", "0 3 * *", "61 3 * * *", "0 3 * * someday"])
def test_a_time_that_is_none_is_refused(operator: APIClient, cron: str) -> None:
    answer = plan(operator, cron=cron)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/cron")
    assert not PeriodicTask.objects.exists()


def test_options_of_a_schedule_are_checked_as_those_of_a_run(operator: APIClient) -> None:
    answer = plan(operator, options={"steps": -5})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/options/steps")


def test_the_clock_starts_a_run_as_the_system_and_leaves_it_out_while_one_is_open(operator: APIClient) -> None:
    tasks.tune_on_schedule({"parent": "", **DEFAULTS})
    run = TrainingRun.objects.get()
    assert (run.created_by, run.trigger, run.options["steps"]) == ("system", "schedule", 6000)
    tasks.tune_on_schedule({"parent": "", **DEFAULTS})
    assert TrainingRun.objects.count() == 1
    assert Event.objects.get(kind="training_left_out").detail == {"code": "training_open"}


def test_every_night_has_a_seed_of_its_own(operator: APIClient) -> None:
    options = plan(operator).json()["options"]
    assert options["seed"] is None
    for _ in range(2):
        tasks.tune_on_schedule(options)
        operator.delete(f"/api/v1/training/{TrainingRun.objects.latest('id').uid}/")
    first, second = TrainingRun.objects.order_by("id")
    assert first.options["seed"] != second.options["seed"]


def test_a_schedule_names_a_version_that_is_there_and_keeps_its_whole_digest(operator: APIClient) -> None:
    paper = PolicyVersion.objects.get(name="paper").digest
    assert plan(operator, options={"parent": paper[:8]}).json()["options"]["parent"] == paper
    refused = plan(operator, options={"parent": "ffffffff"})
    (error,) = refused.json()["errors"]
    assert (refused.status_code, error["pointer"], error["code"]) == (400, "/options/parent", "unknown_policy")
    assert json.loads(PeriodicTask.objects.get().kwargs)["options"]["parent"] == paper


@pytest.mark.parametrize(("parent", "code"), [("ff" * 32, "unknown_policy"), ("", "no_parent")])
def test_operators_see_that_a_scheduled_run_could_not_start(viewer: APIClient, parent: str, code: str) -> None:
    PolicyVersion.objects.filter(name="helm").delete()
    tasks.tune_on_schedule({**DEFAULTS, "parent": parent})
    event = viewer.get("/api/v1/events/?kind=training_left_out").json()["results"][0]
    assert (event["severity"], event["detail"]) == ("warning", {"code": code})
    assert event["text"].startswith("a scheduled training run was left out: ")
    assert not TrainingRun.objects.exists()
