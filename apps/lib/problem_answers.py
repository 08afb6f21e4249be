"""From the REST framework's exceptions to problems."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import set_rollback

from apps.lib.problems import CONTENT_TYPE, FieldError, Missing, Problem, Refused, body
from apps.lib.request_id import current_request_id

logger = logging.getLogger(__name__)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Every exception of a view becomes a problem; what nobody foresaw is logged and hidden."""
    set_rollback()
    request = context["request"]
    problem, headers = _translate(error)
    if problem.status == 500:
        logger.exception("request %s failed", current_request_id(), exc_info=error)
    extensions = dict(problem.extensions)
    if "retry_after_seconds" in extensions:
        headers["Retry-After"] = str(extensions["retry_after_seconds"])
    if "current_etag" in extensions:
        headers["ETag"] = extensions["current_etag"]
    document = body(problem.status, problem.code, problem.detail, request.path, problem.errors, extensions)
    response = Response(document, status=problem.status, headers=headers, content_type=CONTENT_TYPE)
    # The renderer would otherwise put its own media type first.
    response.exception = True
    return response


def _translate(error: Exception) -> tuple[Problem, dict[str, str]]:
    if isinstance(error, Problem):
        return error, {}
    if isinstance(error, Http404):
        return Missing("not_found", "Nothing lives at this address."), {}
    if isinstance(error, PermissionDenied):
        return Refused("forbidden", str(error) or "You may not do this."), {}
    if isinstance(error, exceptions.ValidationError):
        errors = list(_flatten(error.detail, ""))
        return Problem("invalid_request", "; ".join(_sentence(item) for item in errors), errors), {}
    if isinstance(error, exceptions.APIException):
        return _from_framework(error)
    return _with_status(Problem("internal", "Something failed on our side; the request id leads to the log."), 500), {}


def _from_framework(error: exceptions.APIException) -> tuple[Problem, dict[str, str]]:
    headers: dict[str, str] = {}
    wait = getattr(error, "wait", None)
    if wait:
        headers["Retry-After"] = str(int(wait) + 1)
    header = getattr(error, "auth_header", None)
    if header:
        headers["WWW-Authenticate"] = header
    code = error.get_codes()
    problem = Problem(code if isinstance(code, str) else error.default_code, str(error.detail))
    return _with_status(problem, error.status_code), headers


def _with_status(problem: Problem, status: int) -> Problem:
    problem.status = status
    return problem


def _flatten(detail: Any, pointer: str) -> Iterator[FieldError]:
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from _flatten(value, pointer if key == api_settings.NON_FIELD_ERRORS_KEY else f"{pointer}/{key}")
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            leaf = isinstance(value, exceptions.ErrorDetail)
            yield from _flatten(value, pointer if leaf else f"{pointer}/{index}")
    else:
        yield FieldError(pointer or "", getattr(detail, "code", "invalid"), str(detail))


def _sentence(error: FieldError) -> str:
    name = error.pointer.lstrip("/").replace("/", ".")
    return f"{name}: {error.detail}" if name else error.detail
