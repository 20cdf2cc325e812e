"""What a snapshot changed, as a layer: overlay's upper folder -> a tar (image-spec layer.md).

Deterministic: parents before children, siblings by name, no user names; the same tree gives the
same bytes. Overlay's marks go back to whiteouts. Sockets are left out, as every engine does.
Compressing and storing is `compress`'s.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import Conflict, InvalidInput
from engine.snapshots.folders import OPAQUE, OPAQUE_XATTR, WHITEOUT, text
from engine.snapshots.resolve import opened
from engine.snapshots.tar_reader import BLOCK, CHAR, FIFO, FILE, FOLDER, LINK, SYMLINK
from engine.snapshots.tar_writer import END, member, padding, sparse_member

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_DEPTH = 2000
_BATCH = 256 << 10
_PIECE = 1 << 20
_HOLES = 1 << 20
"""A file is stored as sparse when that saves a MiB: small ones read better anywhere as they are."""
_RUNS = 20_000  # a map that readers take: at most 1 MiB of digits

_KEPT = ("user.", "system.posix_acl_")
_CAPABILITY = "security.capability"


class Writable(Protocol):
    """Where the tar goes: a file, or `compress.LayerWriter`."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class LayerStats:
    """Members and bytes of the tar written."""

    entries: int
    bytes: int


def write_layer(
    upper: Path, out: Writable, mount_points: Collection[bytes] = frozenset()
) -> LayerStats:
    """Write the tar of what lies in `upper`, whose own mode and owner are not part of it.

    `mount_points` (`etc/hosts`, `proc`) are left out where they are empty: a runtime made them.

    Kept are hard links, devices, fifos, setuid, nanoseconds, holes, and of the xattrs `user.*`,
    file capabilities and ACLs (overlay's and labels of this host go). Raises InvalidInput for a
    name that begins with `.wh.`, Conflict for a file that shrinks while it is read.
    """
    with ExitStack() as stack:
        writer = _Writer(out, mount_points)
        writer.walk(stack, stack.enter_context(opened(upper)))
        writer.flush(END)
        return LayerStats(writer.entries, writer.bytes)


def write_tree(folder: int, base: bytes, name: bytes, out: Writable) -> LayerStats:
    """Write the tar of what `base` is in the folder's descriptor, as people see it: nothing in it
    is a mark. `base` "" is the folder itself; a folder's `name` ends with a slash, and with an
    empty one it is what lies in it, without itself.

    What goes or shrinks while it is read is left out or filled with zeros: it may be in use.
    """
    with ExitStack() as stack:
        writer = _Writer(out, frozenset(), live=True)
        if not name or name.endswith(b"/"):
            top = os.open(base or b".", _FOLDER, dir_fd=folder)
            stack.callback(os.close, top)
            if name:
                writer.folder(top, name)
            writer.walk(stack, top, name)
        else:
            writer.entry(folder, base, name)
        writer.flush(END)
        return LayerStats(writer.entries, writer.bytes)


class _Writer:
    def __init__(
        self, out: Writable, mount_points: Collection[bytes], *, live: bool = False
    ) -> None:
        self._live = live
        self._out = out
        self._mount_points = mount_points
        self._parts: list[bytes] = []
        self._held = 0
        self._linked: dict[tuple[int, int], bytes] = {}
        self.entries = 0
        self.bytes = 0

    def walk(self, stack: ExitStack, top: int, prefix: bytes = b"") -> None:
        todo: list[tuple[int, bytes, Iterator[os.DirEntry[str]]]] = [(top, prefix, _sorted(top))]
        stack.callback(_close_all, todo)
        while todo:
            fd, prefix, entries = todo[-1]
            entry = next(entries, None)
            if entry is None:
                todo.pop()
                if todo:
                    os.close(fd)
                continue
            base = os.fsencode(entry.name)
            name = prefix + base
            if base.startswith(WHITEOUT) and not self._live:
                raise InvalidInput(
                    f"{text(name)} has a name that layers keep for deleted files",
                    hint="rename it: names in an image cannot begin with .wh.",
                )
            if name in self._mount_points and _is_empty(fd, base):
                continue
            if entry.is_dir(follow_symlinks=False):
                if len(todo) > _DEPTH:
                    raise InvalidInput(f"folders are nested deeper than {_DEPTH}: {text(name)}")
                try:
                    below = os.open(base, _FOLDER, dir_fd=fd)
                except (FileNotFoundError, NotADirectoryError):
                    if not self._live:
                        raise
                    continue
                name += b"/"
                todo.append((below, name, _sorted(below)))
                self.folder(below, name)
            elif self._live:
                with suppress(FileNotFoundError):
                    self.entry(fd, base, name)
            elif entry.is_file(follow_symlinks=False):
                self._file(fd, base, name)
            else:
                self._other(fd, base, name)

    def entry(self, fd: int, base: bytes, name: bytes) -> None:
        """Anything but a folder, as it is now. Raises FileNotFoundError."""
        status = os.stat(base, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            self._file(fd, base, name)
        elif not stat.S_ISDIR(status.st_mode):
            self._other(fd, base, name)

    def flush(self, last: bytes) -> None:
        self._put(last)
        self._out.write(b"".join(self._parts))
        self._parts.clear()
        self._held = 0

    def folder(self, fd: int, name: bytes) -> None:
        status = os.fstat(fd)
        names = os.listxattr(fd)
        self._member(name, FOLDER, status, _kept(fd, names))
        if not self._live and OPAQUE_XATTR in names and os.getxattr(fd, OPAQUE_XATTR) == b"y":
            self._put(member(name + OPAQUE, FILE, mode=0o600))
            self.entries += 1

    def _file(self, folder: int, base: bytes, name: bytes) -> None:
        fd = os.open(base, _FILE, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _changed(name)
            if status.st_nlink > 1 and self._again(name, status):
                return
            names = os.listxattr(fd)
            xattrs = _kept(fd, names) if names else {}
            size = status.st_size
            if status.st_blocks * 512 + _HOLES <= size:
                runs = _runs(fd, size)
                saved = size - sum(length for _, length in runs)
                if saved >= _HOLES and len(runs) <= _RUNS:
                    self._sparse(fd, name, status, runs, xattrs)
                    return
            self._member(name, FILE, status, xattrs, size=size)
            self._copy(fd, name, 0, size)
            self._put(padding(size))
        finally:
            os.close(fd)

    def _sparse(
        self,
        fd: int,
        name: bytes,
        status: os.stat_result,
        runs: list[tuple[int, int]],
        xattrs: dict[str, bytes],
    ) -> None:
        self._put(
            sparse_member(
                name,
                runs,
                status.st_size,
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                mtime_ns=status.st_mtime_ns,
                xattrs=xattrs,
            )
        )
        self.entries += 1
        for offset, length in runs:
            self._copy(fd, name, offset, length)
        self._put(padding(sum(length for _, length in runs)))

    def _other(self, folder: int, base: bytes, name: bytes) -> None:
        status = os.stat(base, dir_fd=folder, follow_symlinks=False)
        mode, device = status.st_mode, (os.major(status.st_rdev), os.minor(status.st_rdev))
        kind, link = CHAR, b""
        if stat.S_ISCHR(mode) and device == (0, 0) and not self._live:
            hidden = name[: -len(base)] + WHITEOUT + base
            self._put(member(hidden, FILE, mode=0o600))
            self.entries += 1
            return
        if stat.S_ISSOCK(mode):
            return
        if stat.S_ISLNK(mode):
            kind, link = SYMLINK, os.readlink(base, dir_fd=folder)
        elif stat.S_ISBLK(mode):
            kind = BLOCK
        elif stat.S_ISFIFO(mode):
            kind = FIFO
        if status.st_nlink > 1 and self._again(name, status):
            return
        path = b"/proc/self/fd/%d/%b" % (folder, base)
        xattrs = _kept(path, os.listxattr(path, follow_symlinks=False))
        self._member(name, kind, status, xattrs, link=link, device=device)

    def _again(self, name: bytes, status: os.stat_result) -> bool:
        """Write a hard link if this file went by already under another name."""
        first = self._linked.setdefault((status.st_dev, status.st_ino), name)
        if first == name:
            return False
        self._member(name, LINK, status, {}, link=first)
        return True

    def _member(
        self,
        name: bytes,
        kind: bytes,
        status: os.stat_result,
        xattrs: dict[str, bytes],
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self._put(
            member(
                name,
                kind,
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                size=size,
                mtime_ns=status.st_mtime_ns,
                link=link,
                device=device,
                xattrs=xattrs,
            )
        )
        self.entries += 1

    def _copy(self, fd: int, name: bytes, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            piece = os.pread(fd, min(_PIECE, end - offset), offset)
            if not piece:
                if not self._live:
                    raise _changed(name)
                piece = bytes(min(_PIECE, end - offset))
            self._put(piece)
            offset += len(piece)

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)
        self.bytes += len(data)
        if self._held >= _BATCH:
            self._out.write(b"".join(self._parts))
            self._parts.clear()
            self._held = 0


def _close_all(todo: list[tuple[int, bytes, Iterator[os.DirEntry[str]]]]) -> None:
    for fd, _, _ in todo[1:]:
        os.close(fd)


def _sorted(fd: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(fd) as entries:
        return iter(sorted(entries, key=lambda entry: os.fsencode(entry.name)))


def _is_empty(folder: int, base: bytes) -> bool:
    """A folder or file with nothing in it."""
    status = os.stat(base, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0
    if not stat.S_ISDIR(status.st_mode):
        return False
    fd = os.open(base, _FOLDER, dir_fd=folder)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    finally:
        os.close(fd)


def _kept(file: int | bytes, names: list[str]) -> dict[str, bytes]:
    return {
        name: os.getxattr(file, name, follow_symlinks=isinstance(file, int))
        for name in names
        if (name.startswith(_KEPT) or name == _CAPABILITY) and "=" not in name  # PAX cannot say it
    }


def _runs(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of each piece that is no hole."""
    runs: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        runs.append((start, at - start))
    return runs


def _changed(name: bytes) -> Conflict:
    return Conflict(
        f"{text(name)} changed while it was read",
        hint="pause or stop the container, then try again",
    )
