"""Reading the fleet."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import QuerySet

from agents.node.desired import PoolLimits, pool_limits
from agents.profiles.profile import Profile, load_profile
from agents.wire.messages import ControllerMode, GuardRails, Mode, NodeSpec, Phase
from apps.accounts.policies import may
from apps.audit.actions import Actor
from apps.fleet import presence
from apps.fleet.lifecycle import Verb, verdict
from apps.fleet.models import Cluster, Node, NodeStatus
from apps.lib.permissions import Permission
from apps.lib.problems import FieldError, Missing

DEFAULT_CLUSTER = "local"
VERB_PERMISSION = {
    Verb.OVERRIDE: Permission.NODE_OVERRIDE,
    Verb.PIN: Permission.NODE_PIN,
    Verb.RELEASE: Permission.NODE_RELEASE,
    Verb.RESIZE: Permission.NODE_RESIZE,
}


def default_cluster() -> Cluster:
    """The cluster of this installation, made on first use."""
    return Cluster.objects.get_or_create(name=DEFAULT_CLUSTER)[0]


def nodes() -> QuerySet[Node]:
    """All nodes with what their documents need, by name."""
    return Node.objects.select_related("cluster", "status").order_by("name")


def node_by_name(name: str) -> Node:
    """One node, or a 404 naming the field."""
    node = nodes().filter(name=name).first()
    if node is None:
        raise Missing("unknown_node", f"There is no node named {name!r}.", [FieldError("/name", "unknown_node", "There is no such node.")])
    return node


def node_by_credential(digest: str) -> Node | None:
    """The node whose link credential has this SHA-256."""
    return nodes().filter(credential_digest=digest).first()


def guard_rails(cluster: Cluster) -> GuardRails:
    """A cluster's rails in the words of the wire."""
    return GuardRails(
        emb_ratio_min=cluster.emb_ratio_min,
        emb_ratio_max=cluster.emb_ratio_max,
        step_ratio_max=cluster.step_ratio_max,
        dead_band_ratio=cluster.dead_band_ratio,
        dwell_seconds_min=cluster.dwell_seconds_min,
    )


@cache
def shipped_profile(name: str) -> Profile | None:
    """A profile by name; `None` for one that this version does not ship, so that its nodes are still listed."""
    try:
        return load_profile(name)
    except ValueError:
        return None


def pool_limits_of(node: Node) -> PoolLimits | None:
    """Sizes that the node's pool may be given, by its kind of node."""
    profile = shipped_profile(node.profile)
    return None if profile is None else pool_limits(guard_rails(node.cluster), profile)


def wire_spec(node: Node, now: datetime) -> NodeSpec:
    """A node's desired state as a command carries it: the TTL left by our clock, not a date to compare with theirs."""
    mode, emb_ratio, ttl_remaining_ms = Mode(node.mode), node.emb_ratio, None
    if mode is Mode.OVERRIDE and node.expires_at is not None:
        ttl_remaining_ms = int((node.expires_at - now).total_seconds() * 1000)
        if ttl_remaining_ms <= 0:  # it ended before the node could hear of it
            mode, emb_ratio, ttl_remaining_ms = Mode.AUTO, None, None
    return NodeSpec(
        generation=node.generation,
        mode=mode,
        controller=ControllerMode(node.controller),
        emb_ratio=emb_ratio,
        reason=node.reason,
        actor=node.actor,
        ttl_remaining_ms=ttl_remaining_ms,
        guard_rails=guard_rails(node.cluster),
        policy_digest=node.policy_digest,
        policy_generation=node.policy_generation,
        pool_bytes=node.pool_bytes,
    )


def spec_summary(node: Node) -> dict[str, Any]:
    """The part of a spec that people change; what audit entries hold."""
    return {
        "mode": node.mode,
        "emb_ratio": node.emb_ratio,
        "reason": node.reason,
        "expires_at": iso(node.expires_at),
        "pool_bytes": node.pool_bytes,
        "generation": node.generation,
    }


def policy_summary(node: Node) -> dict[str, Any]:
    """Who decides on a node, and how; what audit entries about policies hold."""
    return {"policy_digest": node.policy_digest, "controller": node.controller, "generation": node.generation}


def status_of(node: Node) -> NodeStatus | None:
    """The status row, if the node ever had one."""
    try:
        return node.status
    except ObjectDoesNotExist:
        return None


def present_ratio(node: Node) -> float | None:
    """The share the node last reported."""
    status = status_of(node)
    return status.frame["emb_ratio"] if status and status.frame else None


def allowed_actions(node: Node, actor: Actor) -> list[dict[str, Any]]:
    """What this actor may do to this node now, with the reason where not."""
    answers = []
    for verb in Verb:
        rule = verdict(Mode(node.mode), verb)
        permitted = may(actor, VERB_PERMISSION[verb])
        reason = rule.reason if permitted else f"Needs the permission {VERB_PERMISSION[verb].value}."
        answers.append({"action": verb.value, "allowed": rule.allowed and permitted, "reason": reason})
    return answers


def node_document(node: Node, actor: Actor, now: datetime, *, whole: bool = True) -> dict[str, Any]:
    """A node as clients see it; `whole=False` leaves out what only the node's own page shows."""
    return {
        "metadata": {
            "name": node.name,
            "uid": str(node.uid),
            "cluster": node.cluster.name,
            "generation": node.generation,
            "resource_version": node.resource_version,
            "created_at": iso(node.created_at),
        },
        "spec": _spec_document(node, now),
        "status": _status_document(node, now, whole),
        "allowed_actions": allowed_actions(node, actor),
    }


def _spec_document(node: Node, now: datetime) -> dict[str, Any]:
    left = max(0.0, (node.expires_at - now).total_seconds()) if node.expires_at else None
    rails, limits = guard_rails(node.cluster), pool_limits_of(node)
    return {
        "mode": node.mode,
        "controller": node.controller,
        "emb_ratio": node.emb_ratio,
        "reason": node.reason,
        "actor": node.actor,
        "expires_at": iso(node.expires_at),
        "ttl_remaining_seconds": left,
        "guard_rails": {name: getattr(rails, name) for name in rails.__struct_fields__},
        "policy_digest": node.policy_digest,
        "pool_bytes": node.pool_bytes,
        "pool_bytes_min": limits.bytes_min if limits else None,
        "pool_bytes_max": limits.bytes_max if limits else None,
        "profile": node.profile,
        "infer_url": node.infer_url,
    }


def _status_document(node: Node, now: datetime, whole: bool) -> dict[str, Any]:
    status = status_of(node)
    frame = status.frame if status else None
    phase = presence.phase_of(
        bool(status and status.link_id), status.received_at if status else None, frame["phase"] if frame else None, now
    )
    return {
        "phase": phase.value,
        "mode": frame["mode"] if frame else None,
        "emb_ratio": frame["emb_ratio"] if frame else None,
        "target_emb_ratio": frame["target_emb_ratio"] if frame else None,
        "observed_generation": status.observed_generation if status else 0,
        "conditions": _conditions(node, status, phase, now),
        "telemetry": telemetry_document(frame, whole) if frame else None,
        "age_seconds": presence.age_seconds(status.received_at, now) if status else None,
        "rejected_frames_total": status.rejected_frames_total if status else 0,
    }


def telemetry_document(frame: dict[str, Any], whole: bool) -> dict[str, Any]:
    """A frame's gauges. Sketches are for merging, not for reading, and conditions have their own place."""
    gauges = {key: value for key, value in frame.items() if key not in {"type", "sketch", "conditions", "at_unix_ns", "landscape"}}
    gauges["at"] = iso(from_unix_ns(frame["at_unix_ns"]))
    gauges["landscape"] = frame.get("landscape", []) if whole else []
    return gauges


def _conditions(node: Node, status: NodeStatus | None, phase: Phase, now: datetime) -> list[dict[str, Any]]:
    ours = [_reachable(status, phase, now), _spec_applied(node, status, now)]
    theirs = [
        {
            "type": item["type"],
            # What a silent node said last is not known to be so any more.
            "status": item["status"] if phase is not Phase.OFFLINE else "Unknown",
            "reason": item["reason"],
            "message": item["message"],
            "last_transition_at": iso(from_unix_ns(item["last_transition_unix_ns"])),
            "observed_generation": item["observed_generation"],
        }
        for item in (status.frame["conditions"] if status and status.frame else [])
    ]
    return ours + theirs


def _condition(kind: str, status: str, reason: str, message: str, since: datetime | None, generation: int) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "last_transition_at": iso(since),
        "observed_generation": generation,
    }


def _reachable(status: NodeStatus | None, phase: Phase, now: datetime) -> dict[str, Any]:
    generation = status.observed_generation if status else 0
    if status is None or status.link_changed_at is None:
        return _condition("Reachable", "Unknown", "NeverSeen", "The node has not dialled in yet.", None, generation)
    if phase is not Phase.OFFLINE:
        return _condition("Reachable", "True", "LinkUp", "Frames arrive.", status.link_changed_at, generation)
    if status.link_id:
        return _condition("Reachable", "False", "NoFrames", "The link stands but no frame arrives.", status.received_at, generation)
    return _condition("Reachable", "False", "LinkDown", "The node's link is closed.", status.link_changed_at, generation)


def _spec_applied(node: Node, status: NodeStatus | None, now: datetime) -> dict[str, Any]:
    if status is None:
        return _condition("SpecApplied", "Unknown", "NeverSeen", "The node has not dialled in yet.", None, 0)
    seen = status.observed_generation
    if status.refusal and status.refusal["generation"] == node.generation:
        return _condition("SpecApplied", "False", "Refused", f"{status.refusal['code']}: {status.refusal['detail']}", None, seen)
    if seen >= node.generation:
        return _condition("SpecApplied", "True", "Observed", f"Generation {seen} is in force.", status.received_at, seen)
    return _condition("SpecApplied", "False", "Waiting", f"Generation {node.generation} is on its way, {seen} is in force.", None, seen)


def iso(at: datetime | None) -> str | None:
    """ISO 8601 in UTC with a Z."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def from_unix_ns(at_unix_ns: int) -> datetime:
    """A wire time as a date; microseconds are enough for people."""
    return datetime.fromtimestamp(at_unix_ns // 1000 / 1_000_000, UTC)
