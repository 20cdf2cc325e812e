"""Parser directives: `# syntax=`, `# escape=` and `# check=` at the very top of a Dockerfile.

Only before any instruction, blank line or other comment; names in any case; each once. What a
syntax image or the checks mean is left to engine.build and to lint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from engine.dockerfile.lines import SPACES
from engine.errors import InvalidInput

DEFAULT_ESCAPE = "\\"
_NAMES = ("syntax", "escape", "check")
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z", re.ASCII)
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")


@dataclass(frozen=True, slots=True)
class Check:
    """`# check=skip=A,B;error=true`: rules left out, and whether a warning fails the build."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    error: bool = False
    experimental: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Check:
        """Raises InvalidInput naming the option."""
        skip: frozenset[str] = frozenset()
        experimental: frozenset[str] = frozenset()
        error = False
        for option in filter(None, (part.strip() for part in text.split(";"))):
            key, equals, value = (part.strip() for part in option.partition("="))
            if key == "skip" and equals:
                skip = frozenset(name.strip() for name in value.split(","))
            elif key == "experimental" and equals:
                experimental = frozenset(name.strip() for name in value.split(","))
            elif key == "error" and value.lower() in _TRUE + _FALSE:
                error = value.lower() in _TRUE
            else:
                raise InvalidInput(
                    f"unknown check option: {option}",
                    hint="write it like # check=skip=RuleName,OtherRule;error=true",
                )
        return cls(skip, skip == {"all"}, error, experimental)


@dataclass(frozen=True, slots=True)
class Directives:
    """`syntax` is the image of a frontend, "" where none is asked for."""

    syntax: str = ""
    escape: str = DEFAULT_ESCAPE
    check: Check = field(default_factory=Check)


class DirectiveReader:
    """Is shown each line in turn until `done`; `directives` gathers what was found.

    `escape` is what holds where no directive says otherwise.
    """

    def __init__(self, escape: str = DEFAULT_ESCAPE, done: bool = False) -> None:
        self.done = done
        self._default_escape = escape
        self._found: dict[str, str] = {}
        self._check = Check()

    def consider(self, line: str) -> None:
        """`line` has no white space before it. Raises InvalidInput on a bad or second directive."""
        if self.done:
            return
        match = _DIRECTIVE.match(line[1:].lstrip(SPACES)) if line.startswith("#") else None
        name = match[1].lower() if match else ""
        if match is None or name not in _NAMES:
            self.done = True
            return
        if name in self._found:
            raise InvalidInput(
                f"a second {name} directive", hint=f"keep one of the # {name}= lines"
            )
        value = match[2]
        if name == "escape" and value not in ("\\", "`"):
            raise InvalidInput(
                f"an escape character that is neither \\ nor `: {value}",
                hint="write # escape=\\ or # escape=`",
            )
        if name == "check":
            self._check = Check.parse(value)
        self._found[name] = value

    @property
    def escape(self) -> str:
        return self._found.get("escape", self._default_escape)

    @property
    def directives(self) -> Directives:
        return Directives(self._found.get("syntax", ""), self.escape, self._check)
