"""A container's log as clients get it: bytes in, bytes out, a block at a time.

Framed (without a tty) is Docker's multiplexed stream: `[1|2, 0, 0, 0, length big-endian 32]`
before each piece; raw is the pieces alone. Two uses: *lines* (logs), where a line is one frame and
waits for its end as it does in Docker, and *output* (attach, exec), where what has come goes out.

This is the path of 200,000 lines: the usual block is one pass of C-level work a line.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import groupby

from engine.containers.loglines import Line, decode_tty, parse_lines

_HEAD = struct.Struct(">BxxxI")
# Of a line conmon wrote: RFC 3339 with nine digits and +00:00, the stream, the tag.
_CLOCK, _STREAM, _TEXT = 29, slice(36, 44), 45
_OUT, _ERR = b"stdout F", b"stderr F"
# A line that came in two, and nothing of the other stream between them.
_TWO = re.compile(rb"(?m)^([^ \n]+ (stdout|stderr)) P ([^\n]*)\n[^ \n]+ \2 F ")
# moby cuts longer lines into messages of this size (daemon/logger/copier.go).
_MOST_LINE = 16 * 1024
_NUMBERS = {"stdout": 1, "stderr": 2}


@dataclass(frozen=True, slots=True)
class Format:
    """What one client asked for. `details` go before each line (engine.api.log_details)."""

    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    lines: bool = False
    timestamps: bool = False
    details: bytes = b""

    @property
    def plain(self) -> bool:
        """Whether it is what a screen gets, byte for byte."""
        return not (self.framed or self.timestamps or self.details) and self.stdout

    def wants(self, stream: str) -> bool:
        # A tty has one stream only.
        return self.stdout if not self.framed or stream == "stdout" else self.stderr


class _Heads(dict[int, bytes]):
    """Frame headers by the length of the log's line: `extra` is what the payload has more."""

    def __init__(self, number: int, extra: int) -> None:
        super().__init__()
        self._number, self._extra = number, extra

    def __missing__(self, length: int) -> bytes:
        head = self[length] = _HEAD.pack(self._number, length - _TEXT + 1 + self._extra)
        return head


_tables: dict[int, dict[bytes, _Heads]] = {}


def _heads(extra: int) -> dict[bytes, _Heads]:
    if extra not in _tables:
        _tables[extra] = {_OUT: _Heads(1, extra), _ERR: _Heads(2, extra)}
    return _tables[extra]


def convert(form: Format, data: bytes, *, final: bool) -> tuple[bytes, int]:
    """What the client gets of `data`, which begins where a line does, and the bytes it took.

    Without `final`, and by lines, an unfinished line at the end is left for the next time."""
    if form.plain:
        return decode_tty(data)
    if not form.lines:
        return _output(form, data)
    found = _whole_lines(form, data) if form.framed else None
    if found is None or (final and found[1] <= data.rfind(b"\n")):
        return _any_lines(form, data, final)
    return found


def _whole_lines(form: Format, data: bytes) -> tuple[bytes, int] | None:
    """The fast way; None where a line is not as nearly all are."""
    end = data.rfind(b"\n")
    if end < 0:
        return b"", 0
    lines = data[:end].split(b"\n")
    taken = end + 1
    while lines and lines[-1][_STREAM].endswith(b"P"):
        taken -= len(lines.pop()) + 1  # it goes on in the next block
    if not lines:
        return None
    if b" P " in data:
        # conmon cuts where a read of its ended, which is once in 8 KiB.
        lines = _TWO.sub(rb"\1 F \3", data[: taken - 1]).split(b"\n")
        if max(map(len, lines)) >= _TEXT + _MOST_LINE:
            return None
    heads = _heads((_CLOCK + 2 if form.timestamps else 0) + len(form.details))
    gap = form.details
    try:
        if not (form.stdout and form.stderr):
            wanted = _OUT if form.stdout else _ERR
            for line in lines:
                heads[line[_STREAM]]
            lines = [line for line in lines if line[_STREAM] == wanted]
        if form.timestamps:
            pieces = [
                b"%b%bZ %b%b\n"
                % (heads[line[_STREAM]][len(line)], line[:_CLOCK], gap, line[_TEXT:])
                for line in lines
            ]
        else:
            pieces = [
                b"%b%b%b\n" % (heads[line[_STREAM]][len(line)], gap, line[_TEXT:]) for line in lines
            ]
    except KeyError:
        return None
    return b"".join(pieces), taken


class _Open:
    """A line that has not ended yet: its pieces so far."""

    def __init__(self, first: Line) -> None:
        self.first = first
        self.pieces: list[Line] = []
        self.size = 0

    def add(self, piece: Line) -> None:
        self.pieces.append(piece)
        self.size += len(piece.text)

    def messages(self) -> list[tuple[str, bytes]]:
        """(time, text) of each message moby would have made of it, wherever conmon cut it."""
        text = b"".join([piece.text for piece in self.pieces])
        if not self.pieces[-1].partial:
            text += b"\n"
        if len(text) <= _MOST_LINE:
            return [(self.first.time, text)]
        times, begins = iter(self.pieces), 0
        piece, messages = next(times), []
        for at in range(0, len(text), _MOST_LINE):
            # The line's end alone may be the last message.
            while at >= begins + len(piece.text) and piece is not self.pieces[-1]:
                begins += len(piece.text)
                piece = next(times)
            messages.append((piece.time, text[at : at + _MOST_LINE]))
        return messages


def _any_lines(form: Format, data: bytes, final: bool) -> tuple[bytes, int]:
    lines, consumed = parse_lines(data)
    pieces: list[bytes] = []
    unfinished: dict[str, _Open] = {}
    told = 0  # where the last line that went out ends
    for line in lines:
        unfinished.setdefault(line.stream, _Open(line)).add(line)
        if not line.partial:
            pieces.append(_line(form, unfinished.pop(line.stream)))
            told = line.end
    if unfinished and not final:
        begins = min(one.first.offset for one in unfinished.values())
        if begins >= told and all(one.size < _MOST_LINE for one in unfinished.values()):
            return b"".join(pieces), told
        # A line of more than one message, or the other stream went on meanwhile: what there is
        # of it goes out.
    pieces += [_line(form, one) for one in unfinished.values()]
    return b"".join(pieces), consumed


def _line(form: Format, line: _Open) -> bytes:
    if not form.wants(line.first.stream):
        return b""
    out = []
    for time, text in line.messages():
        text = form.details + text
        if form.timestamps:
            text = time.encode() + b" " + text
        out.append(_framed(form, line.first.stream, text))
    return b"".join(out)


def _output(form: Format, data: bytes) -> tuple[bytes, int]:
    """Neighbours of one stream in one frame."""
    if form.stdout and b" stderr " not in data:
        text, consumed = decode_tty(data)
        return (_framed(form, "stdout", text) if text else b""), consumed
    lines, consumed = parse_lines(data)
    pieces = []
    for stream, group in groupby(lines, key=lambda line: line.stream):
        text = b"".join([line.text if line.partial else line.text + b"\n" for line in group])
        if text and form.wants(stream):
            pieces.append(_framed(form, stream, text))
    return b"".join(pieces), consumed


def _framed(form: Format, stream: str, text: bytes) -> bytes:
    return _HEAD.pack(_NUMBERS[stream], len(text)) + text if form.framed else text


def frame(number: int, text: bytes) -> bytes:
    """One frame: 1 stdout, 2 stderr."""
    return _HEAD.pack(number, len(text)) + text
