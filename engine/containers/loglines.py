"""conmon's k8s-file log lines, as bytes: pure, no files.

One line is `RFC3339 stdout|stderr F|P text\\n`: F ended with a newline when it was written, P did
not and goes on in the stream's next line. conmon cuts at 8 KiB, so lines are short. Its clock is
UTC (we start it so), hence times compare as texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Stream = Literal["stdout", "stderr"]

# The longest line conmon writes: 44 bytes of head, 8192 of text, and one to spare for each part.
MAX_LINE = 8192 + 64

_LINE = re.compile(rb"([^ \n]+) (stdout|stderr) ([FP]) ([^\n]*)\n")
# Both groups at once would be None and b"": one alternative each keeps the substitution in C.
_RAW = re.compile(rb"[^ \n]+ std(?:out|err) (?:P ([^\n]*)\n|F ([^\n]*\n))")


@dataclass(frozen=True, slots=True)
class Line:
    """`offset` and `end` are where it lies in the log, `time` is RFC 3339 with nanoseconds and Z.

    A line no conmon wrote (a full disk cut it) comes as it is, as stdout, with an empty time.
    """

    offset: int
    end: int
    time: str
    stream: Stream
    partial: bool
    text: bytes


def parse_lines(data: bytes, offset: int = 0) -> tuple[list[Line], int]:
    """The whole lines in `data`, which begins at `offset` of the log; and the bytes they take.

    `data` must begin at a line's beginning. What is left over is the beginning of the next line.
    """
    return list(_lines(data, offset)), data.rfind(b"\n") + 1


def _lines(data: bytes, offset: int) -> Iterator[Line]:
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        found = _LINE.match(data, start, end)
        if found is None:
            yield Line(offset + start, offset + end, "", "stdout", False, data[start : end - 1])
        else:
            time, stream, tag, text = found.groups()
            yield Line(
                offset + start,
                offset + end,
                time.decode("ascii", "replace").replace("+00:00", "Z"),
                "stdout" if stream == b"stdout" else "stderr",
                tag == b"P",
                text,
            )
        start = end


def decode_tty(data: bytes) -> tuple[bytes, int]:
    """What the program wrote, both streams in the log's order; and the bytes of log it took.

    `data` must begin at a line's beginning. For a tty this is exactly what its screen gets.
    """
    consumed = data.rfind(b"\n") + 1
    return _RAW.sub(rb"\1\2", data[:consumed]), consumed


def line_time(when: datetime) -> str:
    """As lines have it, for comparing."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
