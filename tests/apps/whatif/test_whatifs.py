"""What-ifs: asked sensibly, run to an end, ended whatever happens."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from rest_framework.test import APIClient

from agents.controller.registry import make_controller
from agents.wire.messages import GuardRails
from apps.audit.models import AuditEntry, Event
from apps.jobs.pulse import Cancelled, Pulse
from apps.outbox.models import OutboxMessage
from apps.whatif import actions, pieces, running, tasks
from apps.whatif.figure import figure
from apps.whatif.models import Piece, WhatIf
from apps.whatif.running import Outcome, carry_out
from apps.whatif.scenarios import METHODS, Question, Run, questions, runs, together

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BODY = {"workload": "steady", "static_ratios": [0.3, 0.7], "nodes": 2, "duration_seconds": 60, "seed": 3}
SERIES = {name: [0.0, 1.0] for name in ("at_seconds", "emb_ratio", "latency_ms_p99", "emb_hit_ratio", "kv_hit_ratio")}


class StillPulse:
    """A pulse that never beats: tests of the flow need no second thread."""

    def __init__(self, pk: int, heartbeat: Any) -> None:
        self.progress, self.stage, self.stop_wanted = 0.0, "", False
        StillPulse.last = self

    last: "StillPulse"

    def __enter__(self) -> "StillPulse":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


def post(client: APIClient, **change: Any) -> Any:
    return client.post("/api/v1/whatifs/", {**BODY, **change}, format="json")


def claimed(client: APIClient) -> WhatIf:
    row = actions.claim(post(client).json()["id"], NOON)
    assert row is not None
    return row


def fresh(row: WhatIf) -> WhatIf:
    return WhatIf.objects.get(pk=row.pk)


def test_asking_queues_a_job_and_says_where_it_is(operator: APIClient) -> None:
    answer = post(operator)
    assert answer.status_code == 202
    assert answer["Location"] == f"/api/v1/whatifs/{answer.json()['id']}/"
    assert operator.get(answer["Location"]).json() == answer.json()
    assert (answer.json()["status"], answer.json()["progress"], answer.json()["scenario"]["method"]) == ("queued", 0.0, "helm")
    assert OutboxMessage.objects.filter(topic="whatif.run", payload__uid=answer.json()["id"]).count() == 1
    assert AuditEntry.objects.get(action="whatif.start").actor == "olga"


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 403), ("nobody", 401)])
def test_others_may_not_ask_or_cancel(people: Any, who: str, status: int) -> None:
    uid = post(people.client("operator")).json()["id"]
    assert post(people.client(who)).status_code == status
    assert people.client(who).delete(f"/api/v1/whatifs/{uid}/").status_code == status
    assert WhatIf.objects.get().status == "queued"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"workload": "storm"}, "/workload"),
        ({"nodes": 0}, "/nodes"),
        ({"nodes": 65}, "/nodes"),
        ({"static_ratios": [0.3]}, "/static_ratios"),
        ({"static_ratios": [0.3, 1.5]}, "/static_ratios/1"),
        ({"static_ratios": "0.3"}, "/static_ratios"),
        ({"method": "magic"}, "/method"),
        ({"seed": -1}, "/seed"),
        ({"seeds": 11}, "/seeds"),
        ({"duration_seconds": 5}, "/duration_seconds"),
        ({"duration_seconds": 10**9}, "/duration_seconds"),
        ({"rate_per_second": 0}, "/rate_per_second"),
        ({"profile": "abacus"}, "/profile"),
        ({"router": "dice"}, "/router"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_by_name(operator: APIClient, change: dict[str, Any], field: str) -> None:
    answer = post(operator, **change)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, field)
    assert WhatIf.objects.count() == 0


def test_three_runs_on_the_same_stream(operator: APIClient) -> None:
    post(operator)
    assert runs(WhatIf.objects.get().scenario) == [
        Run("static-0.30", "static 0.30"),
        Run("static-0.70", "static 0.70"),
        Run("helm", "controller"),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_simulator_knows_every_method_that_may_be_asked(operator: APIClient, method: str) -> None:
    assert post(operator, method=method).status_code == 202
    assert runs(WhatIf.objects.get().scenario)[-1] == Run(method, "controller")
    assert make_controller(method, GuardRails()).name == method


def test_a_run_is_claimed_once(operator: APIClient) -> None:
    row = claimed(operator)
    assert actions.claim(str(row.uid), NOON) is None


Answer = Callable[[Question], Outcome]
BELIEVED: dict[str, Any] = {"measured": None, "outside": ["the simulator was never held against a live run on this machine"]}


def answer(question: Question) -> Outcome:
    """Figures that tell run and seed apart."""
    return Outcome({"latency_ms_p50": 10.0 * question.seed + len(question.run.label), "overloaded": question.seed == 4}, SERIES, BELIEVED)


def work(row: WhatIf, answered: Answer = answer, *, last_first: bool = False) -> None:
    """Free workers, until no piece is waiting: one after the other, oldest first or newest first."""

    def simulate(_: Any, question: Question, progress: Callable[[float], None], cancelled: Callable[[], bool]) -> Outcome:
        progress(0.5)
        return answered(question)

    while (waiting := Piece.objects.filter(whatif=row, status="queued").order_by("-pk" if last_first else "pk").first()) is not None:
        piece = pieces.claim(str(waiting.uid), NOON)
        assert piece is not None
        carry_out(piece, simulate)


@pytest.fixture
def begun(operator: APIClient, monkeypatch: pytest.MonkeyPatch) -> WhatIf:
    """A run whose first pieces wait for workers."""
    monkeypatch.setattr(running, "Pulse", StillPulse)
    post(operator, seeds=2)
    row = actions.claim(str(WhatIf.objects.get().uid), NOON)
    assert row is not None
    pieces.begin(row, NOON)
    return row


def test_a_run_is_spread_over_few_pieces_at_a_time(begun: WhatIf) -> None:
    assert begun.pieces.count() == 2
    assert OutboxMessage.objects.filter(topic="whatif.piece").count() == 2
    first = begun.pieces.order_by("index").first()
    assert first is not None
    piece = pieces.claim(str(first.uid), NOON)
    assert piece is not None
    pieces.finish(piece.pk, "succeeded", NOON, outcome=answer(questions(begun.scenario)[0])._asdict())
    assert sorted(begun.pieces.values_list("index", "status")) == [(0, "succeeded"), (1, "queued"), (2, "queued")]
    assert fresh(begun).progress == pytest.approx(1 / 6)


@pytest.mark.parametrize("last_first", [False, True])
def test_the_result_is_the_same_whoever_is_ready_first(begun: WhatIf, last_first: bool) -> None:
    work(begun, last_first=last_first)
    done = fresh(begun)
    assert (done.status, done.progress, done.eta_seconds, begun.pieces.count()) == ("succeeded", 1.0, None, 0)
    outcomes = [answer(question)._asdict() for question in questions(begun.scenario)]
    assert done.result == together(begun.scenario, outcomes)
    assert [run["label"] for run in done.result["runs"]] == ["static 0.30", "static 0.70", "controller"]
    assert done.result["runs"][0]["cell"] == {"latency_ms_p50": 46.0, "overloaded": True}
    assert [cell["latency_ms_p50"] for cell in done.result["runs"][0]["cells"]] == [41.0, 51.0]
    assert done.result["validation"] == BELIEVED
    assert Event.objects.get(kind="whatif_finished").detail == {"status": "succeeded"}


@pytest.mark.parametrize(
    ("raised", "status", "error"),
    [(ValueError("nodes: too many"), "failed", "ValueError: nodes: too many"), (Cancelled(), "cancelled", "")],
)
def test_a_run_ends_with_the_first_piece_that_breaks(begun: WhatIf, raised: Exception, status: str, error: str) -> None:
    def breaks(question: Question) -> Outcome:
        raise raised

    work(begun, breaks)
    assert (fresh(begun).status, fresh(begun).error) == (status, error)
    assert begun.pieces.count() == 0


def test_a_worker_that_is_told_to_leave_ends_its_run_first(begun: WhatIf) -> None:
    def leaves(question: Question) -> Outcome:
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        work(begun, leaves)
    assert fresh(begun).status == "failed"


def test_a_cancelled_run_ends_although_its_pieces_wait_for_a_worker(operator: APIClient, begun: WhatIf) -> None:
    operator.delete(f"/api/v1/whatifs/{begun.uid}/")
    assert pieces.wanted(begun.pk) is False
    pieces.reconcile(NOON)
    assert (fresh(begun).status, begun.pieces.count()) == ("cancelled", 0)


def test_a_running_piece_hears_that_its_run_is_to_end(operator: APIClient, begun: WhatIf) -> None:
    waiting = begun.pieces.first()
    assert waiting is not None
    piece = pieces.claim(str(waiting.uid), NOON)
    assert piece is not None
    assert pieces.heartbeat(piece.pk, 0.5, None, "static 0.30", NOON) is True
    assert fresh(begun).progress == pytest.approx(0.5 / 6)
    operator.delete(f"/api/v1/whatifs/{begun.uid}/")
    assert pieces.heartbeat(piece.pk, 0.6, None, "static 0.30", NOON) is False


def test_a_run_that_waits_for_a_worker_is_not_lost_and_one_that_lost_one_is(begun: WhatIf) -> None:
    assert pieces.reconcile(NOON + timedelta(seconds=50)) == 0
    waiting = begun.pieces.first()
    assert waiting is not None
    pieces.claim(str(waiting.uid), NOON)
    pieces.reconcile(NOON + timedelta(seconds=50))
    assert (fresh(begun).status, fresh(begun).error) == ("failed", "The worker running this was lost.")


def test_a_queued_run_is_cancelled_at_once_and_a_running_one_is_asked(operator: APIClient) -> None:
    queued = post(operator).json()["id"]
    assert operator.delete(f"/api/v1/whatifs/{queued}/").json()["status"] == "cancelled"
    row = claimed(operator)
    assert operator.delete(f"/api/v1/whatifs/{row.uid}/").json()["status"] == "running"
    assert actions.heartbeat(row.pk, 0.5, None, "static 0.30", NOON) is False
    assert AuditEntry.objects.filter(action="whatif.cancel").count() == 2


def test_a_finished_run_stays_as_it_is(operator: APIClient) -> None:
    row = claimed(operator)
    assert actions.finish(row.pk, "succeeded", NOON, result={"runs": []}) is True
    assert actions.finish(row.pk, "failed", NOON, error="too late") is False
    assert actions.heartbeat(row.pk, 0.1, None, "ghost", NOON) is False
    assert operator.delete(f"/api/v1/whatifs/{row.uid}/").json()["status"] == "succeeded"
    assert (fresh(row).status, fresh(row).progress) == ("succeeded", 1.0)


def test_a_run_whose_worker_is_gone_fails_and_a_living_one_does_not(operator: APIClient) -> None:
    lost, living = claimed(operator), claimed(operator)
    actions.heartbeat(living.pk, 0.5, 10.0, "static 0.30", NOON + timedelta(seconds=15))
    assert actions.reconcile(NOON + timedelta(seconds=19)) == 0
    assert actions.reconcile(NOON + timedelta(seconds=21)) == 1
    assert (fresh(lost).status, fresh(living).status) == ("failed", "running")


def test_a_queued_run_whose_message_was_lost_is_sent_again(operator: APIClient) -> None:
    uid = post(operator).json()["id"]
    created = WhatIf.objects.get().created_at
    for seconds, sent in ((59, 1), (61, 2), (100, 2), (122, 3)):
        actions.reconcile(created + timedelta(seconds=seconds))
        assert OutboxMessage.objects.filter(topic="whatif.run", payload__uid=uid).count() == sent
    assert WhatIf.objects.get().status == "queued"


def test_figures_are_plain_json_and_say_null_where_there_is_no_number() -> None:
    value = {"a": np.float64("nan"), "b": np.arange(2), "c": [float("inf"), 1], 3: (np.int64(4),)}
    assert tasks.finite(value) == {"a": None, "b": [0, 1], "c": [None, 1], "3": [4]}


def test_a_finished_run_is_a_figure_with_the_slo(operator: APIClient) -> None:
    row = claimed(operator)
    assert operator.get(f"/api/v1/whatifs/{row.uid}/figure/").status_code == 409
    parts = [
        {"label": label, "method": "m", "cell": {"slo_ms": 120.0}, "series": SERIES}
        for label in ("static 0.30", "static 0.70", "controller")
    ]
    actions.finish(row.pk, "succeeded", NOON, result={"runs": parts})

    answer = operator.get(f"/api/v1/whatifs/{row.uid}/figure/").json()

    assert answer == figure({"runs": parts})
    assert [trace["name"] for trace in answer["data"][:4]] == ["static 0.30"] * 4
    assert answer["layout"]["shapes"][0]["y0"] == 120.0
    assert len({trace["line"]["color"] for trace in answer["data"]}) == 3


@pytest.mark.parametrize("uid", ["nope", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_run_is_not_found(operator: APIClient, uid: str) -> None:
    for path in (f"{uid}/", f"{uid}/figure/"):
        answer = operator.get(f"/api/v1/whatifs/{path}")
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_a_pulse_beats_from_the_start_and_stops_with_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[tuple[float, str]] = []
    told = threading.Event()

    def heartbeat(pk: int, progress: float, eta: float | None, stage: str, now: datetime) -> bool:
        beats.append((progress, stage))
        told.set()
        return False

    monkeypatch.setattr(actions, "heartbeat", heartbeat)
    with Pulse(1, actions.heartbeat) as pulse:
        assert told.wait(10)
    assert beats == [(0.0, "starting")]
    assert pulse.stop_wanted is True
    assert pulse.eta_seconds is None
