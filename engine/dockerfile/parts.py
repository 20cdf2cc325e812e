"""One statement in its parts: keyword, flags, the rest, heredocs, and its place in the file.

What an instruction makes of them is left to engine.dockerfile.arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from engine.dockerfile.flags import Flags, Kind, read_flags
from engine.dockerfile.heredoc import Heredoc
from engine.dockerfile.words import json_list, split_blanks
from engine.errors import InvalidInput


class Place(TypedDict):
    """What every instruction is made with."""

    line: int
    end_line: int
    source: str
    text: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """One statement, parted: `rest` is what follows the keyword and its flags."""

    keyword: str
    rest: str
    escape: str
    heredocs: tuple[Heredoc, ...]
    place: Place

    def flags(self, **known: Kind) -> Flags:
        """A flag's `-` is `_` here."""
        names = {name.replace("_", "-"): kind for name, kind in known.items()}
        return read_flags(self.place["flags"], self.keyword, names)

    def one(self, what: str) -> str:
        """The one argument, which may hold blanks."""
        self.flags()
        if not self.rest:
            raise InvalidInput(f"{self.keyword} has no argument", hint=f"write {what} after it")
        return self.rest

    def list_or_words(self) -> tuple[tuple[str, ...], bool]:
        """The JSON list's strings, or the words; and whether it is JSON."""
        listed = json_list(self.rest)
        return (split_blanks(self.rest), False) if listed is None else (listed, True)
