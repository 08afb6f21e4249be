"""What every WebSocket shares: unknown addresses, origins, bearer tokens."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from channels.routing import URLRouter
from django.conf import settings
from django.urls.exceptions import Resolver404

Application = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def refuse_unknown_path(router: URLRouter) -> Application:
    """Close a socket to an unknown address instead of raising into the server's log."""

    async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        try:
            await router(scope, receive, send)
        except (Resolver404, ValueError) as error:
            if not isinstance(error, Resolver404) and "No route found" not in str(error):
                raise
            await receive()
            await send({"type": "websocket.close", "code": 4404})

    return application


def header(scope: dict[str, Any], name: str) -> str:
    """One header of the handshake, or an empty string."""
    wanted = name.lower().encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), "")


def bearer(scope: dict[str, Any]) -> str:
    """The token of `Authorization: Bearer`, or an empty string."""
    scheme, _, token = header(scope, "authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def same_origin(scope: dict[str, Any]) -> bool:
    """A browser's page may open a socket only to the host it came from; other clients send no Origin."""
    origin = header(scope, "origin")
    return not origin or urlsplit(origin).netloc == header(scope, "host") or origin in settings.CSRF_TRUSTED_ORIGINS
