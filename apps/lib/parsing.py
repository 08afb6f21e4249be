"""Reading request bodies and finite numbers."""

import math
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ParseError
from rest_framework.parsers import JSONParser


class JsonObjectParser(JSONParser):
    """JSON bodies that are objects.

    NaN and Infinity are let through here and refused by the field that receives them, so that
    the answer can name the field.
    """

    strict = False

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        """The body as a dict, or a 400."""
        try:
            value = super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error
        if not isinstance(value, dict):
            raise ParseError("The body must be a JSON object.")
        return value


class FiniteFloatField(serializers.FloatField):
    """A JSON number that is neither NaN nor infinite. Booleans are not numbers."""

    default_error_messages = {"not_finite": "Must be a finite number."}

    def to_internal_value(self, data: Any) -> float:
        """The number, or a refusal."""
        if isinstance(data, bool):
            self.fail("invalid")
        if isinstance(data, float) and not math.isfinite(data):
            self.fail("not_finite")
        return float(super().to_internal_value(data))


class StrictIntegerField(serializers.IntegerField):
    """A JSON integer; booleans are not numbers and NaN is answered, not raised."""

    def to_internal_value(self, data: Any) -> int:
        """The integer, or a refusal."""
        if isinstance(data, bool) or (isinstance(data, float) and not math.isfinite(data)):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class StrictSerializer(serializers.Serializer[Any]):
    """A request body: unknown fields are refused by name, since a mistyped option must not be ignored."""

    def to_internal_value(self, data: Any) -> Any:
        """Validated fields; refuses what it does not know."""
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError(
                    {name: [ErrorDetail("This field is not known here.", code="unknown_field")] for name in unknown}
                )
        return super().to_internal_value(data)
