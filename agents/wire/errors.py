"""Error codes that cross a wire. Clients match on the code, never on the prose."""

from enum import StrEnum


class ErrorCode(StrEnum):
    """One word per reason; the HTTP status it travels with is in `HTTP_STATUS`."""

    INVALID_REQUEST = "invalid_request"
    TOO_LARGE = "too_large"
    SLOW_CLIENT = "slow_client"
    UNKNOWN_MODEL = "unknown_model"
    UNAUTHENTICATED = "unauthenticated"
    QUEUE_FULL = "queue_full"
    DRAINING = "draining"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NO_READY_NODE = "no_ready_node"
    NODE_FAILED = "node_failed"
    STALE_GENERATION = "stale_generation"
    OUTSIDE_GUARD_RAILS = "outside_guard_rails"
    INTERNAL = "internal"


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.SLOW_CLIENT: 408,
    ErrorCode.UNKNOWN_MODEL: 404,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.QUEUE_FULL: 429,
    ErrorCode.DRAINING: 503,
    ErrorCode.DEADLINE_EXCEEDED: 503,
    ErrorCode.NO_READY_NODE: 503,
    ErrorCode.NODE_FAILED: 502,
    ErrorCode.STALE_GENERATION: 409,
    ErrorCode.OUTSIDE_GUARD_RAILS: 422,
    ErrorCode.INTERNAL: 500,
}


class WireError(Exception):
    """A refusal with its code, one sentence, and the field it is about (or `None`)."""

    def __init__(self, code: ErrorCode, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field

    @property
    def status(self) -> int:
        """HTTP status this refusal travels with."""
        return HTTP_STATUS[self.code]
