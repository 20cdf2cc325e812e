"""Go's path.Match, which COPY and ADD sources follow: pure, on names only.

`*` and `?` never match a slash, `[a-z]` and `[^a-z]` are classes, a backslash quotes; hidden
names match like any other. Leaves the walk over folders to engine.build.context.
"""

from __future__ import annotations

import re
from functools import lru_cache

from engine.errors import InvalidInput


def has_meta(pattern: str) -> bool:
    """Whether the pattern is more than a literal name."""
    return any(character in "*?[\\" for character in pattern)


@lru_cache(maxsize=1024)
def compile_name(pattern: str) -> re.Pattern[str]:
    """One path component's pattern as a regular expression to `fullmatch` names with.

    Raises InvalidInput for what Go calls a bad pattern: an open class, an empty one, a
    trailing backslash.
    """
    out: list[str] = []
    index, end = 0, len(pattern)
    while index < end:
        character = pattern[index]
        index += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            expression, index = _class(pattern, index)
            out.append(expression)
        elif character == "\\":
            if index >= end:
                raise _bad(pattern)
            out.append(re.escape(pattern[index]))
            index += 1
        else:
            out.append(re.escape(character))
    return re.compile("".join(out), re.DOTALL)


def _class(pattern: str, index: int) -> tuple[str, int]:
    negated = pattern[index : index + 1] == "^"
    index += negated
    ranges: list[str] = []
    while True:
        if pattern[index : index + 1] == "]" and ranges:
            break
        low, index = _class_character(pattern, index)
        high = low
        if pattern[index : index + 1] == "-":
            high, index = _class_character(pattern, index + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            # Go accepts a reversed range: it matches nothing.
            ranges.append("")
    body = "".join(ranges)
    index += 1
    if negated:
        return f"[^/{body}]", index
    return (f"(?!/)[{body}]" if body else "(?!)"), index


def _class_character(pattern: str, index: int) -> tuple[str, int]:
    if index >= len(pattern) or pattern[index] in "-]":
        raise _bad(pattern)
    if pattern[index] == "\\":
        index += 1
        if index >= len(pattern):
            raise _bad(pattern)
    if index + 1 >= len(pattern):
        raise _bad(pattern)
    return pattern[index], index + 1


def _bad(pattern: str) -> InvalidInput:
    return InvalidInput(
        f"syntax error in pattern: {pattern}",
        hint="close every [ with ] and quote a backslash with another one",
        pattern=pattern,
    )
