"""Serializers made from wire structs, so that no shape is written twice."""

import types
from enum import StrEnum
from typing import Any, Union, get_args, get_origin

import msgspec
from rest_framework import serializers

_PLAIN: dict[Any, Any] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    float: serializers.FloatField,
    bool: serializers.BooleanField,
}
_made: dict[str, type[serializers.Serializer[Any]]] = {}  # the schema knows a shape by its class


def serializer_of(
    struct: type[msgspec.Struct], name: str, *, leave_out: frozenset[str] = frozenset(), **more: serializers.Field[Any, Any, Any, Any]
) -> type[serializers.Serializer[Any]]:
    """The serializer class with the struct's fields (and `more`), for documenting answers; one class per name."""
    if name in _made:
        return _made[name]
    fields: dict[str, Any] = {field.name: _field(field.type) for field in msgspec.structs.fields(struct) if field.name not in leave_out}
    _made[name] = type(name, (serializers.Serializer,), {"__doc__": struct.__doc__, **fields, **more})
    return _made[name]


def _field(kind: Any, **options: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        # Said to the constructor: serializers copy their fields by calling it again.
        return _field(next(item for item in arguments if item is not type(None)), allow_null=True)
    if origin is list:
        return serializers.ListField(child=_field(arguments[0]), **options)
    if origin is dict:
        return serializers.DictField(child=_field(arguments[1]), **options)
    if issubclass(kind, msgspec.Struct):
        return serializer_of(kind, kind.__name__)(**options)
    if issubclass(kind, StrEnum):
        return serializers.ChoiceField(choices=[item.value for item in kind], **options)
    return _PLAIN[kind](**options)
