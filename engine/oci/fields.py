"""Reads JSON objects field by field, so that a wrong shape names its place; writes canonical JSON.

What `Fields` was not asked for is left in `rest()`: image documents carry keys of others (Docker's
own, annotations of tools), and those are kept. Leaves what the fields mean to engine.oci.image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeAlias, TypeVar

from engine.errors import ContentCorrupt, InvalidInput
from engine.oci.digest import Digest

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
T = TypeVar("T")

_MAX_INT64 = 2**63 - 1
_EMPTY: dict[str, JSON] = {}


def canonical(value: Mapping[str, JSON]) -> bytes:
    """Sorted keys, no blanks, UTF-8: the same value is always the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def listed(values: Sequence[str] | None) -> JSON:
    """For `present`: a list that is set stays, though it be empty."""
    return None if values is None else _KeptList(values)


class _KeptList(list[JSON]):
    """A list that is written even where it is empty."""


def present(**values: JSON) -> dict[str, JSON]:
    """Without what is None, and without empty lists and maps."""
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, _KeptList) or (value is not None and value not in ([], {}))
    }


class Fields:
    """One JSON object being read. Every reader raises ContentCorrupt with the field's path.

    JSON null counts as absent: Docker writes it for empty lists and maps.
    """

    def __init__(self, data: bytes | Mapping[str, JSON], what: str) -> None:
        self.what = what
        self._values = _load(data, what) if isinstance(data, bytes) else dict(data)

    def fail(self, key: str, expected: str) -> NoReturn:
        raise ContentCorrupt(
            f"{self.what}: {key} is not {expected}",
            hint="the image is damaged or was made by a faulty tool: pull or build it again",
            document=self.what,
            key=key,
        )

    def take(self, key: str) -> JSON:
        return self._values.pop(key, None)

    def string(self, key: str, default: str | None = None) -> str:
        """A string; required where no default is given."""
        value = self.take(key)
        if value is None and default is not None:
            return default
        return value if isinstance(value, str) else self.fail(key, "a string")

    def optional(self, key: str) -> str | None:
        value = self.take(key)
        return value if value is None or isinstance(value, str) else self.fail(key, "a string")

    def integer(self, key: str, default: int | None = None, minimum: int = 0) -> int:
        value = self.take(key)
        if value is None and default is not None:
            return default
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and minimum <= value <= _MAX_INT64
        ):
            return value
        return self.fail(key, f"a whole number of at least {minimum}")

    def boolean(self, key: str) -> bool:
        value = self.take(key)
        if value is None:
            return False
        return value if isinstance(value, bool) else self.fail(key, "true or false")

    def digest(self, key: str) -> Digest:
        return self._digest(key, self.take(key))

    def digests(self, key: str) -> tuple[Digest, ...]:
        """A required list of digests."""
        values = self.take(key)
        if not isinstance(values, list):
            return self.fail(key, "a list of digests")
        return tuple(self._digest(f"{key}[{i}]", value) for i, value in enumerate(values))

    def strings(self, key: str) -> tuple[str, ...] | None:
        values = self.take(key)
        if values is None:
            return None
        if not isinstance(values, list):
            return self.fail(key, "a list of strings")
        return tuple(
            value if isinstance(value, str) else self.fail(f"{key}[{i}]", "a string")
            for i, value in enumerate(values)
        )

    def mapping(self, key: str) -> dict[str, str]:
        values = self._object(key)
        return {
            name: value if isinstance(value, str) else self.fail(f"{key}.{name}", "a string")
            for name, value in values.items()
        }

    def keys(self, key: str) -> tuple[str, ...]:
        """The keys of a `{"80/tcp": {}}` map, sorted."""
        values = self._object(key)
        for name, value in values.items():
            if not isinstance(value, dict | None):
                self.fail(f"{key}.{name}", "an object")
        return tuple(sorted(values))

    def one(self, key: str, read: Callable[[Fields], T]) -> T | None:
        """A nested object, or None where there is none."""
        value = self.take(key)
        return None if value is None else read(self._nested(key, value))

    def required(self, key: str, read: Callable[[Fields], T]) -> T:
        return read(self._nested(key, self.take(key)))

    def many(self, key: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
        values = self.take(key)
        if values is None:
            return ()
        if not isinstance(values, list):
            return self.fail(key, "a list")
        return tuple(read(self._nested(f"{key}[{i}]", value)) for i, value in enumerate(values))

    def rest(self) -> dict[str, JSON]:
        """What nobody asked for."""
        return self._values

    def _object(self, key: str) -> dict[str, JSON]:
        value = self.take(key)
        if value is None:
            return _EMPTY
        return value if isinstance(value, dict) else self.fail(key, "an object")

    def _nested(self, key: str, value: JSON) -> Fields:
        if not isinstance(value, dict):
            self.fail(key, "an object")
        return Fields(value, f"{self.what}: {key}")

    def _digest(self, key: str, value: JSON) -> Digest:
        try:
            return Digest.parse(value) if isinstance(value, str) else self.fail(key, "a digest")
        except InvalidInput as error:
            raise ContentCorrupt(
                f"{self.what}: {key}: {error.message}", hint=error.hint, document=self.what, key=key
            ) from error


def _load(data: bytes, what: str) -> dict[str, JSON]:
    try:
        value: JSON = json.loads(data.decode(), parse_constant=_no_constant)
        if b"\\ud" in data or b"\\uD" in data:
            # Half of a surrogate pair is no character, and could not be written again.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ContentCorrupt(
            f"{what}: not JSON: {error}",
            hint="what was received is not what an image registry stores: check its address",
            document=what,
        ) from error
    if not isinstance(value, dict):
        raise ContentCorrupt(f"{what}: not a JSON object", document=what)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
