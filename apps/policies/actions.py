"""Verbs about policy versions and who decides by which."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import transaction

from agents.wire.events import EventKind
from agents.wire.messages import ControllerMode
from apps.accounts.policies import require
from apps.audit.actions import Actor, announce, record
from apps.fleet import actions as fleet
from apps.fleet import queries as nodes
from apps.fleet.models import Node
from apps.lib.permissions import Permission
from apps.lib.problems import Conflict
from apps.policies import queries
from apps.policies.artefacts import checked
from apps.policies.models import Assignment, PolicyVersion
from apps.policies.registry import NewVersion, keep

State = PolicyVersion.State


class Wish(NamedTuple):
    """Who shall decide, how, and why. No digest: the node's own controller."""

    digest: str
    controller: ControllerMode
    reason: str


def import_version(actor: Actor, weights: bytes, card: bytes, now: datetime) -> PolicyVersion:
    """Keep an artefact from outside, as a candidate."""
    require(actor, Permission.POLICY_MANAGE)
    found = checked(weights, card)
    with transaction.atomic():
        row = keep(NewVersion(found, PolicyVersion.Source.IMPORTED, State.CANDIDATE, actor.name), now)
        record(actor, "policy.import", "policy", row.label, after=_summary(row), now=now)
        announce(EventKind.POLICY_ADDED, row.label, f"{actor.name} imported {row.label}", actor=actor.name, now=now)
    return row


def judge(actor: Actor, digest: str, state: str, reason: str, now: datetime) -> PolicyVersion:
    """Say by hand what a version is worth; one that decides somewhere cannot be rejected."""
    require(actor, Permission.POLICY_MANAGE)
    with transaction.atomic():
        row = queries.by_digest(digest)
        active = queries.deciding(row.digest) if state == State.REJECTED else []
        if active:
            raise Conflict("policy_active", f"{row.label} decides on {', '.join(active)}: set another one there first.")
        before = _summary(row)
        PolicyVersion.objects.filter(pk=row.pk).update(state=state, state_reason=reason)
        row = queries.by_digest(row.digest)
        record(actor, "policy.judge", "policy", row.label, reason=reason, before=before, after=_summary(row), now=now)
    return row


def set_policy(actor: Actor, names: Sequence[str] | None, wish: Wish, now: datetime) -> list[Assignment]:
    """Let nodes (`None`: all of them) decide by a version, all or none; each is told with its next command."""
    require(actor, Permission.POLICY_MANAGE)
    with transaction.atomic():
        digest = _digest_allowed(wish)
        return [_assign(actor, node, wish._replace(digest=digest), now) for node in _targets(names)]


def roll_back(actor: Actor, names: Sequence[str] | None, reason: str, now: datetime) -> list[Assignment]:
    """Bring back, on each of these nodes, what its newest assignment replaced, all or none; nodes without one are left alone."""
    require(actor, Permission.POLICY_MANAGE)
    with transaction.atomic():
        pairs = [(node, _newest(node)) for node in _targets(names)]
        undone = [_undo(actor, node, newest, reason, now) for node, newest in pairs if newest is not None]
        if not undone:
            raise Conflict("nothing_to_roll_back", "No policy was ever set on these nodes, or all of it is rolled back already.")
    return undone


def _digest_allowed(wish: Wish) -> str:
    if not wish.digest:
        return ""
    row = queries.by_digest(wish.digest)
    if row.state == State.REJECTED and wish.controller is ControllerMode.ACTIVE:
        raise Conflict("policy_rejected", f"{row.label} was rejected ({row.state_reason}): it may advise, or be judged anew first.")
    return row.digest


def _targets(names: Sequence[str] | None) -> list[Node]:
    if names is None:
        found = list(nodes.nodes())
        if not found:
            raise Conflict("no_nodes", "There are no nodes yet.")
        return found
    return [nodes.node_by_name(name) for name in dict.fromkeys(names)]


def _assign(actor: Actor, node: Node, wish: Wish, now: datetime) -> Assignment:
    row = Assignment.objects.create(
        node_name=node.name,
        digest=wish.digest,
        controller=wish.controller.value,
        before_digest=node.policy_digest,
        before_controller=node.controller,
        reason=wish.reason,
        actor=actor.name,
        at=now,
    )
    fleet.decide_by(actor, node, wish.digest, wish.controller, wish.reason, now)
    return row


def _newest(node: Node) -> Assignment | None:
    return Assignment.objects.filter(node_name=node.name, undone_at__isnull=True).order_by("-id").first()


def _undo(actor: Actor, node: Node, newest: Assignment, reason: str, now: datetime) -> Assignment:
    before = Wish(newest.before_digest, ControllerMode(newest.before_controller), reason)
    digest = _digest_allowed(before)  # it may have been rejected since
    Assignment.objects.filter(pk=newest.pk).update(undone_at=now)
    fleet.decide_by(actor, node, digest, before.controller, reason, now, verb="node.policy_back")
    newest.undone_at = now
    return newest


def _summary(row: PolicyVersion) -> dict[str, str]:
    return {"digest": row.digest, "label": row.label, "state": row.state}
