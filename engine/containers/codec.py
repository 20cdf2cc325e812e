"""Frozen dataclasses as JSON objects and back, strictly: a row may hold anything.

Keys are the fields' names; a value of another type than the field's is refused, so that what
reaches a config.json has been looked at. Keys nobody knows are left out, missing ones have their
defaults: files of older and newer versions can be read. What a class's fields are is looked up
once: every start reads settings several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.oci.fields import JSON

T = TypeVar("T")
# (the value, the field's name) -> the value, or ValueError.
_Reader = Callable[[object, str], object]
_READERS: dict[type[object], dict[str, _Reader]] = {}
_DEFAULTS: dict[type[object], tuple[tuple[str, object], ...]] = {}
_PLAIN = (str, int, bool, float, NoneType)


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
            name: encode(found, sparse=sparse)
            for name, default in _defaults(type(value))
            if (found := getattr(value, name)) != default or not sparse
        }
    raise TypeError(f"no JSON for {type(value).__name__}")


def decode(cls: type[T], data: object) -> T:
    """Raises ValueError naming the field, TypeError where one without a default is missing."""
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} is no object")
    readers = _READERS.get(cls) or _readers_of(cls)
    return cls(
        **{name: readers[name](value, name) for name, value in data.items() if name in readers}
    )


def _defaults(cls: type[object]) -> tuple[tuple[str, object], ...]:
    """(name, default) of each field; the defaults are compared with and never handed out."""
    found = _DEFAULTS.get(cls)
    if found is None:
        found = _DEFAULTS[cls] = tuple(
            (
                field.name,
                field.default if field.default_factory is MISSING else field.default_factory(),
            )
            for field in fields(cls)  # type: ignore[arg-type]  # the caller has asked is_dataclass
        )
    return found


def _readers_of(cls: type[object]) -> dict[str, _Reader]:
    found = {name: _reader(hint) for name, hint in get_type_hints(cls).items()}
    _READERS[cls] = found
    return found


def _reader(hint: Any) -> _Reader:
    """How a value of the type `hint` is read. A type is a value of the kind Any to mypy."""
    if hint in _PLAIN:
        return _plain(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value, name: value if isinstance(value, hint) else decode(hint, value)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return _sequence(hint, inner)
    if origin is Mapping:
        return _mapping(hint, _reader(inner[1]))
    if origin is Literal:
        return _check(hint, inner.__contains__)
    if origin in (Union, UnionType):
        return _one_of(hint, [_reader(one) for one in inner])
    if hint is object:
        return lambda value, name: value
    raise TypeError(f"no reader for {hint}")


def _plain(hint: type[object]) -> _Reader:
    if hint is float:
        # Whole numbers are written without a point; true is a number to Python.
        return _check(hint, lambda value: type(value) in (int, float))
    return _check(hint, lambda value: type(value) is hint)


def _check(hint: Any, holds: Callable[[Any], bool]) -> _Reader:
    def read(value: object, name: str) -> object:
        if not holds(value):
            raise _wrong(hint, value, name)
        return value

    return read


def _sequence(hint: Any, inner: tuple[Any, ...]) -> _Reader:
    endless = len(inner) == 2 and inner[1] is Ellipsis
    readers = [_reader(one) for one in (inner[:1] if endless else inner)]

    def read(value: object, name: str) -> object:
        if not isinstance(value, list | tuple) or not (endless or len(value) == len(readers)):
            raise _wrong(hint, value, name)
        if endless:
            return tuple([readers[0](item, name) for item in value])
        return tuple([one(item, name) for one, item in zip(readers, value, strict=True)])

    return read


def _mapping(hint: Any, reader: _Reader) -> _Reader:
    def read(value: object, name: str) -> object:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _wrong(hint, value, name)
        return {key: reader(item, name) for key, item in value.items()}

    return read


def _one_of(hint: Any, readers: list[_Reader]) -> _Reader:
    def read(value: object, name: str) -> object:
        for reader in readers:
            try:
                return reader(value, name)
            except (ValueError, TypeError):
                continue
        raise _wrong(hint, value, name)

    return read


def _wrong(hint: Any, value: object, name: str) -> ValueError:
    return ValueError(f"{name} is not {getattr(hint, '__name__', hint)}: {value!r}")
