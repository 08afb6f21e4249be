"""`/session/`, `/me/` and `/tokens/`."""

from typing import Any

from django.contrib.auth import login, logout
from django.middleware.csrf import CsrfViewMiddleware, get_token
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts import actions
from apps.accounts.models import ApiToken
from apps.accounts.policies import actor_of, permissions_of
from apps.accounts.signing_in import check_password
from apps.lib.pagination import SmallSet
from apps.lib.parsing import StrictIntegerField, StrictSerializer
from apps.lib.permissions import Permission, Role
from apps.lib.problems import Refused

TOKEN_TTL_SECONDS_MAX = 366 * 24 * 3600


class SignIn(StrictSerializer):
    """User name and password."""

    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=256, trim_whitespace=False)


class Me(serializers.Serializer[Any]):
    """Who is signed in, and what the console may offer."""

    username = serializers.CharField()
    role = serializers.CharField(allow_blank=True)
    permissions = serializers.ListField(child=serializers.CharField())


class Session(Me):
    """A session; `csrf_token` goes into `X-CSRFToken` on every write."""

    csrf_token = serializers.CharField()


class NewTokenRequest(StrictSerializer):
    """A name, and how long the token lives (never ending when absent)."""

    name = serializers.CharField(max_length=64)
    ttl_seconds = StrictIntegerField(required=False, allow_null=True, min_value=60, max_value=TOKEN_TTL_SECONDS_MAX)


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A token without its secret."""

    owner = serializers.CharField(source="owner.username", read_only=True)

    class Meta:
        model = ApiToken
        fields = ["id", "name", "owner", "created_at", "expires_at", "last_used_at", "revoked_at"]
        read_only_fields = fields


class NewTokenSerializer(TokenSerializer):
    """A token with its secret, shown once."""

    token = serializers.CharField()

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]
        read_only_fields = fields


def _me(request: Request) -> dict[str, Any]:
    actor = actor_of(request.user, request.auth)
    return {"username": actor.name, "role": actor.role, "permissions": permissions_of(actor)}


class SessionView(APIView):
    """Sign in and out with a cookie, for the console."""

    required_permission = None

    def get_permissions(self) -> list[Any]:
        """Anybody may try to sign in."""
        return [] if self.request.method == "POST" else super().get_permissions()

    def get_authenticators(self) -> list[Any]:
        """A stale cookie must not stop somebody from signing in again."""
        return [] if self.request is not None and self.request.method == "POST" else super().get_authenticators()

    @extend_schema(operation_id="session_create", request=SignIn, responses=Session, auth=[])
    def post(self, request: Request) -> Response:
        """Sign in."""
        _refuse_foreign_origin(request)
        serializer = SignIn(data=request.data)
        serializer.is_valid(raise_exception=True)
        user = check_password(request._request, **serializer.validated_data)
        login(request._request, user)
        request.user = user
        return Response({**_me(request), "csrf_token": get_token(request._request)})

    @extend_schema(operation_id="session_delete", responses={204: None})
    def delete(self, request: Request) -> Response:
        """Sign out."""
        logout(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _refuse_foreign_origin(request: Request) -> None:
    """A page of another site must not sign its visitor in. JSON bodies already keep plain forms out."""
    check = CsrfViewMiddleware(lambda _: None)  # type: ignore[arg-type, return-value]
    if "HTTP_ORIGIN" in request.META and not check._origin_verified(request._request):  # type: ignore[attr-defined]
        raise Refused("foreign_origin", "Sign in from the console's own address.")


class MeView(APIView):
    """The caller."""

    required_permission = None

    @extend_schema(operation_id="me_retrieve", responses=Me)
    def get(self, request: Request) -> Response:
        """User name, role and permissions."""
        get_token(request._request)
        return Response(_me(request))


class TokenList(generics.GenericAPIView[ApiToken]):
    """API tokens: one's own; all of them for an admin."""

    required_permission = Permission.TOKEN_OWN
    pagination_class = SmallSet
    serializer_class = TokenSerializer
    queryset = ApiToken.objects.none()

    @extend_schema(operation_id="tokens_list", responses=TokenSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Tokens, newest first."""
        rows = ApiToken.objects.select_related("owner").order_by("-id")
        if actor_of(request.user).role != Role.ADMIN:
            rows = rows.filter(owner=request.user)
        return self.get_paginated_response(TokenSerializer(self.paginate_queryset(rows), many=True).data)

    @extend_schema(operation_id="tokens_create", request=NewTokenRequest, responses={201: NewTokenSerializer})
    def post(self, request: Request) -> Response:
        """Make a token; its secret is in this answer and nowhere else."""
        serializer = NewTokenRequest(data=request.data)
        serializer.is_valid(raise_exception=True)
        actor = actor_of(request.user, request.auth)
        made = actions.create_token(actor, request.user, **serializer.validated_data)  # type: ignore[arg-type]
        body = {**TokenSerializer(made.token).data, "token": made.secret}
        return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})


class TokenDetail(APIView):
    """One token."""

    required_permission = Permission.TOKEN_OWN

    @extend_schema(operation_id="tokens_delete", responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Revoke it."""
        actions.revoke_token(actor_of(request.user, request.auth), request.user, pk)  # type: ignore[arg-type]
        return Response(status=status.HTTP_204_NO_CONTENT)
