"""What a console is told: the fleet's frame, the nodes' documents, events and jobs."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.utils import timezone

from apps.audit import queries as audit
from apps.audit.actions import Actor
from apps.fleet import queries as fleet
from apps.fleet.models import Node
from apps.telemetry import queries as telemetry
from apps.whatif import queries as whatif

NOBODY = Actor("", "anonymous", "")
EVENTS_IN_SNAPSHOT, JOBS_IN_SNAPSHOT = 50, 20


def snapshot(topics: set[str], actor: Actor) -> dict[str, Any]:
    """The present state of every topic asked for."""
    now, nodes = timezone.now(), list(fleet.nodes())
    makers = {
        "fleet": lambda: telemetry.fleet_document(fleet.default_cluster(), nodes, now),
        "nodes": lambda: [fleet.node_document(node, actor, now, whole=False) for node in nodes],
        "events": lambda: [audit.event_document(event) for event in audit.events()[:EVENTS_IN_SNAPSHOT]],
        "jobs": lambda: [whatif.document(row, whole=False) for row in whatif.runs()[:JOBS_IN_SNAPSHOT]],
    }
    return {topic: makers[topic]() for topic in sorted(topics)}


def node_states(nodes: Iterable[Node], now: datetime) -> dict[str, dict[str, Any]]:
    """Each node's document without what depends on who is looking."""
    documents = {}
    for node in nodes:
        document = fleet.node_document(node, NOBODY, now, whole=False)
        del document["allowed_actions"]
        documents[node.name] = document
    return documents


class Changes:
    """Remembers what was last told of each node, to tell only what changed."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def since_last(self, states: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Documents that differ from the last ones, apart from values that only count time."""
        changed = [document for name, document in states.items() if self._told.get(name) != _timeless(document)]
        self._told = {name: _timeless(document) for name, document in states.items()}
        return changed


def _timeless(document: dict[str, Any]) -> dict[str, Any]:
    spec = {key: value for key, value in document["spec"].items() if key != "ttl_remaining_seconds"}
    status = {key: value for key, value in document["status"].items() if key != "age_seconds"}
    return {"metadata": document["metadata"], "spec": spec, "status": status}
