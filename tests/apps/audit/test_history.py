"""History is append-only, filtered and paged."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from rest_framework.test import APIClient

from apps.audit.actions import SYSTEM, Actor, announce, record
from apps.audit.models import AppendOnlyError, AuditEntry, Event
from apps.audit.triggers import TABLE

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def entries(db: None) -> list[AuditEntry]:
    return [
        record(Actor("olga"), "node.pin", "node", "node-0", reason="hold it", before={"mode": "auto"}, after={"mode": "pin"}, now=NOON),
        record(SYSTEM, "node.expire", "node", "node-1", now=NOON + timedelta(minutes=1)),
        record(Actor("olga"), "node.release", "node", "node-0", now=NOON + timedelta(minutes=2)),
    ]


def test_an_entry_is_never_changed_or_deleted_by_code(entries: list[AuditEntry]) -> None:
    attempts = [
        lambda: entries[0].save(),
        lambda: entries[0].delete(),
        lambda: AuditEntry.objects.all().delete(),
        lambda: AuditEntry.objects.update(actor="nobody"),
    ]
    for attempt in attempts:
        with pytest.raises(AppendOnlyError):
            attempt()


@pytest.mark.parametrize("statement", [f"UPDATE {TABLE} SET actor = 'nobody'", f"DELETE FROM {TABLE}"])
def test_an_entry_is_never_changed_or_deleted_by_sql(entries: list[AuditEntry], statement: str) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.filter(actor="olga").count() == 2


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("", ["node.release", "node.expire", "node.pin"]),
        ("?actor=olga", ["node.release", "node.pin"]),
        ("?target=node-1", ["node.expire"]),
        ("?action=node.pin", ["node.pin"]),
        ("?start=2026-11-23T12:00:00Z&end=2026-11-23T12:02:00Z", ["node.expire", "node.pin"]),
        ("?actor=nobody", []),
    ],
)
def test_entries_are_filtered_newest_first(viewer: APIClient, entries: list[AuditEntry], query: str, actions: list[str]) -> None:
    results = viewer.get(f"/api/v1/audit/{query}").json()["results"]
    assert [item["action"] for item in results] == actions


def test_an_entry_tells_all(viewer: APIClient, entries: list[AuditEntry]) -> None:
    entry = viewer.get("/api/v1/audit/?action=node.pin").json()["results"][0]
    entry.pop("id")
    assert entry == {
        "at": "2026-11-23T12:00:00Z",
        "actor": "olga",
        "actor_kind": "user",
        "action": "node.pin",
        "target_kind": "node",
        "target": "node-0",
        "reason": "hold it",
        "before": {"mode": "auto"},
        "after": {"mode": "pin"},
        "request_id": "",
    }


def test_pages_are_followed_by_cursor_even_while_history_grows(viewer: APIClient, entries: list[AuditEntry]) -> None:
    first = viewer.get("/api/v1/audit/?page_size=2").json()
    record(SYSTEM, "node.late", "node", "node-9")
    second = viewer.get(first["next"]).json()
    assert [item["action"] for item in first["results"] + second["results"]] == ["node.release", "node.expire", "node.pin"]
    assert second["next"] is None


@pytest.mark.parametrize("query", ["?start=yesterday", "?end=2026-13-01", "?severity=loud"])
def test_a_filter_that_makes_no_sense_is_named(viewer: APIClient, db: None, query: str) -> None:
    answer = viewer.get(f"/api/v1/events/{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/" + query[1:].split("=")[0]


def test_events_have_a_severity_and_reach_the_outbox(viewer: APIClient) -> None:
    announce("node_offline", "node-0", "node-0 is offline", now=NOON)
    announce("something_new", "node-0", "x" * 400, now=NOON)

    results = viewer.get("/api/v1/events/?target=node-0").json()["results"]

    assert [(item["kind"], item["severity"]) for item in results] == [("something_new", "info"), ("node_offline", "critical")]
    assert len(results[0]["text"]) == 300
    assert viewer.get("/api/v1/events/?severity=critical").json()["results"][0]["id"] == results[1]["id"]


def test_everybody_who_may_read_the_fleet_may_read_the_log(people: Any, entries: list[AuditEntry]) -> None:
    assert [people.client(who).get("/api/v1/audit/").status_code for who in ("viewer", "outsider", "nobody")] == [200, 403, 401]
    assert Event.objects.count() == 0
