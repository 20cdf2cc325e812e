"""Lines: from a Dockerfile's bytes to whole statements, each with the lines it came from.

Takes care of encoding, byte order mark, CRLF, comments, continuations and their limits, and reads
the bodies of heredocs when the parser asks for them. Knows nothing of instructions.
Behaves as BuildKit's parser does, its oddities included: a comment or an empty line inside a
continuation is left out; two escape characters at the end of a line are no continuation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import DockerfileError

MAX_LINE = 65_535
"""Bytes in a line, without its line feed."""

SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode White_Space as Go has it (str.isspace has four control characters more)."""

_CONTINUATIONS = {
    escape: re.compile(rf"(?:(?<=[^{re.escape(escape)}])|\A){re.escape(escape)}[ \t]*\Z")
    for escape in "\\`"
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction's text, continuations joined, and where it stands (1-based, inclusive)."""

    text: str
    line: int
    end_line: int
    empty_lines: tuple[int, ...] = ()


class Lines:
    """A Dockerfile's lines, read once from top to bottom. `number` is of the last line read."""

    def __init__(self, source: str | bytes, file: str) -> None:
        # Bytes that are not UTF-8 may stand in comments; elsewhere the parser refuses them.
        text = source.decode("utf-8", "surrogateescape") if isinstance(source, bytes) else source
        self.file = file
        self.number = 0
        self._lines = text.removeprefix("\ufeff").split("\n")
        if not self._lines[-1]:
            self._lines.pop()

    def read(self) -> str | None:
        """The next line without its line feed; None at the end."""
        if self.number == len(self._lines):
            return None
        line = self._lines[self.number]
        self.number += 1
        if len(line) * 4 > MAX_LINE and len(line.encode(errors="surrogateescape")) > MAX_LINE:
            raise DockerfileError(
                f"the line is longer than {MAX_LINE} bytes",
                line=self.number,
                source=line[:200],
                file=self.file,
                hint="put the text into a file and COPY it, or use a heredoc",
            )
        return line

    def source(self, line: int, end_line: int) -> str:
        """The lines as written, without a last line feed; what is not UTF-8 shows as `?`."""
        text = "\n".join(part.rstrip("\r") for part in self._lines[line - 1 : end_line])
        return text.encode(errors="replace").decode()

    def statement(self, first: str, escape: str) -> Statement:
        """The statement that begins with `first`, the line just read, and all that continues it."""
        line = self.number
        text, continues = _join(first, escape)
        parts = [text]
        empty: list[int] = []
        while continues and (raw := self.read()) is not None:
            token = raw.rstrip("\r")
            stripped = token.lstrip(SPACES)
            if stripped.startswith("#"):
                continue
            if not stripped:
                empty.append(self.number)
                continue
            text, continues = _join(token, escape)
            parts.append(text)
        return Statement("".join(parts), line, self.number, tuple(empty))

    def heredoc(self, name: str, strip_tabs: bool) -> str | None:
        """The lines up to the one that is `name`; None where the file ends before it.

        With `strip_tabs` (`<<-`) tabs may stand before that last line.
        """
        content: list[str] = []
        while (raw := self.read()) is not None:
            end = raw.rstrip("\r")
            if (end.lstrip("\t") if strip_tabs else end) == name:
                return "".join(content)
            content.append(f"{raw}\n")
        return None


def _join(line: str, escape: str) -> tuple[str, bool]:
    """The line without its continuation character, and whether it had one."""
    match = _CONTINUATIONS[escape].search(line)
    return (line[: match.start()], True) if match else (line, False)
