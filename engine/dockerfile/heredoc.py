"""Heredocs: `<<EOF` words in RUN, COPY and ADD, and what they carry.

Finds them in a statement; engine.dockerfile.lines reads their bodies. A word is one only as a
whole (`<<EOF>/x` is one with the name `EOF>/x`), as BuildKit reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.dockerfile.expansion import Rules, expanded
from engine.errors import InvalidInput

_HEREDOC = re.compile(r"([0-9]*)<<(-?)([^<]+)")
_TABS = re.compile(r"^\t+", re.MULTILINE)
_WORD = Rules(keep_unset=True)
_RAW_WORD = Rules(keep_unset=True, keep_quotes=True)
_LINE = Rules(keep_unset=True, keep_quotes=True, keep_escapes=True)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`content` as it stands in the file; `expand` is false where the name was quoted."""

    name: str
    content: str = ""
    expand: bool = True
    strip_tabs: bool = False
    fd: int = 0

    @property
    def text(self) -> str:
        """The content, without leading tabs where `<<-` asks for it."""
        return _TABS.sub("", self.content) if self.strip_tabs else self.content

    @classmethod
    def from_word(cls, word: str) -> Heredoc | None:
        """Without content; None where the word is no heredoc. Raises InvalidInput on bad quotes."""
        match = _HEREDOC.fullmatch(word)
        if match is None:
            return None
        names = expanded(match[3], {}, _WORD).words
        raw = expanded(match[3], {}, _RAW_WORD).words
        if len(names) != 1 or len(raw) != 1:
            return None
        return cls(
            name=names[0],
            expand=_quotes(names[0]) == _quotes(raw[0]),
            strip_tabs=bool(match[2]),
            fd=int(match[1][-9:] or 0),
        )


def find(text: str) -> tuple[Heredoc, ...]:
    """The heredocs a statement announces, in order, without content."""
    if "<<" not in text:
        return ()
    try:
        words = expanded(text, {}, _LINE).words
    except InvalidInput:
        # A shell command whose quotes we cannot follow is the shell's own affair.
        return ()
    found = (Heredoc.from_word(word) for word in words)
    return tuple(heredoc for heredoc in found if heredoc is not None)


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
