"""Patterns of paths, as `.dockerignore` and `--exclude` mean them.

    *  ?  [a-z] [^a-z]  \\x     within one part of a path, as Go's filepath.Match
    **                         any number of parts, none included

`Matcher` applies moby/patternmatcher's rules to a list: a pattern that matches a folder matches
all below it, `!` takes back, the last that matches wins. They differ from git's: every pattern is
anchored at the root, and a folder is no different from a file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from engine.errors import InvalidInput

_MAX_STARS = 2
"""More of them in one pattern could keep a backtracking matcher busy for minutes."""


class _Wild(Enum):
    ANY = "[^/]"
    STAR = "[^/]*"
    DEEP = "(?:.*/)?"  # `**` before something
    REST = ".*"  # `**` at the end


@dataclass(frozen=True, slots=True)
class _Class:
    """`[a-z]`: a regular expression for one character."""

    expression: str


_Token = str | _Wild | _Class


@dataclass(frozen=True, slots=True)
class _Pattern:
    text: str
    includes: bool  # begins with `!`
    matches: Callable[[str], bool]


class Matcher:
    """An ordered list of patterns. Paths are relative, clean, with `/`. Not for several threads."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Blank ones are left out. Raises InvalidInput naming the pattern."""
        self._patterns = tuple(_pattern(text.strip()) for text in patterns if text.strip())
        self._folders: dict[str, int] = {"": 0}

    def matches(self, path: str) -> bool:
        """Whether the last pattern that matches the path, or a folder above it, has no `!`."""
        found = self._found(path)
        return bool(found) and not self._patterns[found.bit_length() - 1].includes

    def may_take_back(self, folder: str) -> bool:
        """Whether something below this matched folder may not match: false says it may be skipped.

        May say true for a folder where nothing is taken back, never the other way round.
        """
        if not self.matches(folder):
            return True
        last = self._found(folder).bit_length()
        parts = folder.split("/")
        return any(
            _reaches_below(pattern.text.split("/"), parts)
            for pattern in self._patterns[last:]
            if pattern.includes
        )

    def _found(self, path: str) -> int:
        """A bit for each pattern that matches the path or a folder above it."""
        folder, todo = path, [path]
        while (folder := folder.rpartition("/")[0]) not in self._folders:
            todo.append(folder)
        found = self._folders[folder]
        for name in reversed(todo):
            for index, pattern in enumerate(self._patterns):
                if not found >> index & 1 and pattern.matches(name):
                    found |= 1 << index
            if name is not path:
                self._folders[name] = found
        return found


def _pattern(text: str) -> _Pattern:
    includes = text.startswith("!")
    pattern = (text[1:] if includes else text).strip()
    if not pattern:
        raise InvalidInput("a ! without a pattern", hint="write what is to be kept after it")
    clean = posixpath.normpath(pattern)
    clean = re.sub(r"\A/+(?=.)", "", clean)
    return _Pattern(clean, includes, _path_matcher(clean))


def _path_matcher(pattern: str) -> Callable[[str], bool]:
    tokens = _tokens(pattern)
    plain = "".join(token for token in tokens if isinstance(token, str))
    if len(plain) == len(tokens):
        return lambda path: path == plain
    # moby/patternmatcher: `**` before plain text is a suffix, so `**.md` is any *.md at any depth.
    if tokens[0] is _Wild.DEEP and len(plain) == len(tokens) - 1 and "\\" not in pattern:
        if pattern.startswith("**/"):
            return lambda path: path == plain or path.endswith(f"/{plain}")
        return lambda path: path.endswith(plain)
    return _matcher(tokens)


def _tokens(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*" and pattern.startswith("*", position):
            position += 2 if pattern.startswith("*/", position) else 1
            tokens.append(_Wild.DEEP if position < len(pattern) else _Wild.REST)
        elif character == "*":
            if tokens[-1:] != [_Wild.STAR]:
                tokens.append(_Wild.STAR)
        elif character == "?":
            tokens.append(_Wild.ANY)
        elif character == "[":
            position, found = _class(pattern, position)
            tokens.append(found)
        elif character == "\\":
            if position == len(pattern):
                raise _bad(pattern, "it ends with \\", "write \\\\ for the character itself")
            tokens.append(pattern[position])
            position += 1
        else:
            tokens.append(character)
    return tokens


def _class(pattern: str, position: int) -> tuple[int, _Class]:
    """Read `^a-z]`; where it ends, and what it matches."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []

    def read() -> str:
        nonlocal position
        escaped = pattern.startswith("\\", position)
        position += escaped
        character = pattern[position : position + 1]
        if not character or (character in "-]" and not escaped):
            raise _bad(pattern, "a [ is not closed", "close it with ], or write \\[ for itself")
        position += 1
        return character

    while not (ranges and pattern.startswith("]", position)):
        low = high = read()
        if pattern.startswith("-", position):
            position += 1
            high = read()
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    body = "".join(ranges)
    if not body:
        return position + 1, _Class("." if negated else "(?!)")
    return position + 1, _Class(f"[{'^' if negated else ''}{body}]")


def _bad(pattern: str, what: str, hint: str) -> InvalidInput:
    return InvalidInput(f"not a pattern: {pattern}: {what}", hint=hint)


def _matcher(tokens: list[_Token]) -> Callable[[str], bool]:
    expressions = [_expression(token) for token in tokens]
    stars = sum(isinstance(token, _Wild) and token is not _Wild.ANY for token in tokens)
    if stars <= _MAX_STARS:
        whole = re.compile("".join(expressions), re.DOTALL)
        return lambda path: whole.fullmatch(path) is not None
    return lambda path: _simulate(tokens, path)


def _expression(token: _Token) -> str:
    if isinstance(token, str):
        return re.escape(token)
    return token.value if isinstance(token, _Wild) else token.expression


def _simulate(tokens: list[_Token], path: str) -> bool:
    """All ways at once, character by character: as long as path times pattern, never longer.

    A state is a token's index; `inside` says that its `**` has begun and must end with `/`.
    """
    states = _closure({(0, False)}, tokens)
    for character in path:
        following: set[tuple[int, bool]] = set()
        for index, inside in states:
            if index == len(tokens):
                continue
            token = tokens[index]
            if token is _Wild.REST or (token is _Wild.STAR and character != "/"):
                following.add((index, False))
            elif token is _Wild.DEEP:
                following.add((index, True))
                if character == "/":
                    following.add((index + 1, False))
            elif not inside and token is not _Wild.STAR and _one(token, character):
                following.add((index + 1, False))
        states = _closure(following, tokens)
    return (len(tokens), False) in states


def _closure(states: set[tuple[int, bool]], tokens: list[_Token]) -> set[tuple[int, bool]]:
    """With the states that are reached without a character: what a star may leave empty."""
    todo = list(states)
    while todo:
        index, inside = todo.pop()
        if index < len(tokens) and not inside and tokens[index] in _EMPTY:
            state = (index + 1, False)
            if state not in states:
                states.add(state)
                todo.append(state)
    return states


_EMPTY = (_Wild.STAR, _Wild.DEEP, _Wild.REST)


def _one(token: _Token, character: str) -> bool:
    if isinstance(token, str):
        return token == character
    return re.fullmatch(_expression(token), character, re.DOTALL) is not None


def _reaches_below(pattern: list[str], folder: list[str]) -> bool:
    """Whether the pattern may match the folder, one above it, or something below it."""
    for part, name in zip(pattern, folder, strict=False):
        if "**" in part:
            return True
        if not _matcher(_tokens(part))(name):
            return False
    return True
