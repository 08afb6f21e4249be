"""Request ids: one per HTTP request, in the answer's header, in problems, in audit entries."""

import re
import uuid
from collections.abc import Callable
from contextvars import ContextVar, Token

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse

HEADER = "X-Request-ID"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # anything else could forge log lines
_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """Id of the request being answered, or an empty string outside of one."""
    return _current.get()


class RequestIdMiddleware:
    """Takes the caller's id when it is well formed, else makes one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer with the id in the header."""
        if iscoroutinefunction(self._get_response):
            return self._answer_async(request)  # type: ignore[return-value]
        request_id, token = self._begin(request)
        try:
            response = self._get_response(request)
        finally:
            _current.reset(token)
        response[HEADER] = request_id
        return response

    async def _answer_async(self, request: HttpRequest) -> HttpResponse:
        request_id, token = self._begin(request)
        try:
            response: HttpResponse = await self._get_response(request)  # type: ignore[misc]
        finally:
            _current.reset(token)
        response[HEADER] = request_id
        return response

    @staticmethod
    def _begin(request: HttpRequest) -> tuple[str, Token[str]]:
        given = request.headers.get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        return request_id, _current.set(request_id)
