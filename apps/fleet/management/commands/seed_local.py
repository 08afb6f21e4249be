"""`manage.py seed_local`: what one machine needs before its first start.

The first admin (its one-time password is printed once, as a JSON line), a token for the command
line in `cli.json`, and an enrolment token file for every node that has no credential yet.
Safe to run again: what exists is left alone.
"""

import json
import os
import secrets
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.accounts import actions as accounts
from apps.accounts.authentication import token_of
from apps.accounts.models import User
from apps.audit.actions import SYSTEM, Actor, record
from apps.fleet import enrolment
from apps.fleet.models import Node
from apps.fleet.queries import default_cluster
from apps.fleet.serializers import EnrolmentRequest
from apps.lib.permissions import Role
from apps.lib.secrets import digest

ADMIN = "admin"
ENROL_TTL = timedelta(days=1)


class Command(BaseCommand):
    """Seed one machine."""

    help = "Make the first admin, the command line's token and enrolment tokens for this machine's nodes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which nodes, and where files go."""
        parser.add_argument("--nodes", default="", help="names of this machine's nodes, separated by commas")
        parser.add_argument("--state-dir", type=Path, default=settings.STATE_DIR, help="where cli.json and enrol/ are written")
        parser.add_argument("--url", default=settings.PUBLIC_URL, help="address the command line uses")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints one JSON object."""
        state_dir: Path = options["state_dir"]
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        default_cluster()
        admin, password = _admin()
        _cli_token(admin, state_dir / "cli.json", options["url"])
        names = [name for name in options["nodes"].split(",") if name]
        tokens = {name: str(path) for name in names if (path := _enrolment_file(name, state_dir)) is not None}
        self.stdout.write(json.dumps({"username": admin.username, "password": password, "url": options["url"], "enrol_tokens": tokens}))


def _admin() -> tuple[User, str | None]:
    existing = User.objects.filter(role=Role.ADMIN.value, is_active=True).order_by("pk").first()
    if existing is not None:
        return existing, None
    password = secrets.token_urlsafe(12)
    admin = User.objects.create_user(ADMIN, password=password, role=Role.ADMIN.value)
    record(SYSTEM, "user.create", "user", ADMIN, reason="first start", after={"role": Role.ADMIN.value})
    return admin, password


def _cli_token(admin: User, path: Path, url: str) -> None:
    held = _read(path)
    if held.get("token") and token_of(str(held["token"])) is not None:
        if held.get("url") != url:
            write_private(path, json.dumps({"url": url, "token": held["token"]}))
        return
    made = accounts.create_token(Actor(admin.username, "system", admin.role), admin, "helmctl on this machine")
    write_private(path, json.dumps({"url": url, "token": made.secret}))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _enrolment_file(name: str, state_dir: Path) -> Path | None:
    """Where the node's token lies, or `None` when its credential is good."""
    check = EnrolmentRequest(data={"node_name": name})
    if not check.is_valid():
        raise CommandError(f"--nodes: {name!r} is no node name (lower case letters, digits, dots and dashes)")
    credential = state_dir / "credentials" / name
    if credential.is_file() and Node.objects.filter(name=name, credential_digest=digest(credential.read_text("utf-8").strip())).exists():
        return None
    path = state_dir / "enrol" / name
    made = enrolment.create_token(SYSTEM, name, int(ENROL_TTL.total_seconds()), timezone.now())
    write_private(path, made.secret)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
