"""The schema is true: every answer of the API has the shape it promises."""

from typing import Any

import jsonschema
import pytest
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from apps.audit.actions import SYSTEM, announce, record
from apps.fleet.queries import from_unix_ns
from apps.policies.models import PolicyVersion, TrainingRun
from apps.telemetry.frames import point_of
from apps.telemetry.models import Decision, Point
from apps.whatif.models import WhatIf
from tests.apps.frames import decision, telemetry

SCENARIO = {
    "workload": "steady",
    "nodes": 2,
    "static_ratios": [0.3, 0.7],
    "method": "b5",
    "seed": 1,
    "duration_seconds": 60,
    "rate_per_second": None,
    "profile": "cpu-demo",
    "router": "joint",
}
OVERRIDE = {"emb_ratio": 0.6, "ttl_seconds": 60, "reason": "a test"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return dict(SchemaGenerator().get_schema(request=None, public=True))


def conforms(schema: dict[str, Any], path: str, method: str, response: Any) -> None:
    answers = schema["paths"][f"/api/v1/{path}"][method]["responses"]
    answer = answers.get(str(response.status_code), answers["default"])
    media_type = response["Content-Type"].split(";")[0]
    part = {**answer["content"][media_type]["schema"], "components": schema["components"]}
    jsonschema.Draft202012Validator(part, format_checker=jsonschema.FormatChecker()).validate(response.json())


@pytest.fixture
def world(node: Any, make_node: Any) -> Any:
    import time

    import msgspec

    make_node("node-1", online=False)
    now = int(time.time())
    Point.objects.bulk_create([point_of(node.pk, now - 60 + offset, telemetry()) for offset in range(0, 50, 5)])
    Decision.objects.create(node=node, at=from_unix_ns(decision().at_unix_ns), seq=1, moved=True, record=msgspec.to_builtins(decision()))
    announce("node_offline", "node-1", "node-1 is offline")
    record(SYSTEM, "node.pin", "node", "node-0", after={"mode": "pin"})
    return node


@pytest.mark.parametrize(
    "path",
    [
        "me/",
        "clusters/",
        "fleet/",
        "fleet/series/",
        "nodes/",
        "nodes/{name}/",
        "nodes/{name}/series/",
        "nodes/{name}/decisions/",
        "events/",
        "audit/",
        "policies/",
        "policies/{digest}/",
        "policies/{digest}/artefact/",
        "policies/assignments/",
        "training/schedule/",
    ],
)
def test_reads_have_the_promised_shape(schema: dict[str, Any], viewer: APIClient, world: Any, path: str) -> None:
    digest = PolicyVersion.objects.values_list("digest", flat=True)[0]
    response = viewer.get("/api/v1/" + path.replace("{name}", "node-0").replace("{digest}", digest))
    assert response.status_code == 200
    conforms(schema, path, "get", response)


def test_the_shape_of_a_node_that_was_never_seen(schema: dict[str, Any], viewer: APIClient, world: Any) -> None:
    response = viewer.get("/api/v1/nodes/node-1/")
    assert response.json()["status"]["phase"] == "offline"
    conforms(schema, "nodes/{name}/", "get", response)


def test_verbs_and_their_price_have_the_promised_shape(schema: dict[str, Any], operator: APIClient, world: Any) -> None:
    priced = operator.post("/api/v1/nodes/node-0/override/?dry_run=true", OVERRIDE, format="json")
    done = operator.post("/api/v1/nodes/node-0/override/", OVERRIDE, format="json", headers={"If-Match": '"1"'})
    for response in (priced, done):
        assert response.status_code == 200
        conforms(schema, "nodes/{name}/override/", "post", response)
    size = {"pool_bytes": 32 << 20, "reason": "a test"}
    for query, headers in (("?dry_run=true", {}), ("", {"If-Match": '"2"'})):
        response = operator.post(f"/api/v1/nodes/node-0/resize/{query}", size, format="json", headers=headers)
        assert response.status_code == 200
        conforms(schema, "nodes/{name}/resize/", "post", response)


def test_refusals_have_the_promised_shape(schema: dict[str, Any], operator: APIClient, viewer: APIClient, world: Any) -> None:
    path = "/api/v1/nodes/node-0/override/"
    for client, body, headers in [(operator, OVERRIDE, {}), (operator, {}, {}), (viewer, OVERRIDE, {}), (APIClient(), OVERRIDE, {})]:
        response = client.post(path, body, format="json", headers=headers)
        assert response.status_code >= 400
        conforms(schema, "nodes/{name}/override/", "post", response)


def test_jobs_tokens_and_enrolments_have_the_promised_shape(schema: dict[str, Any], admin: APIClient, world: Any) -> None:
    conforms(schema, "whatifs/", "post", admin.post("/api/v1/whatifs/", {"workload": "steady", "static_ratios": [0.3, 0.7]}, format="json"))
    run = {
        "label": "static 0.30",
        "method": "static-0.30",
        "cell": {"latency_ms_p50": 9.0},
        "series": {"at_seconds": [0.0], "emb_ratio": [None]},
    }
    done = WhatIf.objects.get()
    WhatIf.objects.update(status="succeeded", result={"runs": [run]})
    conforms(schema, "whatifs/", "get", admin.get("/api/v1/whatifs/"))
    conforms(schema, "whatifs/{uid}/", "get", admin.get(f"/api/v1/whatifs/{done.uid}/"))
    conforms(schema, "tokens/", "post", admin.post("/api/v1/tokens/", {"name": "ci"}, format="json"))
    conforms(schema, "tokens/", "get", admin.get("/api/v1/tokens/"))
    made = admin.post("/api/v1/enrolments/", {}, format="json")
    conforms(schema, "enrolments/", "post", made)
    body = {"token": made.json()["token"], "name": "node-5", "profile": "cpu-demo", "infer_url": "http://10.0.0.5:8790"}
    conforms(schema, "enrol/", "post", APIClient().post("/api/v1/enrol/", body, format="json"))


def test_policies_and_training_have_the_promised_shape(schema: dict[str, Any], operator: APIClient, world: Any) -> None:
    digest = PolicyVersion.objects.get(name="helm").digest
    use = operator.post(f"/api/v1/policies/{digest}/use/", {"all_nodes": True, "reason": "a test"}, format="json")
    conforms(schema, "policies/{digest}/use/", "post", use)
    conforms(schema, "policies/assignments/", "get", operator.get("/api/v1/policies/assignments/"))
    change = {"mean": -0.03, "low": None, "high": None, "pairs": 1}
    cells = {"steady": {"candidate": {"latency_ms_p99": 9.0}}}
    told = {"verdict": "usable", "reason": "", "against": {"parent": change}, "cells": cells, "seeds": [7000], "seconds": 150.0}
    PolicyVersion.objects.filter(digest=digest).update(evaluation=told)
    for path in ("policies/", "policies/{digest}/"):
        conforms(schema, path, "get", operator.get(f"/api/v1/{path}".replace("{digest}", digest)))
    conforms(schema, "training/", "post", operator.post("/api/v1/training/", {}, format="json"))
    run = TrainingRun.objects.get()
    TrainingRun.objects.update(curve=[{"steps": 464, "reward_mean": 0.1, "seconds": 3.0, "loss": None}], result=run.parent)
    conforms(schema, "training/{uid}/", "get", operator.get(f"/api/v1/training/{run.uid}/"))
    conforms(schema, "training/", "get", operator.get("/api/v1/training/"))
    plan = operator.put("/api/v1/training/schedule/", {"enabled": True, "cron": "0 3 * * *"}, format="json")
    conforms(schema, "training/schedule/", "put", plan)


def test_the_schema_is_served_without_signing_in_and_says_3_1(db: None) -> None:
    response = APIClient().get("/api/v1/schema/", headers={"Accept": "application/json"})
    assert response.status_code == 200
    assert response.json()["openapi"].startswith("3.1")


def test_operation_ids_are_stable(schema: dict[str, Any]) -> None:
    ids = sorted(operation["operationId"] for methods in schema["paths"].values() for operation in methods.values())
    assert ids == [
        "audit_list",
        "clusters_list",
        "enrol",
        "enrolments_create",
        "events_list",
        "fleet_retrieve",
        "fleet_series",
        "me_retrieve",
        "nodes_decisions",
        "nodes_list",
        "nodes_override",
        "nodes_pin",
        "nodes_release",
        "nodes_resize",
        "nodes_retrieve",
        "nodes_series",
        "policies_artefact",
        "policies_assignments",
        "policies_import",
        "policies_judge",
        "policies_list",
        "policies_own",
        "policies_retrieve",
        "policies_roll_back",
        "policies_use",
        "routing_pick",
        "routing_picks",
        "routing_retrieve",
        "routing_tickets_create",
        "session_create",
        "session_delete",
        "tokens_create",
        "tokens_delete",
        "tokens_list",
        "training_cancel",
        "training_create",
        "training_list",
        "training_retrieve",
        "training_schedule",
        "training_schedule_write",
        "whatifs_cancel",
        "whatifs_create",
        "whatifs_figure",
        "whatifs_list",
        "whatifs_retrieve",
    ]


def test_the_schema_is_made_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    from django.core.management import call_command

    call_command("spectacular", "--fail-on-warn", "--validate", "--file", "/dev/null")
