"""Where a viewer of a terminal begins, and the bytes that bring its screen up to there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.containers.loglines import Line
from engine.containers.logs import LogReader
from engine.streams.replay import Piece, joined, replay
from engine.streams.terminal import Terminal

# Log bytes that are read backwards for a replay: a line's head is 40 bytes, its text may be one.
TAIL_BYTES = 1280 * 1024
# A page that is further behind than this gets the screen anew instead of all it missed.
FAR_BYTES = 1024 * 1024
PIECE_BYTES = 48 * 1024


@dataclass(frozen=True, slots=True)
class Screen:
    """Send `pieces`, then go on reading at `then`. `start`: the offset they begin at.

    `fresh`: the page must forget what it shows. `skipped`: log bytes it will never see."""

    start: int
    pieces: Sequence[Piece]
    then: int
    fresh: bool = True
    skipped: int = 0


def begin(reader: LogReader, terminal: Terminal, seen: int) -> Screen:
    """`seen`: the offset the page has everything up to; negative: none.

    Reads and parses up to TAIL_BYTES: not for a loop's own thread."""
    floor = terminal.place.floor(reader)
    first = max(reader.bounds()[0], floor)
    end = max(first, terminal.ended.offset if terminal.ended else reader.bounds()[1])
    if first <= seen <= end and end - seen <= FAR_BYTES:
        return Screen(seen, (), seen, fresh=False)
    start = max(first, end - TAIL_BYTES)
    if start > first:
        start = reader.line_start(start)
    pieces: list[Piece] = []
    offset = start
    while offset < end:
        lines, after, _ = reader.read_lines(offset, min(end - offset, 256 * 1024))
        if after <= offset:
            break
        pieces += [Piece(_text(line), line.end) for line in lines if line.end <= end]
        offset = after
    kept = joined(replay(pieces, whole=start == floor), PIECE_BYTES)
    skipped = max(0, start - seen) if seen >= 0 else 0
    return Screen(start, kept, min(offset, end), skipped=skipped)


def _text(line: Line) -> bytes:
    return line.text if line.partial else line.text + b"\n"
