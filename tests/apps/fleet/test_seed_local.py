"""`manage.py seed_local`: once is enough, twice does no harm."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from rest_framework.test import APIClient

from apps.accounts.models import ApiToken, User
from apps.fleet.models import Node

pytestmark = pytest.mark.django_db


def seed(state_dir: Path, **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("seed_local", state_dir=state_dir, stdout=out, **options)
    return dict(json.loads(out.getvalue()))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def enrol(token: str, name: str) -> str:
    body = {"token": token, "name": name, "profile": "cpu-demo", "infer_url": "http://127.0.0.1:8790"}
    answer = APIClient().post("/api/v1/enrol/", body, format="json")
    assert answer.status_code == 201
    return str(answer.json()["credential"])


def test_the_first_admin_gets_a_password_once(tmp_path: Path) -> None:
    first, second = seed(tmp_path), seed(tmp_path)
    assert (first["username"], second["password"]) == ("admin", None)
    signed_in = Client().post("/api/v1/session/", {"username": "admin", "password": first["password"]}, content_type="application/json")
    assert (signed_in.status_code, signed_in.json()["role"]) == (200, "admin")
    assert User.objects.count() == 1


def test_the_command_lines_token_works_is_private_and_is_kept(tmp_path: Path) -> None:
    seed(tmp_path, url="http://127.0.0.1:8700")
    held = json.loads((tmp_path / "cli.json").read_text())
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {held['token']}")
    assert client.get("/api/v1/me/").json()["role"] == "admin"
    assert mode(tmp_path / "cli.json") == 0o600

    seed(tmp_path, url="http://127.0.0.1:9999")
    assert json.loads((tmp_path / "cli.json").read_text()) == {"url": "http://127.0.0.1:9999", "token": held["token"]}
    assert ApiToken.objects.count() == 1


def test_a_lost_or_spoilt_token_file_is_made_again(tmp_path: Path) -> None:
    seed(tmp_path)
    for spoil in ("", "{", '{"token": "helm_wrong"}', "[]"):
        (tmp_path / "cli.json").write_text(spoil)
        seed(tmp_path)
        assert json.loads((tmp_path / "cli.json").read_text())["token"].startswith("helm_")
    assert ApiToken.objects.count() == 5


def test_every_node_without_a_credential_gets_a_token_of_its_own(tmp_path: Path) -> None:
    tokens = seed(tmp_path, nodes="node-0,node-1")["enrol_tokens"]
    assert tokens == {"node-0": str(tmp_path / "enrol" / "node-0"), "node-1": str(tmp_path / "enrol" / "node-1")}
    assert mode(tmp_path / "enrol" / "node-0") == 0o600

    credential = enrol(Path(tokens["node-0"]).read_text(), "node-0")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "node-0").write_text(credential)

    assert set(seed(tmp_path, nodes="node-0,node-1")["enrol_tokens"]) == {"node-1"}


def test_a_node_that_lost_its_credential_enrols_again_under_its_name(tmp_path: Path) -> None:
    enrol(Path(seed(tmp_path, nodes="node-0")["enrol_tokens"]["node-0"]).read_text(), "node-0")
    again = seed(tmp_path, nodes="node-0")["enrol_tokens"]["node-0"]
    enrol(Path(again).read_text(), "node-0")
    assert Node.objects.count() == 1


def test_a_name_that_is_no_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Node 0"):
        seed(tmp_path, nodes="Node 0")
    assert not (tmp_path / "enrol").exists()
