"""Serializers made from wire structs, so that no shape is written twice."""

import types
from enum import StrEnum
from typing import Any, Union, get_args, get_origin

import msgspec
from rest_framework import serializers

_made: dict[str, type[serializers.Serializer[Any]]] = {}  # the schema knows a shape by its class


def serializer_of(
    struct: type[msgspec.Struct], name: str, *, leave_out: frozenset[str] = frozenset(), **more: serializers.Field[Any, Any, Any, Any]
) -> type[serializers.Serializer[Any]]:
    """The serializer class with the struct's fields (and `more`), for documenting answers; one class per name."""
    if name in _made:
        return _made[name]
    fields: dict[str, Any] = {
        field.name: _field(field.type, f"{name}_{field.name}") for field in msgspec.structs.fields(struct) if field.name not in leave_out
    }
    _made[name] = type(name, (serializers.Serializer,), {"__doc__": struct.__doc__, **fields, **more})
    return _made[name]


def _field(kind: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        inner = next(item for item in arguments if item is not type(None))
        field = _field(inner, name)
        field.allow_null = True
        return field
    if origin is list:
        return serializers.ListField(child=_field(arguments[0], name))
    if origin is dict:
        return serializers.DictField(child=_field(arguments[1], name))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return serializer_of(kind, kind.__name__)()
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return serializers.ChoiceField(choices=[item.value for item in kind])
    plain: dict[Any, Any] = {
        str: serializers.CharField,
        int: serializers.IntegerField,
        float: serializers.FloatField,
        bool: serializers.BooleanField,
    }
    return plain[kind]()
