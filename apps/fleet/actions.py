"""Verbs about nodes. Each: permission, lifecycle rule, row changed only from the state read, audit, outbox, event.

All in one transaction; what others hear of it leaves after commit.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import transaction

from agents.profiles.profile import Profile, load_profile
from agents.wire.events import EventKind
from agents.wire.messages import ControllerMode, Mode
from apps.accounts.policies import require
from apps.audit.actions import SYSTEM, Actor, announce, record
from apps.fleet import queries
from apps.fleet.lifecycle import MODE_AFTER, Verb, verdict
from apps.fleet.models import Cluster, Node
from apps.fleet.preview import Split, preview
from apps.lib.etags import check_match, etag, require_match
from apps.lib.problems import Conflict, FieldError, Unprocessable, invalid
from apps.lib.sizes import bytes_text
from apps.outbox.dispatch import enqueue_newest

TOPIC_COMMAND = "node.command"
# The node's own clock ends an override; ours only tidies up afterwards, so it waits a little longer.
EXPIRY_GRACE = timedelta(seconds=2)
_EVENT = {
    Verb.OVERRIDE: EventKind.OVERRIDE_REQUESTED,
    Verb.PIN: EventKind.PIN_REQUESTED,
    Verb.RELEASE: EventKind.RELEASE_REQUESTED,
    Verb.RESIZE: EventKind.POOL_REQUESTED,
}


class Wish(NamedTuple):
    """What somebody asks of a node."""

    verb: Verb
    reason: str
    emb_ratio: float | None = None
    ttl_seconds: int | None = None
    pool_bytes: int | None = None  # with a resize; None: all that the profile has


def take(actor: Actor, name: str, wish: Wish, if_match: str | None, now: datetime) -> Node:
    """Carry out a wish; returns the changed node."""
    require(actor, queries.VERB_PERMISSION[wish.verb])
    with transaction.atomic():
        node = queries.node_by_name(name)
        require_match(if_match, node.resource_version)
        return _change(actor, node, _judge(node, wish), now)


def price(actor: Actor, name: str, wish: Wish, if_match: str | None) -> dict[str, Any]:
    """What a wish would do; changes nothing and leaves no audit entry."""
    require(actor, queries.VERB_PERMISSION[wish.verb])
    node = queries.node_by_name(name)
    if if_match:
        check_match(if_match, node.resource_version)
    wish = _judge(node, wish)
    status = queries.status_of(node)
    frame = status.frame if status and status.frame else {}
    profile = load_profile(node.profile)
    pool_bytes = frame.get("pool_bytes") or node.pool_bytes or profile.pool_bytes
    before = Split(pool_bytes, frame.get("emb_ratio", profile.emb_ratio_start))
    after = _split_after(profile, before, wish, frame.get("recommended_emb_ratio"))
    return preview(profile, before, after, frame.get("landscape", []), frame.get("slo_ms"))


def expire_due(now: datetime) -> int:
    """Bring the desired state of ended overrides back to auto; returns how many."""
    due = Node.objects.filter(mode=Mode.OVERRIDE.value, expires_at__lt=now - EXPIRY_GRACE).values_list("name", flat=True)
    return sum(_expire(name, now) for name in list(due))


def leap_generation(node: Node, observed_generation: int, now: datetime) -> Node:
    """A node that has seen a later generation than ours (a restored database) would refuse us for ever: overtake it."""
    with transaction.atomic():
        before = queries.spec_summary(node)
        changed = Node.objects.filter(pk=node.pk, resource_version=node.resource_version).update(
            generation=observed_generation + 1, resource_version=node.resource_version + 1
        )
        node = queries.node_by_name(node.name)
        if changed:
            record(SYSTEM, "node.leap_generation", "node", node.name, before=before, after=queries.spec_summary(node), now=now)
            _send(node, now)
        return node


def decide_by(
    actor: Actor, node: Node, digest: str, controller: ControllerMode, reason: str, now: datetime, verb: str = "node.policy"
) -> Node:
    """Let a node decide by a policy version (an opaque digest; empty: by its own controller). Whose verb it is asks who may."""
    with transaction.atomic():
        before = queries.policy_summary(node)
        changed = Node.objects.filter(pk=node.pk, resource_version=node.resource_version).update(
            policy_digest=digest,
            controller=controller.value,
            generation=node.generation + 1,
            policy_generation=node.generation + 1,
            resource_version=node.resource_version + 1,
        )
        if not changed:
            raise Conflict("concurrent_write", f"Somebody else changed {node.name} at the same moment: try again.")
        node = queries.node_by_name(node.name)
        after = queries.policy_summary(node)
        record(actor, verb, "node", node.name, reason=reason, before=before, after=after, now=now)
        _send(node, now)
        what = f"policy {digest[:12]}, {controller.value}" if digest else f"its own controller, {controller.value}"
        announce(
            EventKind.POLICY_REQUESTED,
            node.name,
            f"{actor.name} let {node.name} decide by {what}",
            actor=actor.name,
            detail={"reason": reason, **after},
            now=now,
        )
        return node


def _split_after(profile: Profile, before: Split, wish: Wish, recommended_ratio: float | None) -> Split:
    if wish.verb is Verb.RESIZE:
        return before._replace(pool_bytes=wish.pool_bytes or profile.pool_bytes)
    if wish.emb_ratio is None:  # a release: the controller will choose; its latest recommendation is the best guess
        return before._replace(emb_ratio=recommended_ratio or before.emb_ratio)
    return before._replace(emb_ratio=wish.emb_ratio)


def _judge(node: Node, wish: Wish) -> Wish:
    """Refuse what the lifecycle or the limits forbid; returns the wish with the ratio that is meant."""
    rule = verdict(Mode(node.mode), wish.verb)
    if not rule.allowed:
        raise Conflict(rule.code, rule.reason, current_etag=etag(node.resource_version))
    if wish.verb is Verb.RELEASE:
        return wish
    if wish.verb is Verb.RESIZE:
        _check_pool(node, wish.pool_bytes)
        return wish
    emb_ratio = wish.emb_ratio if wish.emb_ratio is not None else queries.present_ratio(node)
    if emb_ratio is None:
        raise invalid("emb_ratio", "required", "The node has reported no ratio yet, so say which one.")
    _check_rails(node.cluster, emb_ratio)
    if wish.verb is Verb.OVERRIDE:
        _check_ttl(node.cluster, wish.ttl_seconds)
    return wish._replace(emb_ratio=emb_ratio)


def _check_rails(cluster: Cluster, emb_ratio: float) -> None:
    low, high = cluster.emb_ratio_min, cluster.emb_ratio_max
    if not low <= emb_ratio <= high:
        detail = f"{emb_ratio} is outside the guard rails {low} to {high}."
        raise Unprocessable("outside_guard_rails", f"emb_ratio: {detail}", [FieldError("/emb_ratio", "outside_guard_rails", detail)])


def _check_ttl(cluster: Cluster, ttl_seconds: int | None) -> None:
    low, high = cluster.override_ttl_seconds_min, cluster.override_ttl_seconds_max
    if ttl_seconds is None:
        raise invalid("ttl_seconds", "required", "An override always ends: say when.")
    if not low <= ttl_seconds <= high:
        raise invalid("ttl_seconds", "out_of_range", f"{ttl_seconds} s is outside {low} to {high} s.")


def _check_pool(node: Node, pool_bytes: int | None) -> None:
    """As the node itself does, which has the last word: its own profile file may have less than its kind."""
    if pool_bytes is None:
        return
    limits = queries.pool_limits_of(node)
    if limits is None:
        raise invalid("pool_bytes", "unknown_profile", f"This control plane does not know the profile {node.profile!r}.")
    if not limits.bytes_min <= pool_bytes <= limits.bytes_max:
        raise invalid("pool_bytes", "out_of_range", f"{pool_bytes} is outside {limits.bytes_min} to {limits.bytes_max}.")


def _columns(actor: Actor, wish: Wish, now: datetime) -> dict[str, Any]:
    """What a wish writes."""
    if wish.verb is Verb.RESIZE:
        return {"pool_bytes": wish.pool_bytes}
    return {
        "mode": MODE_AFTER[wish.verb].value,
        "emb_ratio": wish.emb_ratio,
        "reason": wish.reason,
        "actor": actor.name,
        "expires_at": now + timedelta(seconds=wish.ttl_seconds) if wish.verb is Verb.OVERRIDE and wish.ttl_seconds else None,
    }


def _change(actor: Actor, node: Node, wish: Wish, now: datetime) -> Node:
    before = queries.spec_summary(node)
    changed = Node.objects.filter(pk=node.pk, resource_version=node.resource_version).update(
        **_columns(actor, wish, now),
        generation=node.generation + 1,
        resource_version=node.resource_version + 1,
    )
    if not changed:
        raise Conflict("concurrent_write", "Somebody else changed this node at the same moment: read it again.")
    node = queries.node_by_name(node.name)
    after = queries.spec_summary(node)
    record(actor, f"node.{wish.verb.value}", "node", node.name, reason=wish.reason, before=before, after=after, now=now)
    _send(node, now)
    announce(_EVENT[wish.verb], node.name, _sentence(actor, node, wish), actor=actor.name, detail={"reason": wish.reason, **after}, now=now)
    return node


def _expire(name: str, now: datetime) -> bool:
    with transaction.atomic():
        node = queries.node_by_name(name)
        before = queries.spec_summary(node)
        changed = Node.objects.filter(pk=node.pk, resource_version=node.resource_version, mode=Mode.OVERRIDE.value).update(
            mode=Mode.AUTO.value,
            emb_ratio=None,
            reason="",
            actor=SYSTEM.name,
            expires_at=None,
            generation=node.generation + 1,
            resource_version=node.resource_version + 1,
        )
        if not changed:
            return False
        node = queries.node_by_name(name)
        record(
            SYSTEM,
            "node.expire",
            "node",
            name,
            reason="the override's time was up",
            before=before,
            after=queries.spec_summary(node),
            now=now,
        )
        _send(node, now)
        return True


def _send(node: Node, now: datetime) -> None:
    enqueue_newest(TOPIC_COMMAND, node.uid.hex, {"node_id": node.pk, "name": node.name, "generation": node.generation}, now)


def _sentence(actor: Actor, node: Node, wish: Wish) -> str:
    if wish.verb is Verb.RELEASE:
        return f"{actor.name} released {node.name}"
    if wish.verb is Verb.RESIZE:
        size = "its whole pool again" if node.pool_bytes is None else f"a pool of {bytes_text(node.pool_bytes)}"
        return f"{actor.name} gave {node.name} {size}"
    done = "overrode" if wish.verb is Verb.OVERRIDE else "pinned"
    return f"{actor.name} {done} {node.name} at {node.emb_ratio:.2f}"
