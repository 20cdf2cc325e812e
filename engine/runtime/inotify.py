"""inotify(7) as a small object: folders and files watched, events read, a descriptor to wait on.

Waiting is the caller's (poll, epoll, asyncio's add_reader): nothing here blocks.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MODIFY: Final = 0x002
CLOSE_WRITE: Final = 0x008
MOVED_FROM: Final = 0x040
MOVED_TO: Final = 0x080
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x01000000

_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Event:
    """`directory` is the path given to `add`; `name` the entry in it, empty for itself.

    OVERFLOW has the root as its directory: events were lost, look at everything again.
    """

    directory: Path
    name: str
    mask: int


class Inotify:
    """One inotify instance; close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify_init1")
        self._paths: dict[int, Path] = {}

    def fileno(self) -> int:
        return self._descriptor

    def add(self, path: Path, mask: int) -> int:
        """Watch `path`; its watch's number. The same file twice is one watch with the new mask.

        Raises OSError: FileNotFoundError, NotADirectoryError with ONLYDIR, ENOSPC when
        fs.inotify.max_user_watches is reached.
        """
        watch: int = _libc.inotify_add_watch(
            self._descriptor, os.fsencode(path), ctypes.c_uint32(mask)
        )
        if watch < 0:
            raise _error(str(path))
        self._paths[watch] = path
        return watch

    def remove(self, watch: int) -> None:
        """Idempotent; an IGNORED event follows where it was still there."""
        _libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[Event]:
        """What is waiting; empty when nothing is."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & OVERFLOW:
                events.append(Event(Path("/"), "", mask))
            elif watch in self._paths:
                events.append(Event(self._paths[watch], name, mask))
                if mask & IGNORED:
                    del self._paths[watch]
        return events

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


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)
