"""Where to begin when somebody comes back to a terminal: pure, bytes in, bytes out.

A terminal's screen is the sum of all it was ever sent, and nobody wants that again. So: the last
256 KiB of it, from the last moment that made earlier bytes irrelevant (a clear, or the switch to
the alternate screen that vi and top are on), with the modes that were set before that moment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

REPLAY_BYTES = 256 * 1024

# DECSET and DECRST, RIS, soft reset, ED 2 and 3, and what `clear` sends where E3 is unknown.
_SEQUENCE = re.compile(
    rb"\x1b\[\?(?P<modes>[0-9;]+)(?P<set>[hl])"
    rb"|(?P<reset>\x1bc|\x1b\[!p)"
    rb"|(?P<clear>\x1b\[[23]J|\x1b\[(?:1;1)?H\x1b\[0?J)"
    rb"|(?P<keypad>\x1b[=>])"
)
_ALTERNATE = {b"47", b"1047", b"1049"}
# Modes a fresh terminal has on: the cursor is shown and lines wrap.
_ON_AT_FIRST = {b"25", b"7"}


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` is what the program wrote; `end` the log's offset behind it."""

    text: bytes
    end: int


@dataclass(slots=True)
class _Modes:
    """What is switched away from how a fresh terminal has it."""

    changed: dict[bytes, bool] = field(default_factory=dict)
    keypad: bytes = b""

    def prefix(self) -> bytes:
        modes = b"".join(
            b"\x1b[?" + mode + (b"h" if on else b"l") for mode, on in self.changed.items()
        )
        return modes + self.keypad

    def copy(self) -> _Modes:
        return _Modes(dict(self.changed), self.keypad)


def screen_start(data: bytes) -> tuple[int, bytes]:
    """(where in `data` to begin, what to send before it) so that the screen comes out right."""
    modes = _Modes()
    main = (0, _Modes())  # the last clear on the main screen
    alternate: tuple[int, _Modes] | None = None  # the switch, while it lasts
    for match in _SEQUENCE.finditer(data):
        if match["reset"]:
            modes, alternate = _Modes(), None
            main = (match.start(), modes.copy())
        elif match["clear"]:
            if alternate is None:
                main = (match.start(), modes.copy())
        elif match["keypad"]:
            modes.keypad = match["keypad"] if match["keypad"] == b"\x1b=" else b""
        else:
            on = match["set"] == b"h"
            for mode in match["modes"].split(b";"):
                if mode in _ALTERNATE:
                    alternate = (match.start(), modes.copy()) if on else None
                elif on == (mode in _ON_AT_FIRST):
                    modes.changed.pop(mode, None)
                else:
                    modes.changed[mode] = on
    start, before = alternate or main
    return start, before.prefix()


def replay(pieces: Sequence[Piece], *, whole: bool) -> list[Piece]:
    """The last REPLAY_BYTES of `pieces` from where the screen starts; together one screen.

    `whole`: the pieces begin where the program did, so nothing is missing before them."""
    kept: list[Piece] = []
    size = 0
    for piece in reversed(pieces):
        if size + len(piece.text) > REPLAY_BYTES and kept:
            whole = False
            break
        kept.append(piece)
        size += len(piece.text)
    kept.reverse()
    data = b"".join(piece.text for piece in kept)
    start, prefix = screen_start(data)
    if start == 0 and not whole:
        # Cut somewhere: begin with a line, not in the middle of a sequence or a character.
        start = data.find(b"\n") + 1
    result: list[Piece] = []
    at = 0
    for piece in kept:
        text = piece.text[max(0, start - at) :]
        at += len(piece.text)
        if text:
            result.append(Piece(text, piece.end))
    if prefix and result:
        result[0] = Piece(prefix + result[0].text, result[0].end)
    return result


def joined(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """Neighbours put together into pieces of at most `most` bytes (a larger one stays whole)."""
    result: list[Piece] = []
    for piece in pieces:
        if result and len(result[-1].text) + len(piece.text) <= most:
            result[-1] = Piece(result[-1].text + piece.text, piece.end)
        else:
            result.append(piece)
    return result
