"""Verbs about people and tokens."""

from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import transaction
from django.utils import timezone

from apps.accounts.models import ApiToken, User
from apps.accounts.policies import require
from apps.audit.actions import Actor, record
from apps.lib.permissions import Permission, Role
from apps.lib.problems import Missing
from apps.lib.secrets import mint

TOKEN_PREFIX = "helm_"  # noqa: S105 - lets secret scanners find a leaked token


class NewToken(NamedTuple):
    """A token and its secret, which is never seen again."""

    token: ApiToken
    secret: str


def create_token(actor: Actor, owner: User, name: str, ttl_seconds: int | None = None, now: datetime | None = None) -> NewToken:
    """Make a token that acts as its owner."""
    require(actor, Permission.TOKEN_OWN)
    now = now or timezone.now()
    minted = mint(TOKEN_PREFIX)
    expires_at = now + timedelta(seconds=ttl_seconds) if ttl_seconds else None
    with transaction.atomic():
        token = ApiToken.objects.create(owner=owner, name=name, digest=minted.digest, created_at=now, expires_at=expires_at)
        record(actor, "token.create", "token", str(token.pk), after={"name": name, "owner": owner.username}, now=now)
    return NewToken(token, minted.secret)


def revoke_token(actor: Actor, owner: User, pk: int, now: datetime | None = None) -> None:
    """End a token: one's own, or anybody's for an admin. Revoking twice is one revocation."""
    require(actor, Permission.TOKEN_OWN)
    now = now or timezone.now()
    rows = ApiToken.objects.filter(pk=pk)
    if actor.role != Role.ADMIN:
        rows = rows.filter(owner=owner)
    with transaction.atomic():
        token = rows.first()
        if token is None:
            raise Missing("unknown_token", "There is no such token.")
        if ApiToken.objects.filter(pk=pk, revoked_at__isnull=True).update(revoked_at=now):
            record(actor, "token.revoke", "token", str(pk), before={"name": token.name, "owner": token.owner.username}, now=now)
