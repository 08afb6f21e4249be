"""Problem details (RFC 9457): every refusal of the API, one shape, codes instead of prose.

Problem                      any refusal: status, code, detail, field errors
  Refused      403           who may not
  Missing      404           what is not there
  Conflict     409           what cannot be done in this state
  Stale        412           the caller looked at an older version
  VersionNeeded 428          the caller did not say which version it looked at
  Unprocessable 422          well formed, but against a rule of the cluster
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.http import HttpRequest, JsonResponse

from apps.lib.request_id import current_request_id

CONTENT_TYPE = "application/problem+json"

TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    412: "Stale version",
    413: "Too large",
    415: "Unsupported media type",
    422: "Against a rule",
    428: "Version needed",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}


class FieldError(NamedTuple):
    """What is wrong with one field; `pointer` is a JSON pointer into the request body."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """A refusal that travels as problem+json."""

    status = 400

    def __init__(self, code: str, detail: str, errors: list[FieldError] | None = None, **extensions: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.extensions = extensions


class Refused(Problem):
    """The caller may not."""

    status = 403


class Missing(Problem):
    """Nothing under that name."""

    status = 404


class Conflict(Problem):
    """Not possible in the present state."""

    status = 409


class Stale(Problem):
    """The caller's version is older than ours."""

    status = 412


class Unprocessable(Problem):
    """Well formed, but against a rule of the cluster."""

    status = 422


class VersionNeeded(Problem):
    """A write without If-Match."""

    status = 428


class TooMany(Problem):
    """Slow down; `retry_after_seconds` says for how long."""

    status = 429


def invalid(field: str, code: str, detail: str) -> Problem:
    """A 400 about one field of the body."""
    return Problem("invalid_request", f"{field}: {detail}", [FieldError(f"/{field}", code, detail)])


def body(status: int, code: str, detail: str, instance: str, errors: list[FieldError], extensions: Mapping[str, Any]) -> dict[str, Any]:
    """The document itself."""
    return {
        "type": f"urn:helm:problem:{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "errors": [error._asdict() for error in errors],
        "request_id": current_request_id(),
        **extensions,
    }


def as_http(request: HttpRequest, problem: Problem) -> JsonResponse:
    """A problem outside of the REST framework's views."""
    document = body(problem.status, problem.code, problem.detail, request.path, problem.errors, problem.extensions)
    return JsonResponse(document, status=problem.status, content_type=CONTENT_TYPE)
