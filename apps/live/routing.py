"""WebSocket addresses."""

from channels.auth import AuthMiddlewareStack
from django.urls import path

from apps.live.console import ConsoleStream
from apps.live.link import AgentLink

websocket_urlpatterns = [
    path("agents/v1/link", AgentLink.as_asgi()),
    path("api/v1/stream", AuthMiddlewareStack(ConsoleStream.as_asgi())),
    path("api/v1/stream/", AuthMiddlewareStack(ConsoleStream.as_asgi())),
]
