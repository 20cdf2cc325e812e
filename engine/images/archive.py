"""An archive of images (`docker save`) as a file: its members by name, found without unpacking it.

What it says is believed nowhere: sizes are held against the file, links stay inside, documents are
bounded, and a compressed archive is unpacked beside itself only as far as there is room. What the
members mean is engine.images.load's.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ContextError
from engine.images import room
from engine.snapshots.compress import open_layer
from engine.snapshots.tar_reader import FILE, LINK, SYMLINK, TarReader

DOCUMENT_LIMIT = 8 << 20
_MEMBERS = 100_000
_LINKS = 8
_PIECE = 1 << 20
_ROOM_EVERY = 64 << 20
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    size: int


class Member:
    """A file of the archive, read from its start by whoever opened it."""

    def __init__(self, fd: int, place: _Place) -> None:
        self._fd = fd
        self._at = place.offset
        self._end = place.offset + place.size
        self.size = place.size

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, min(size, self._end - self._at), self._at)
        if not data and self._at < self._end:
            raise ContextError("the archive ends in the middle of an entry")
        self._at += len(data)
        return data


class Archive:
    """Made by `opened`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._places: dict[str, _Place] = {}
        self._links: dict[str, str] = {}
        self._index()

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def open(self, name: str) -> Member:
        """Raises ContextError where it is missing."""
        place = self._find(name)
        if place is None:
            raise ContextError(
                f"the archive has no {name[:200]}",
                hint="make it with docker save, or skopeo copy … docker-archive: or oci-archive:",
            )
        return Member(self._fd, place)

    def read(self, name: str) -> bytes:
        """A document, at most 8 MiB."""
        member = self.open(name)
        if member.size > DOCUMENT_LIMIT:
            raise ContextError(f"the archive's {name[:200]} has {member.size} bytes: too many")
        return b"".join(iter(lambda: member.read(_PIECE), b""))

    def _index(self) -> None:
        length = os.fstat(self._fd).st_size
        os.lseek(self._fd, 0, os.SEEK_SET)
        reader = TarReader(_Whole(self._fd), lambda count: os.lseek(self._fd, count, os.SEEK_CUR))
        for number, entry in enumerate(reader):
            if number >= _MEMBERS:
                raise ContextError(f"the archive has more than {_MEMBERS} entries")
            name = _clean(entry.name.decode(errors="surrogateescape"))
            if entry.type == FILE and entry.runs is None:
                place = _Place(reader.offset, entry.size)
                if place.offset + place.size > length:
                    raise ContextError(
                        "the archive ends in the middle of an entry", hint="copy it again, whole"
                    )
                self._places[name] = place
            elif entry.type in (LINK, SYMLINK):
                folder = "" if entry.type == LINK else posixpath.dirname(name)
                link = entry.link.decode(errors="surrogateescape")
                self._links[name] = _clean(posixpath.join(folder, link))

    def _find(self, name: str) -> _Place | None:
        name = _clean(name)
        for _ in range(_LINKS):
            if name in self._places:
                return self._places[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive in the file, compressed or not; what is unpacked lies beside it meanwhile.

    Raises ContextError for what is no such archive, NoSpace."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ContextError(
            f"the archive cannot be read: {error.strerror}", hint="send it again"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ContextError("the archive is no file", hint="send it again")
        if os.pread(fd, 8, 0).startswith(_MAGIC):
            plain = _unpacked(fd, path.parent)
            os.close(fd)
            fd = plain
        yield Archive(fd)
    finally:
        os.close(fd)


def _unpacked(packed: int, folder: Path) -> int:
    """A file without a name: it goes with its descriptor, whatever happens."""
    fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        checked = 0
        with open_layer(_Whole(packed), hashed=False) as reader:
            while data := reader.read(_PIECE):
                checked -= len(data)
                if checked < 0:
                    room.check(folder, _ROOM_EVERY)
                    checked = _ROOM_EVERY
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


class _Whole:
    """The file from where it stands."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


def _clean(name: str) -> str:
    """Inside, whatever it says: `./a/../../b` is `b`."""
    return posixpath.normpath("/" + name).lstrip("/")
