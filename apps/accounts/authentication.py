"""`Authorization: Bearer helm_...`."""

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from apps.accounts.models import ApiToken, User
from apps.lib.secrets import digest

# One write a minute is enough to answer "is this token still used?".
LAST_USED_RESOLUTION = timedelta(minutes=1)


def token_of(secret: str) -> ApiToken | None:
    """The living token with this secret, of a living user."""
    now = timezone.now()
    alive = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
    rows = ApiToken.objects.select_related("owner").filter(alive, digest=digest(secret), revoked_at__isnull=True, owner__is_active=True)
    token = rows.first()
    if token and (token.last_used_at is None or now - token.last_used_at > LAST_USED_RESOLUTION):
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


class BearerTokenAuthentication(BaseAuthentication):
    """API tokens of people."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """The token's owner, or nothing when no bearer token was sent."""
        parts = get_authorization_header(request).split()
        if not parts or parts[0].lower() != b"bearer":
            return None
        if len(parts) != 2:
            raise AuthenticationFailed("Send 'Authorization: Bearer <token>'.")
        token = token_of(parts[1].decode("latin-1"))
        if token is None:
            raise AuthenticationFailed("This token is unknown, expired or revoked.")
        return token.owner, token

    def authenticate_header(self, request: Request) -> str:
        """Makes a missing sign-in a 401 instead of a 403."""
        return 'Bearer realm="helm"'


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema describes the above."""

    target_class = BearerTokenAuthentication
    name = "bearerToken"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """OpenAPI words."""
        return {"type": "http", "scheme": "bearer"}
