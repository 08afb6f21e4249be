"""The listening socket of an application: header limits, idle connections, refusals of what is not even HTTP."""

import asyncio
import logging
import socket

import msgspec
from aiohttp import web

IDLE_SECONDS_MAX = 60.0  # between requests, and for the whole header of the next one
HEADER_BYTES_MAX = 8_190
HEADERS_MAX = 64
BACKLOG = 256  # connections that arrive while one batch is booked

_NO_ACCESS_LOG = logging.getLogger(f"{__name__}.access")
_NO_ACCESS_LOG.disabled = True


class ErrorObjectHandler(web.RequestHandler):
    """Connection handler whose own refusals (not even HTTP, header too long) are error objects too."""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what could not be parsed, and close."""
        response = web.Response(
            body=msgspec.json.encode({"error": message or "bad request"}), status=status, content_type="application/json"
        )
        response.force_close()
        return response


class Listener:
    """The listening socket of an application, with the limits of this module."""

    def __init__(self, app: web.Application, idle_seconds_max: float = IDLE_SECONDS_MAX) -> None:
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        self._idle_seconds_max = idle_seconds_max
        self._server: asyncio.Server | None = None

    async def open(self, bound: socket.socket) -> None:
        """Listen on a bound socket. `OSError` when somebody else began to listen there meanwhile."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._handler, sock=bound, backlog=BACKLOG)

    def _handler(self) -> ErrorObjectHandler:
        manager = self._runner.server
        if manager is None:
            raise RuntimeError("the listener is closed")
        return ErrorObjectHandler(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=_NO_ACCESS_LOG,
            keepalive_timeout=self._idle_seconds_max,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )

    async def close(self) -> None:
        """Stop listening, end open connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
