"""The body of `PUT /v1/control`: bytes to a checked command, every refusal with the field it is about."""

import json
import re
from typing import Any

import msgspec

from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import ControlRequest, Mode

_DECODER = msgspec.json.Decoder(ControlRequest)
_AT_FIELD = re.compile(r"at `\$\.(\w+)`|(?:unknown|required) field `(\w+)`")


def decode_control(body: bytes) -> ControlRequest:
    """A command; what its numbers may be is the brain's business, what they are is checked here."""
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise WireError(ErrorCode.INVALID_REQUEST, str(error), _field_of(str(error))) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json(body, error) from error
    if request.mode is Mode.AUTO and (request.emb_ratio is not None or request.ttl_ms is not None):
        field = "emb_ratio" if request.emb_ratio is not None else "ttl_ms"
        raise WireError(ErrorCode.INVALID_REQUEST, f"{field} has no meaning with mode auto", field)
    return request


def _field_of(detail: str) -> str | None:
    """The member a decoder's message is about."""
    found = _AT_FIELD.search(detail)
    return None if found is None else found.group(1) or found.group(2)


def _not_json(body: bytes, error: Exception) -> WireError:
    """Not JSON; where it would be but for NaN or Infinity, which many encoders write, name the field."""
    broken: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> None:
        broken.extend(name for name, value in members if value is _NOT_FINITE)

    try:
        json.loads(body, parse_constant=lambda _: _NOT_FINITE, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        broken.clear()
    if broken:
        return WireError(ErrorCode.INVALID_REQUEST, f"{broken[0]} must be a finite number", broken[0])
    return WireError(ErrorCode.INVALID_REQUEST, f"body is not JSON: {error}")


_NOT_FINITE = object()
