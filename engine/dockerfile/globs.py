"""Patterns of `${name#pattern}` and `${name/pattern/text}`: `*`, `?` and escaped characters.

Matched piece by piece between the stars, so that no pattern takes longer than the product of its
length and the value's. Unlike BuildKit's, `*` and `?` match a line feed too, as in a shell.
Patterns of paths are another language: engine.dockerfile.patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import InvalidInput

_Token = str | None  # a character, or None for `?`


@dataclass(frozen=True, slots=True)
class ShellPattern:
    """`pieces` have a star between each and the next; the outer ones may be empty."""

    pieces: tuple[tuple[_Token, ...], ...]

    @classmethod
    def parse(cls, text: str, escape: str = "\\") -> ShellPattern:
        """Raises InvalidInput on an escape of anything but `*`, `?`, `/`, `}` and itself."""
        pieces: list[list[_Token]] = [[]]
        characters = iter(text)
        for character in characters:
            if character == "*":
                pieces.append([])
            elif character == "?":
                pieces[-1].append(None)
            elif character == escape:
                escaped = next(characters, "")
                if not escaped or escaped not in f"*?/}}{escape}":
                    raise InvalidInput(
                        f"nothing to escape in a pattern: {escape}{escaped}",
                        hint=f"write {escape}{escape} for the character itself",
                    )
                pieces[-1].append(escaped)
            else:
                pieces[-1].append(character)
        return cls(tuple(tuple(piece) for piece in pieces))

    def without_prefix(self, value: str, longest: bool) -> str:
        found = self._find(value, 0, anchored=True, longest=longest)
        return value[found[1] :] if found else value

    def without_suffix(self, value: str, longest: bool) -> str:
        mirrored = ShellPattern(tuple(piece[::-1] for piece in self.pieces[::-1]))
        return mirrored.without_prefix(value[::-1], longest)[::-1]

    def replace(self, value: str, text: str, every: bool, limit: int) -> str:
        """The first match, or each that does not overlap one before, replaced by `text`.

        Raises InvalidInput where the result has more than `limit` characters.
        """
        out: list[str] = []
        position = size = 0
        last_end = -1
        while found := self._find(value, position, anchored=False, longest=True):
            start, end = found
            # An empty match right behind another match is none.
            put = "" if start == end == last_end else text
            # An empty one passes over the next character, or would be found again.
            passed = value[start : start + 1] if start == end else ""
            out += [value[position:start], put, passed]
            size += start - position + len(put) + len(passed)
            if size > limit:
                raise InvalidInput(
                    f"a replacement gives over {limit} characters",
                    hint="replace by less, or in a file",
                )
            position = last_end = end if end > start else end + 1
            if not every or position > len(value):
                break
        return "".join(out) + value[position:]

    def _find(
        self, value: str, start: int, *, anchored: bool, longest: bool
    ) -> tuple[int, int] | None:
        """Where the pattern first matches. Taking each piece as early as can be is enough."""
        first, *others = self.pieces
        piece = _compiled(first)
        match = piece.match(value, start) if anchored or not first else piece.search(value, start)
        if match is None:
            return None
        begin, end = match.span()
        for index, other in enumerate(others, 1):
            if longest and index == len(others):
                match = re.compile(f"(?s:.*){_compiled(other).pattern}").match(value, end)
            else:
                match = _compiled(other).search(value, end)
            if match is None:
                return None
            end = match.end()
        return begin, end


def _compiled(piece: tuple[_Token, ...]) -> re.Pattern[str]:
    return re.compile("".join("(?s:.)" if token is None else re.escape(token) for token in piece))
