"""Reading policy versions, and which nodes run which."""

import json
import re
from typing import Any, NamedTuple

from django.db.models import QuerySet

from agents.wire.messages import ControllerMode
from apps.fleet import queries as fleet
from apps.fleet.models import Node
from apps.lib.problems import Conflict, Missing
from apps.policies import artefacts
from apps.policies.models import Assignment, PolicyVersion

_DIGEST_START = re.compile(r"[0-9a-f]{6,64}")


class Use(NamedTuple):
    """Nodes by what they were told and by what they say they do."""

    wanted: dict[str, list[dict[str, str]]]  # digest -> [{node, controller}]
    in_force: dict[str, list[str]]  # digest -> nodes


def versions() -> QuerySet[PolicyVersion]:
    """All versions, newest first, without their weights."""
    return PolicyVersion.objects.select_related("parent").defer("weights", "parent__weights", "parent__card").order_by("-id")


def by_digest(digest: str) -> PolicyVersion:
    """One version by its digest, or by the first six or more digits of it if only one begins so; else a 404."""
    found = list(versions().filter(digest__startswith=digest)[:2]) if _DIGEST_START.fullmatch(digest) else []
    if not found:
        raise Missing("unknown_policy", "There is no such policy version.")
    if len(found) > 1:
        raise Conflict("ambiguous_digest", f"More than one version begins with {digest}: say more of it.")
    return found[0]


def use() -> Use:
    """What every node is told and does, by digest; nodes without a policy are in neither."""
    found = Use({}, {})
    for node in fleet.nodes():
        if node.policy_digest:
            found.wanted.setdefault(node.policy_digest, []).append({"node": node.name, "controller": node.controller})
        said = _said(node)
        if said:
            found.in_force.setdefault(said, []).append(node.name)
    return found


def deciding(digest: str) -> list[str]:
    """Nodes that decide by a version, not only advise: told to, or saying so."""
    return [node.name for node in fleet.nodes() if node.controller == ControllerMode.ACTIVE and digest in _decides_by(node)]


def _decides_by(node: Node) -> set[str]:
    """What a node was told and what it says. While it is away what it said last counts only if it was told nothing else."""
    status = fleet.status_of(node)
    away = status is None or not status.link_id
    return {node.policy_digest} if away and node.policy_digest else {node.policy_digest, _said(node)}


def _said(node: Node) -> str:
    """The digest in a node's last frame; empty without one."""
    status = fleet.status_of(node)
    return str((status.frame or {}).get("policy_digest", "")) if status else ""


def document(row: PolicyVersion, use: Use, *, whole: bool = True) -> dict[str, Any]:
    """A version as clients see it; `whole=False` leaves the card out."""
    return {
        "digest": row.digest,
        "name": row.name,
        "number": row.number,
        "label": row.label,
        "variant": row.variant,
        "source": row.source,
        "state": row.state,
        "state_reason": row.state_reason,
        "parent": None if row.parent is None else {"digest": row.parent.digest, "label": row.parent.label},
        "evaluation": row.evaluation,
        "created_by": row.created_by,
        "created_at": fleet.iso(row.created_at),
        "wanted_on": use.wanted.get(row.digest, []),
        "in_force_on": use.in_force.get(row.digest, []),
        "card": json.loads(row.card) if whole else None,
    }


def artefact(digest: str) -> dict[str, str]:
    """A version's bytes as they travel."""
    row = by_digest(digest)
    return {"digest": row.digest, "card": row.card, "weights": artefacts.encode(bytes(row.weights))}


def assignments() -> QuerySet[Assignment]:
    """Who was told what, newest first."""
    return Assignment.objects.order_by("-id")


def assignment_document(row: Assignment) -> dict[str, Any]:
    """One assignment as clients see it."""
    return {
        "id": row.pk,
        "node": row.node_name,
        "digest": row.digest,
        "controller": row.controller,
        "before_digest": row.before_digest,
        "before_controller": row.before_controller,
        "reason": row.reason,
        "actor": row.actor,
        "at": fleet.iso(row.at),
        "undone_at": fleet.iso(row.undone_at),
    }
