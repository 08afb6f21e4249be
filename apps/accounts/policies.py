"""The only place that answers "who may"."""

from typing import Any

from apps.audit.actions import Actor
from apps.lib.permissions import Permission, granted
from apps.lib.problems import Refused


def actor_of(user: Any, auth: Any = None) -> Actor:
    """The actor behind a request's user; `auth` is set when a token spoke for them."""
    if not user or not user.is_authenticated:
        return Actor("", "anonymous", "")
    return Actor(user.get_username(), "token" if auth is not None else "user", user.role if user.is_active else "")


def may(actor: Actor, permission: Permission) -> bool:
    """Whether this actor may do this. The system may do everything it starts itself."""
    return actor.kind == "system" or permission in granted(actor.role)


def require(actor: Actor, permission: Permission) -> None:
    """Raise a 403 unless the actor may."""
    if not may(actor, permission):
        raise Refused("forbidden", f"This needs the permission {permission.value}; your role is {actor.role or 'none'}.")


def permissions_of(actor: Actor) -> list[str]:
    """What the console may offer, sorted."""
    return sorted(permission.value for permission in Permission if may(actor, permission))
