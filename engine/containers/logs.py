"""A container's log on disk, read by offset, rotated without losing one.

Vocabulary. A *log* is a folder. conmon appends to `current` in it; older parts are named by the
offset they begin at. An *offset* counts bytes from the container's first ever, over all parts
and all starts, and never changes its meaning: where a part has been dropped, reading gives a
*gap*. Nothing but names and sizes says where a part lies, so a crash between any two steps of a
rotation leaves a log that reads the same.

Parsing lines is in loglines.py, waiting for more in watch.py.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.containers.loglines import MAX_LINE, Line, decode_tty, line_time, parse_lines
from engine.errors import WrongState
from engine.runtime import conmon

__all__ = ["Chunk", "Gap", "Line", "LogReader", "decode_tty", "parse_lines", "rotate"]

CURRENT = "current"
_DIGITS = 20
_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """A log is at most `parts` (two or more) times `part_bytes`, and what conmon adds between two
    looks."""

    part_bytes: int = 10 * 1024 * 1024
    parts: int = 10


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes from `start` to `end` (exclusive) are no longer kept."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """`data` begins at `offset`; with a `gap` that is behind it. Empty at the end, for now."""

    offset: int
    data: bytes
    gap: Gap | None = None

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class _Part:
    start: int
    path: Path
    size: int
    inode: int


class LogReader:
    """Reads one log; its own descriptor, so one reader for each who reads. Close it.

    A log that does not exist (yet) is an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self._start = 0

    def bounds(self) -> tuple[int, int]:
        """(first offset that is kept, end for now)."""
        parts = _parts(self._folder)
        return (parts[0].start, parts[-1].start + parts[-1].size) if parts else (0, 0)

    def read(self, offset: int, limit: int = _BLOCK) -> Chunk:
        """Up to `limit` bytes of the log from `offset` on, not beyond the end of one part.

        An offset at or beyond the end gives an empty chunk at the end.
        """
        if self._descriptor >= 0 and offset >= self._start:
            data = os.pread(self._descriptor, limit, offset - self._start)
            if data:
                return Chunk(offset, data)
        # Nothing more in this part, or another one: look at the folder afresh.
        gap = self._open(offset)
        if gap is not None:
            offset = gap.end
        if self._descriptor < 0:
            return Chunk(0, b"", gap)
        offset = min(offset, self._start + os.fstat(self._descriptor).st_size)
        return Chunk(offset, os.pread(self._descriptor, limit, offset - self._start), gap)

    def read_lines(self, offset: int, limit: int = _BLOCK) -> tuple[list[Line], int, Gap | None]:
        """Whole lines from `offset` (a line's beginning), the offset after them, and the gap."""
        chunk = self.read(offset, max(limit, MAX_LINE))
        lines, consumed = parse_lines(chunk.data, chunk.offset)
        return lines, chunk.offset + consumed, chunk.gap

    def tail(self, lines: int) -> int:
        """Where the last `lines` lines begin; a line written in pieces counts once."""
        first, end = self.bounds()
        if lines <= 0:
            return self.line_start(end)
        offset, found, kept = end, 0, end
        pending = b""
        while offset > first:
            step = self._before(offset, first)
            data = step.data + pending
            # Only whole lines count: the beginning of the block belongs to the block before it.
            skip = 0 if step.offset == first else data.find(b"\n") + 1 or len(data)
            for line in reversed(parse_lines(data[skip:], step.offset + skip)[0]):
                found += not line.partial or kept == end
                if found > lines:
                    return kept
                kept = line.offset
            pending, offset = data[:skip], step.offset
        return first

    def seek_time(self, when: datetime) -> int:
        """Where the first line of `when` or later begins; the end when there is none."""
        return self.seek(line_time(when))

    def seek(self, wanted: str) -> int:
        """The same for a time as lines have it (RFC 3339, nanoseconds, Z)."""
        first, end = self.bounds()
        low, high = first, end
        # Between two line beginnings: `low` is earlier than wanted (or the start), `high` not.
        while high - low > MAX_LINE:
            middle = self.line_start((low + high) // 2)
            lines = self.read_lines(middle)[0]
            if middle <= low or not lines:
                break
            if lines[0].time < wanted:
                low = middle
            else:
                high = middle
        while low < end:
            lines, after, gap = self.read_lines(low)
            for line in lines:
                if line.time >= wanted:
                    return line.offset
            if after <= low and gap is None:
                return low
            low = after
        return end

    def line_start(self, offset: int) -> int:
        """The beginning of the line `offset` lies in; `offset` itself where a line begins."""
        first, end = self.bounds()
        offset = max(first, min(offset, end))
        step = self._before(offset, first)
        return step.offset + step.data.rfind(b"\n") + 1 if b"\n" in step.data else step.offset

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _before(self, offset: int, first: int) -> Chunk:
        """The bytes that end at `offset`, up to a block, over a border of parts if need be."""
        start = max(first, offset - _BLOCK)
        data = b""
        while start + len(data) < offset:
            more = self.read(start + len(data), offset - start - len(data))
            if not more.data or more.gap is not None:
                break
            data += more.data
        return Chunk(start, data[: offset - start])

    def _open(self, offset: int) -> Gap | None:
        """Open the part with `offset` in it, else the nearest behind it."""
        while True:
            self.close()
            parts = _parts(self._folder)
            if not parts:
                return None
            gap = Gap(offset, parts[0].start) if offset < parts[0].start else None
            part = parts[0]
            for candidate in parts:
                # At a border the next part is meant, so that an end is never mistaken for it.
                if candidate.start <= offset:
                    part = candidate
            try:
                self._descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated between the look and the open
            # Else: another file has this name by now.
            if os.fstat(self._descriptor).st_ino == part.inode:
                self._start = part.start
                return gap


def rotate(folder: Path, bundle: Path, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Begin a new part when the current one is full, drop the oldest; whether one was begun.

    Idempotent, safe beside readers, other rotations and the container's own end. `bundle` is
    where its conmon listens. To be called now and then for what runs.
    """
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        parts = _parts(folder)
        if not parts:
            return False
        last = parts[-1]
        renamed = False
        if last.path.name == CURRENT and last.size >= limits.part_bytes:
            last.path.rename(folder / f"{last.start:0{_DIGITS}}")
            renamed = True
        if renamed or last.path.name != CURRENT:
            # The second: a rotation before us was killed between its two halves.
            with suppress(WrongState):  # no conmon: the next start makes `current` anew
                conmon.reopen_log(bundle)
        for part in parts[: max(0, len(parts) + renamed - max(2, limits.parts))]:
            part.path.unlink(missing_ok=True)
        return renamed
    finally:
        os.close(lock)


def _parts(folder: Path) -> list[_Part]:
    """All parts in order. The last one alone may still grow."""
    while True:
        # `current` first: once it is there, conmon has left the part before it for good.
        current = _stat(folder / CURRENT)
        starts = sorted(
            int(name) for name in _names(folder) if len(name) == _DIGITS and name.isdigit()
        )
        parts: list[_Part] = []
        for start in starts:
            path = folder / f"{start:0{_DIGITS}}"
            found = _stat(path)
            if found is not None:
                parts.append(_Part(start, path, found.st_size, found.st_ino))
                if current is not None and found.st_ino == current.st_ino:
                    break  # rotated between our two looks
        else:
            if current is not None:
                start = parts[-1].start + parts[-1].size if parts else 0
                parts.append(_Part(start, folder / CURRENT, current.st_size, current.st_ino))
            return parts


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
