"""Filters of lists and prunes: which are known, and their values, in moby's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.errors import InvalidInput

_TRUE, _FALSE = {"true", "1"}, {"false", "0"}


def known(filters: Mapping[str, object], names: Iterable[str]) -> None:
    """Raises InvalidInput naming the first that is not one of `names`."""
    for name in filters:
        if name not in names:
            raise InvalidInput(f"Invalid filter '{name}'")


def truth(
    name: str, values: Iterable[str], text: str = "Invalid filter '{name}=[{}]'"
) -> bool | None:
    """The one value as a truth; None without any. Raises InvalidInput with `text`."""
    given = set(values)
    if not given:
        return None
    if given <= _TRUE:
        return True
    if given <= _FALSE:
        return False
    raise InvalidInput(text.format(" ".join(sorted(given)), name=name))
