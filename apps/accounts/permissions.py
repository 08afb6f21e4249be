"""DRF's gate: asks `policies` with the permission the view names."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.accounts.policies import actor_of, require
from apps.lib.permissions import Permission

if TYPE_CHECKING:
    from rest_framework.views import APIView


class MayRead(BasePermission):
    """Signed in, and holding the view's `required_permission` (default: reading the fleet).

    Verbs ask again for their own permission inside `actions`, whoever calls them.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """401 without a sign-in, 403 with its reason without the permission."""
        if not request.user or not request.user.is_authenticated:
            return False
        permission = getattr(view, "required_permission", Permission.FLEET_READ)
        if permission is not None:
            require(actor_of(request.user, request.auth), permission)
        return True
