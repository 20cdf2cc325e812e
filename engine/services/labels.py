"""Labels as Docker's filters ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def match(labels: Mapping[str, str], wanted: Iterable[str], unwanted: Iterable[str] = ()) -> bool:
    """Whether all of `wanted` and none of `unwanted` hold; each is `key` or `key=value`."""
    return all(_has(labels, one) for one in wanted) and not any(
        _has(labels, one) for one in unwanted
    )


def _has(labels: Mapping[str, str], text: str) -> bool:
    key, separator, value = text.partition("=")
    return key in labels and (not separator or labels[key] == value)
