"""A JSON object of a request, read the way Go's decoder does: null is the zero value, another type
is an error in its words, capitals in a key do not matter. What nobody has read is known
afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from engine.errors import InvalidInput

_T = TypeVar("_T")
_GO = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


class Fields:
    """`path` is what errors call it (HostConfig)."""

    def __init__(self, raw: object, path: str) -> None:
        if raw is not None and not isinstance(raw, Mapping):
            raise _wrong(raw, path, "object")
        self._raw: dict[str, object] = dict(raw or {})
        self._spelt = {key.lower(): key for key in self._raw}
        self._path = path
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether it was given at all, as null too."""
        return key.lower() in self._spelt

    def raw(self, key: str) -> object:
        """docker-py writes detachKeys, and moby takes it for DetachKeys."""
        if key not in self._raw:
            key = self._spelt.get(key.lower(), key)
        self._read.add(key)
        return self._raw.get(key)

    def text(self, key: str) -> str:
        return self._typed(key, str, "string") or ""

    def flag(self, key: str) -> bool:
        return self._typed(key, bool, "bool") or False

    def choice(self, key: str) -> bool | None:
        return self._typed(key, bool, "bool")

    def number(self, key: str) -> int | None:
        value = self.raw(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise _wrong(value, f"{self._path}.{key}", "int64")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.raw(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise _wrong(value, f"{self._path}.{key}", "[]string")

    def words(self, key: str) -> tuple[str, ...] | None:
        """A command: a list, or one text; None where there is none."""
        value = self.raw(key)
        if value is None:
            return None
        return (value,) if isinstance(value, str) else self.texts(key)

    def mapping(self, key: str) -> dict[str, str]:
        value = self.raw(key)
        if value is None:
            return {}
        if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
            return value
        raise _wrong(value, f"{self._path}.{key}", "map[string]string")

    def names(self, key: str) -> tuple[str, ...]:
        """The keys of a set, `{"80/tcp": {}}`."""
        value = self.raw(key)
        if value is None:
            return ()
        if isinstance(value, dict):
            return tuple(value)
        raise _wrong(value, f"{self._path}.{key}", "map[string]struct")

    def given(self) -> dict[str, Any]:
        """As it came, without the nulls."""
        return {key: value for key, value in self._raw.items() if value is not None}

    def all_names(self) -> tuple[str, ...]:
        return tuple(self._raw)

    def object(self, key: str) -> Fields:
        return Fields(self.raw(key), f"{self._path}.{key}")

    def objects(self, key: str) -> Iterator[Fields]:
        value = self.raw(key)
        if value is not None and not isinstance(value, list):
            raise _wrong(value, f"{self._path}.{key}", "array")
        for one in value or ():
            yield Fields(one, f"{self._path}.{key}")

    def unread(self) -> list[str]:
        """Keys that were given, mean something, and that nobody has asked for."""
        return sorted(key for key, value in self._raw.items() if value and key not in self._read)

    def _typed(self, key: str, kind: type[_T], name: str) -> _T | None:
        value = self.raw(key)
        if value is None or isinstance(value, kind):
            return value
        raise _wrong(value, f"{self._path}.{key}", name)


def _wrong(value: object, path: str, kind: str) -> InvalidInput:
    return InvalidInput(
        f"json: cannot unmarshal {_GO.get(type(value), 'value')} into Go struct field {path} of "
        f"type {kind}"
    )
