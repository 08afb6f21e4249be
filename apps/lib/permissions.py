"""The table of who may what, as data. `apps.accounts.policies` is the only reader that answers for people."""

from enum import StrEnum


class Role(StrEnum):
    """What a person is in a fleet. No role at all sees nothing."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Permission(StrEnum):
    """One word per verb."""

    FLEET_READ = "fleet.read"
    AUDIT_READ = "audit.read"
    NODE_OVERRIDE = "node.override"
    NODE_PIN = "node.pin"
    NODE_RELEASE = "node.release"
    NODE_RESIZE = "node.resize"
    NODE_ENROL = "node.enrol"
    ROUTE_FORCE = "route.force"
    WHATIF_RUN = "whatif.run"
    POLICY_MANAGE = "policy.manage"
    TOKEN_OWN = "token.own"  # noqa: S105 - a verb, not a secret
    TOKEN_ALL = "token.all"  # noqa: S105


_VIEWER = {Permission.FLEET_READ, Permission.AUDIT_READ, Permission.TOKEN_OWN}
_OPERATOR = _VIEWER | {
    Permission.NODE_OVERRIDE,
    Permission.NODE_PIN,
    Permission.NODE_RELEASE,
    Permission.NODE_RESIZE,
    Permission.ROUTE_FORCE,
    Permission.WHATIF_RUN,
    Permission.POLICY_MANAGE,
}

ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(_VIEWER),
    Role.OPERATOR: frozenset(_OPERATOR),
    Role.ADMIN: frozenset(Permission),
}


def granted(role: str) -> frozenset[Permission]:
    """Permissions of a role; an unknown or empty role has none."""
    return ROLE_PERMISSIONS[Role(role)] if role in set(Role) else frozenset()
