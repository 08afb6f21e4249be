"""`Authorization: Bearer helm_node_...`: a node's link credential, for the few things that nodes fetch over HTTP."""

from django.contrib.auth.models import AnonymousUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from apps.fleet import queries
from apps.fleet.enrolment import CREDENTIAL_PREFIX
from apps.fleet.models import Node
from apps.lib.secrets import digest


class NodeCredentialAuthentication(BaseAuthentication):
    """`request.auth` is the node; other tokens are somebody else's business."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Node] | None:
        """The node, nothing for another kind of token, or a refusal."""
        words = get_authorization_header(request).decode("latin-1").split()
        if len(words) != 2 or words[0].lower() != "bearer" or not words[1].startswith(CREDENTIAL_PREFIX):
            return None
        node = queries.node_by_credential(digest(words[1]))
        if node is None:
            raise AuthenticationFailed("No node has this credential.")
        return AnonymousUser(), node

    def authenticate_header(self, request: Request) -> str:
        """Makes a missing sign-in a 401 instead of a 403."""
        return 'Bearer realm="helm"'


class NodeCredentialScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema describes the above."""

    target_class = NodeCredentialAuthentication
    name = "nodeCredential"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """OpenAPI words."""
        return {"type": "http", "scheme": "bearer", "description": "A node's link credential."}
