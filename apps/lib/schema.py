"""What every operation of the schema shares: how it refuses."""

from typing import Any

_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457). Match on `code` and `errors[].code`, never on the prose.",
    "required": ["type", "title", "status", "detail", "instance", "code", "errors", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
        "request_id": {"type": "string"},
        "current_etag": {"type": "string", "description": "With 412 and 428: the version to look at."},
    },
}
_FIELD_ERROR = {
    "type": "object",
    "description": "What is wrong with one field; `pointer` is a JSON pointer into the request body.",
    "required": ["pointer", "code", "detail"],
    "properties": {"pointer": {"type": "string"}, "code": {"type": "string"}, "detail": {"type": "string"}},
}


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Every operation may answer with a problem."""
    result["components"]["schemas"] |= {"Problem": _PROBLEM, "FieldError": _FIELD_ERROR}
    answer = {
        "description": "Refused; see `status`.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    _spell_null_in_3_1(result)
    for methods in result["paths"].values():
        for operation in methods.values():
            operation["responses"]["default"] = answer
    return result


def _spell_null_in_3_1(part: Any) -> None:
    """OpenAPI 3.1 has no `nullable`; pagination still writes it."""
    if isinstance(part, dict):
        if part.pop("nullable", False) and isinstance(part.get("type"), str):
            part["type"] = [part["type"], "null"]
        for item in part.values():
            _spell_null_in_3_1(item)
    elif isinstance(part, list):
        for item in part:
            _spell_null_in_3_1(item)
