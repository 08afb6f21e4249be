"""How a node gets its credential: a one-time token, made by an admin, spent once."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import F

from agents.profiles.profile import available_profiles
from agents.wire.events import EventKind
from apps.accounts.policies import require
from apps.audit.actions import Actor, announce, record
from apps.fleet import queries
from apps.fleet.models import EnrolmentToken, Node, NodeStatus
from apps.lib.permissions import Permission
from apps.lib.problems import Conflict, FieldError, Refused, invalid
from apps.lib.secrets import digest, mint

TOKEN_PREFIX, CREDENTIAL_PREFIX = "helm_enrol_", "helm_node_"
TTL_SECONDS_DEFAULT = 3600
TTL_SECONDS_MAX = 7 * 24 * 3600


class NewEnrolment(NamedTuple):
    """A token row and its secret, which is never seen again."""

    row: EnrolmentToken
    secret: str


class Enrolled(NamedTuple):
    """A node and its link credential, which is never seen again."""

    node: Node
    credential: str


def create_token(actor: Actor, node_name: str, ttl_seconds: int, now: datetime) -> NewEnrolment:
    """Make a one-time token; bound to a name it may also renew that node's credential."""
    require(actor, Permission.NODE_ENROL)
    minted = mint(TOKEN_PREFIX)
    with transaction.atomic():
        row = EnrolmentToken.objects.create(
            cluster=queries.default_cluster(),
            digest=minted.digest,
            node_name=node_name,
            created_by=actor.name,
            created_at=now,
            expires_at=now + timedelta(seconds=ttl_seconds),
        )
        record(actor, "enrolment.create", "enrolment", str(row.pk), after={"node_name": node_name, "ttl_seconds": ttl_seconds}, now=now)
    return NewEnrolment(row, minted.secret)


def enrol(secret: str, name: str, profile: str, infer_url: str, now: datetime) -> Enrolled:
    """Spend a token: the node is made (or its credential renewed) and gets its secret."""
    if profile not in available_profiles():
        raise invalid(
            "profile", "unknown_profile", f"Unknown profile {profile!r}; this control plane knows {', '.join(available_profiles())}."
        )
    with transaction.atomic():
        token = _spend(secret, name, now)
        if token.node_name and token.node_name != name:
            raise _refused("name", "token_for_another_node", "This token was made for another node's name.")
        minted = mint(CREDENTIAL_PREFIX)
        node = _renew_or_create(token, name, profile, infer_url, minted.digest, now)
        actor = Actor(f"enrolment by {token.created_by}", "system")
        record(actor, "node.enrol", "node", name, after={"profile": profile, "infer_url": infer_url}, now=now)
        announce(EventKind.NODE_ENROLLED, name, f"{name} enrolled with profile {profile}", now=now)
    return Enrolled(node, minted.secret)


def _spend(secret: str, name: str, now: datetime) -> EnrolmentToken:
    token = EnrolmentToken.objects.select_related("cluster").filter(digest=digest(secret)).first()
    if token is None:
        raise _refused("token", "token_unknown", "This enrolment token is unknown.")
    spent = EnrolmentToken.objects.filter(pk=token.pk, used_at__isnull=True, expires_at__gt=now).update(used_at=now, used_by=name)
    if not spent:
        used = EnrolmentToken.objects.filter(pk=token.pk, used_at__isnull=False).exists()
        if used:
            raise _refused("token", "token_used", "This enrolment token was used already.")
        raise _refused("token", "token_expired", "This enrolment token has expired.")
    return token


def _renew_or_create(token: EnrolmentToken, name: str, profile: str, infer_url: str, credential_digest: str, now: datetime) -> Node:
    node = Node.objects.filter(name=name).first()
    if node is None:
        node = Node.objects.create(
            cluster=token.cluster,
            name=name,
            profile=profile,
            infer_url=infer_url,
            credential_digest=credential_digest,
            created_at=now,
            enrolled_at=now,
        )
        NodeStatus.objects.create(node=node)
        return node
    if token.node_name != name:
        raise Conflict("name_taken", f"A node named {name!r} exists.", [FieldError("/name", "name_taken", "A node of this name exists.")])
    renewed: dict[str, Any] = {"infer_url": infer_url, "credential_digest": credential_digest, "enrolled_at": now}
    if profile != node.profile:  # a size that was asked of the old machine's pool says nothing about the new one's
        renewed |= {
            "profile": profile,
            "pool_bytes": None,
            "generation": F("generation") + 1,
            "resource_version": F("resource_version") + 1,
        }
    Node.objects.filter(pk=node.pk).update(**renewed)
    return node


def _refused(field: str, code: str, detail: str) -> Refused:
    return Refused(code, detail, [FieldError(f"/{field}", code, detail)])
