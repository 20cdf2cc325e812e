"""Frozen dataclasses as JSON objects and back, strictly: a row may hold anything.

Keys are the fields' names; a value of another type than the field's is refused, so that what
reaches a config.json has been looked at. Keys nobody knows are left out, missing ones have their
defaults: files of older and newer versions can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.oci.fields import JSON

T = TypeVar("T")
_HINTS: dict[type[object], dict[str, Any]] = {}


def encode(value: object, *, sparse: bool = False) -> JSON:
    """JSON-safe. `sparse` leaves out fields that have their defaults, in nested values too."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): encode(item, sparse=sparse) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item, sparse=sparse) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(getattr(value, field.name), sparse=sparse)
            for field in fields(value)
            if not sparse or getattr(value, field.name) != _default(field)
        }
    raise TypeError(f"no JSON for {type(value).__name__}")


def decode(cls: type[T], data: object) -> T:
    """Raises ValueError naming the field, TypeError where one without a default is missing."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{cls.__name__} is no object")
    return cls(
        **{
            name: _value(hint, data[name], name)
            for name, hint in _hints(cls).items()
            if name in data
        }
    )


def _hints(cls: type[object]) -> dict[str, Any]:
    """get_type_hints reads strings: half a millisecond a class."""
    found = _HINTS.get(cls)
    if found is None:
        found = _HINTS[cls] = get_type_hints(cls)
    return found


def _default(field: Field[Any]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _value(hint: Any, value: object, name: str) -> object:
    """`value` as the type `hint` says. A type is a value of the kind Any to mypy."""
    if hint in (bool, str, int):
        if type(value) is hint:
            return value
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint is NoneType:
        if value is None:
            return None
    elif isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else decode(hint, value)
    else:
        return _generic(hint, value, name)
    raise ValueError(f"{name} is not a {getattr(hint, '__name__', hint)}: {value!r}")


def _generic(hint: Any, value: object, name: str) -> object:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_value(inner[0], item, name) for item in value)
        if len(inner) == len(value):
            return tuple(_value(one, item, name) for one, item in zip(inner, value, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _value(inner[1], item, name) for key, item in value.items()}
    elif origin is Literal:
        if value in inner:
            return value
    elif origin in (Union, UnionType):
        for one in inner:
            try:
                return _value(one, value, name)
            except (ValueError, TypeError):
                continue
    elif hint is object:
        return value
    raise ValueError(f"{name} is not {hint}: {value!r}")
