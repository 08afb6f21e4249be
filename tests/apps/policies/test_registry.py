"""The registry: what is in it from the start, what comes in and what is refused by name, who may."""

import base64
import pickle
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from rest_framework.test import APIClient

from agents.artifacts.shipped import shipped_policy
from apps.audit.models import AuditEntry, Event
from apps.policies import shipped
from apps.policies.models import PolicyVersion
from tests.apps.policies.files import body_of, tiny_file, with_card

FILE = tiny_file()


def bring(client: APIClient, body: dict[str, Any] | None = None, **headers: str) -> Any:
    return client.post("/api/v1/policies/", body or body_of(FILE), format="json", headers=headers)


def listed(client: APIClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/policies/{query}")
    assert answer.status_code == 200, answer.json()
    return list(answer.json()["results"])


def test_the_shipped_policies_are_there_from_the_start(viewer: APIClient) -> None:
    rows = {row["name"]: row for row in listed(viewer, "?source=shipped")}
    assert {name: (row["number"], row["state"], row["variant"]) for name, row in rows.items()} == {
        "helm": (1, "usable", "helm"),
        "paper": (1, "usable", "paper"),
    }
    assert all(set(row["evaluation"]["against"]) == {"b5", "b7"} for row in rows.values())  # as their cards say
    file = shipped_policy("helm")
    assert file is not None
    got = viewer.get(f"/api/v1/policies/{rows['helm']['digest']}/artefact/").json()
    assert (got["digest"], base64.b64decode(got["weights"]), got["card"].encode()) == (file.digest, file.weights, file.card)


def test_registering_the_shipped_ones_again_adds_nothing(db: None) -> None:
    assert shipped.register_shipped() == 0


def test_an_import_is_a_candidate_with_its_own_number_and_its_card(operator: APIClient) -> None:
    answer = bring(operator)
    document = answer.json()
    assert (answer.status_code, answer["Location"]) == (201, f"/api/v1/policies/{FILE.digest}/")
    said = [document[name] for name in ("label", "state", "source", "created_by")]
    assert said == ["random v1", "candidate", "imported", "olga"]
    assert operator.get(answer["Location"]).json()["card"]["hidden"] == [8, 8]
    assert bring(operator, body_of(tiny_file(1))).json()["label"] == "random v2"
    assert AuditEntry.objects.filter(action="policy.import").last().target == "random v2"
    assert Event.objects.filter(kind="policy_added").count() == 2


def test_lists_have_no_cards_and_can_be_filtered(operator: APIClient) -> None:
    bring(operator)
    assert [row["name"] for row in listed(operator)] == ["random", "paper", "helm"]
    assert listed(operator)[0]["card"] is None
    assert [row["name"] for row in listed(operator, "?state=candidate")] == ["random"]
    assert [row["name"] for row in listed(operator, "?variant=paper")] == ["paper"]
    assert operator.get("/api/v1/policies/?state=shiny").status_code == 400


def _pickled(file: Any) -> dict[str, Any]:
    return body_of(file, weights=base64.b64encode(pickle.dumps({"layer0.weight": [1.0]})).decode())


def _with_nan() -> dict[str, Any]:
    arrays = safetensors.numpy.load(FILE.weights)
    arrays["layer1.bias"] = np.full_like(arrays["layer1.bias"], np.nan)
    return body_of(FILE, weights=base64.b64encode(safetensors.numpy.save(arrays)).decode())


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (body_of(FILE, weights=base64.b64encode(FILE.weights[:200]).decode()), "artefact_truncated", "/weights"),
        (_pickled(FILE), "artefact_not_safetensors", "/weights"),
        (_with_nan(), "artefact_digest_mismatch", "/weights"),
        (with_card(FILE, format_version=99), "artefact_too_new", "/card"),
        (with_card(FILE, hidden=[9, 9]), "artefact_digest_mismatch", "/weights"),
        (with_card(FILE, scale=[0.0] * 20), "artefact_card_invalid", "/card"),
        (body_of(FILE, card="{}"), "artefact_card_invalid", "/card"),
        (body_of(tiny_file(features=["a", "b"])), "artefact_features_unknown", "/card"),
        (body_of(tiny_file(name="sly\n")), "artefact_card_invalid", "/card"),
    ],
)
def test_a_bad_artefact_is_refused_by_name_and_nothing_is_kept(operator: APIClient, body: dict[str, Any], code: str, field: str) -> None:
    answer = bring(operator, body)
    assert (answer.status_code, answer.json()["code"], answer.json()["errors"][0]["pointer"]) == (422, code, field)
    assert PolicyVersion.objects.filter(source="imported").count() == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [({"weights": "no base64!"}, "/weights"), ({"card": 7.5, "weights": None}, "/weights"), ({"pickle": "x"}, "/pickle")],
)
def test_a_body_that_is_none_is_refused_by_its_field(operator: APIClient, change: dict[str, Any], field: str) -> None:
    answer = bring(operator, body_of(FILE, **change))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, field)


def test_the_same_bytes_come_in_once(operator: APIClient) -> None:
    bring(operator)
    answer = bring(operator)
    assert (answer.status_code, answer.json()["code"]) == (409, "policy_known")
    first = bring(operator, body_of(tiny_file(1)), **{"Idempotency-Key": "k"})
    again = bring(operator, body_of(tiny_file(1)), **{"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (201, first.json())


def test_a_few_digits_find_a_version_if_they_mean_one(operator: APIClient) -> None:
    bring(operator)
    assert operator.get(f"/api/v1/policies/{FILE.digest[:8]}/").json()["digest"] == FILE.digest
    PolicyVersion.objects.filter(name="random").update(digest="ab" * 32)
    PolicyVersion.objects.filter(name="paper").update(digest="ab" * 31 + "cd")
    assert operator.get("/api/v1/policies/ababab/").json()["code"] == "ambiguous_digest"
    for unknown in ("ffffffff", "nope", "ab"):
        answer = operator.get(f"/api/v1/policies/{unknown}/")
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_a_version_is_judged_by_hand_with_a_reason(operator: APIClient) -> None:
    bring(operator)
    path = f"/api/v1/policies/{FILE.digest}/judge/"
    answer = operator.post(path, {"state": "rejected", "reason": "slow in bursts"}, format="json")
    assert (answer.json()["state"], answer.json()["state_reason"]) == ("rejected", "slow in bursts")
    entry = AuditEntry.objects.get(action="policy.judge")
    assert (entry.before["state"], entry.after["state"], entry.reason) == ("candidate", "rejected", "slow in bursts")
    assert operator.post(path, {"state": "candidate", "reason": "again"}, format="json").status_code == 400


@pytest.mark.parametrize(("who", "reads", "acts"), [("viewer", 200, 403), ("outsider", 403, 403), ("nobody", 401, 401)])
def test_viewers_read_operators_act_and_others_get_nothing(people: Any, who: str, reads: int, acts: int) -> None:
    bring(people.client("operator"))
    client, one = people.client(who), f"/api/v1/policies/{FILE.digest}/"
    for path in ("/api/v1/policies/", one, f"{one}artefact/", "/api/v1/policies/assignments/"):
        assert client.get(path).status_code == reads, path
    assert bring(client, body_of(tiny_file(1))).status_code == acts
    for path, body in (
        (f"{one}judge/", {"state": "rejected", "reason": "no"}),
        (f"{one}use/", {"all_nodes": True, "reason": "why not"}),
        ("/api/v1/policies/own/", {"all_nodes": True, "reason": "why not"}),
        ("/api/v1/policies/rollback/", {"all_nodes": True, "reason": "why not"}),
    ):
        assert client.post(path, body, format="json").status_code == acts, path
    assert PolicyVersion.objects.get(digest=FILE.digest).state == "candidate"
