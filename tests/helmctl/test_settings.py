"""The environment is read once, strictly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
READ = """
import json, sys
import helmctl.settings as s
print(json.dumps({n: getattr(s, n) for n in sys.argv[1:]}, default=str))
"""
OURS = {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE"}


def load(state_dir: Path, *names: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HELM_") and key not in OURS}
    return subprocess.run(
        [sys.executable, "-c", READ, *names],
        cwd=ROOT,
        env={**kept, "HELM_STATE_DIR": str(state_dir), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def read(state_dir: Path, *names: str, **environment: str) -> dict[str, Any]:
    done = load(state_dir, *names, **environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_one_machine_needs_nothing_but_a_folder(tmp_path: Path) -> None:
    values = read(tmp_path / "state with a space", "DATABASES", "ALLOWED_HOSTS", "SESSION_COOKIE_SECURE", "SECRET_KEY", "PUBLIC_URL")
    assert values["DATABASES"]["default"]["NAME"] == str(tmp_path / "state with a space" / "helm.sqlite3")
    assert values["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert (values["ALLOWED_HOSTS"], values["SESSION_COOKIE_SECURE"]) == (["127.0.0.1", "[::1]", "localhost"], False)
    assert values["PUBLIC_URL"] == "http://127.0.0.1:8700"
    assert len(values["SECRET_KEY"]) >= 50


def test_the_signing_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    first, second = (read(tmp_path, "SECRET_KEY")["SECRET_KEY"] for _ in range(2))
    assert first == second
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_secrets_may_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "key.txt"
    secret.write_text("from a file\n")
    assert read(tmp_path, "SECRET_KEY", HELM_SECRET_KEY_FILE=str(secret))["SECRET_KEY"] == "from a file"


def test_one_address_sets_hosts_origins_and_cookies(tmp_path: Path) -> None:
    names = ("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE")
    https = read(tmp_path, *names, HELM_PUBLIC_URL="https://helm.example:8443")
    assert https["ALLOWED_HOSTS"] == ["127.0.0.1", "[::1]", "helm.example", "localhost"]
    assert https["CSRF_TRUSTED_ORIGINS"] == ["https://helm.example:8443"]
    assert https["SESSION_COOKIE_SECURE"] is https["CSRF_COOKIE_SECURE"] is True
    http = read(tmp_path, *names, HELM_HOST="10.1.2.3")
    assert "10.1.2.3" in http["ALLOWED_HOSTS"]
    assert http["SESSION_COOKIE_SECURE"] is http["CSRF_COOKIE_SECURE"] is False
    assert read(tmp_path, *names, HELM_HOST="0.0.0.0")["ALLOWED_HOSTS"] == ["*"]


def test_postgres_and_redis_are_addresses(tmp_path: Path) -> None:
    values = read(
        tmp_path,
        "DATABASES",
        "CELERY_BROKER_URL",
        "CHANNEL_LAYERS",
        DATABASE_URL="postgres://helm:p%40ss@db:5433/fleet?sslmode=require",
        REDIS_URL="redis://:secret@cache:6380/2",
    )
    database = values["DATABASES"]["default"]
    assert (database["HOST"], database["PORT"], database["NAME"], database["USER"], database["PASSWORD"]) == (
        "db",
        "5433",
        "fleet",
        "helm",
        "p@ss",
    )
    assert database["OPTIONS"] == {"sslmode": "require"}
    assert values["CELERY_BROKER_URL"] == "redis://:secret@cache:6380/2"
    assert values["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"] == ["redis://:secret@cache:6380/2"]


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///tmp/r.sock", "redis+socket:///tmp/r.sock?virtual_host=0"),
        ("unix:///tmp/r.sock?db=3", "redis+socket:///tmp/r.sock?virtual_host=3"),
        ("unix://:secret@/tmp/r.sock", "redis+socket://:secret@/tmp/r.sock?virtual_host=0"),
    ],
)
def test_a_socket_is_spelt_as_celery_spells_it(tmp_path: Path, url: str, broker: str) -> None:
    assert read(tmp_path, "CELERY_BROKER_URL", REDIS_URL=url)["CELERY_BROKER_URL"] == broker


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://db/fleet"),
        ("REDIS_URL", "memcached://cache"),
        ("HELM_DEBUG", "maybe"),
        ("HELM_PUBLIC_URL", "helm.example"),
        ("HELM_SECRET_KEY_FILE", "/nonexistent"),
    ],
)
def test_a_value_that_makes_no_sense_stops_the_start_by_name(tmp_path: Path, name: str, value: str) -> None:
    done = load(tmp_path, "DEBUG", **{name: value})
    assert done.returncode != 0
    assert name in done.stderr.splitlines()[-1]
