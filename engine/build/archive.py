"""An uploaded archive unpacked into a safe tree: tar (plain, gzip, bzip2, xz, zstd) and zip.

The archive is a stranger's. Nothing is written outside `dest` and no link is ever written
through: every folder an entry lies in was made here, as a folder. Refused, naming the entry:
absolute names, `..`, hard links to anything but a file of the same archive, devices, fifos and
sockets. A symbolic link is kept as it is, wherever it points: it is content, and whoever reads
the tree resolves it inside the root (engine.build.context). Bytes, entries and the ratio of
unpacked to packed are bounded while they stream. Leaves layers, with their whiteouts, to
engine.snapshots.
"""

# Plain strings: a Path object for each file costs more than the system call.
# ruff: noqa: PTH101, PTH102, PTH108, PTH211
from __future__ import annotations

import calendar
import errno
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal

from engine.errors import Cancelled, ContextError, NoSpace
from engine.snapshots.compress import LayerReader, open_layer
from engine.snapshots.tar_reader import FILE, FOLDER, LINK, SYMLINK, Entry, TarReader

_CHUNK = 256 * 1024
_MAX_PATH = 4095


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may unpack to. Under `ratio_floor` bytes the ratio does not count: small
    sources compress well; over it gzip's best honest case (source, logs) is some 50 to 1."""

    size: int = 64 * 1024**3
    entries: int = 500_000
    ratio: int = 200
    ratio_floor: int = 256 * 1024**2


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out: entries (folders and links too) and bytes of files."""

    entries: int
    size: int


def unpack_archive(
    path: Path,
    dest: Path,
    *,
    limits: Limits = DEFAULT_LIMITS,
    keep_owners: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Unpacked:
    """Unpack `path` into `dest` (made here with mode 0700, or empty).

    Modes and times are kept; owners only with `keep_owners` (ADD of a local archive), because a
    context's files are root's in the image. The root stays 0700: it may hold setuid files.
    Raises ContextError naming the entry, NoSpace, Cancelled; what was unpacked is left to the
    caller to remove.
    """
    try:
        dest.mkdir(exist_ok=True)
        dest.chmod(0o700)
        if any(dest.iterdir()):
            raise ContextError(f"not an empty folder: {dest}")
        tree = _Tree(dest, limits, path.stat().st_size, keep_owners, cancelled)
        with open(path, "rb") as file:
            try:
                kind = sniff(file)
            except ContextError as error:
                raise _broken("", error) from error
            if kind == "zip":
                _unpack_zip(path, tree)
            elif kind is None:
                raise ContextError(
                    "not an archive of a known kind",
                    hint="upload a folder, a zip or a tar (plain, gz, bz2, xz or zst)",
                )
            else:
                _unpack_tar(file, limits, tree)
        tree.finish()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                "the disk is full: the context could not be unpacked",
                hint="free some space, or leave files out with .dockerignore",
            ) from error
        raise
    return Unpacked(tree.entries, tree.size)


def sniff(file: BinaryIO) -> Literal["tar", "zip"] | None:
    """What the content is: a tar, compressed or not, a zip, or None for anything else.

    Compressed data counts only when a tar is inside. The position is back at 0 afterwards.
    Raises ContextError for compressed data that is damaged from the start.
    """
    head = file.read(8)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    try:
        with open_layer(file) as stream:
            first = _exactly(stream, 512)
    finally:
        file.seek(0)
    return "tar" if _is_tar(first) else None


def _exactly(stream: LayerReader, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    return data


def _is_tar(head: bytes) -> bool:
    """A header block whose checksum holds (also v7 tars, without magic), or an empty tar."""
    if len(head) < 512:
        return False
    try:
        next(iter(TarReader(io.BytesIO(head))), None)
    except ContextError as error:
        # A long name's payload lies in the next block; what counts is that the header was one.
        return "ends in the middle" in error.message
    return True


_BROKEN_ZIP = (
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,  # a compression it does not know
    RuntimeError,
)


class _Tree:
    """The folder being filled. `_kinds` knows every path made so far, so that a parent is safe
    exactly when it is in there as a folder: no lookup on disk could be raced or fooled."""

    def __init__(
        self,
        root: Path,
        limits: Limits,
        packed: int,
        keep_owners: bool,
        cancelled: Callable[[], bool],
    ) -> None:
        self._root = str(root)
        self._limits = limits
        self._allowed = max(limits.ratio_floor, limits.ratio * packed)
        self._keep_owners = keep_owners
        self._cancelled = cancelled
        self._kinds: dict[str, str] = {"": "folder"}
        self._folders: dict[str, tuple[int, int]] = {}
        self.entries = 0
        self.size = 0

    def path(self, name: str) -> str:
        """The entry's name, cleaned; counts it. Raises ContextError for what leads outside."""
        self.entries += 1
        if self.entries > self._limits.entries:
            raise ContextError(
                f"too many files in the archive: over {self._limits.entries}",
                hint="leave out what the build does not need",
                entry=name,
            )
        if self.entries % 256 == 0 and self._cancelled():
            raise Cancelled("cancelled while unpacking")
        if name.startswith("/"):
            raise _unsafe(name, "its name is an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise _unsafe(name, "its name leads outside with ..")
        if "\0" in name:
            raise _unsafe(name, "its name holds a zero byte")
        clean = "/".join(parts)
        if len(os.fsencode(clean)) > _MAX_PATH or any(len(os.fsencode(p)) > 255 for p in parts):
            raise _unsafe(name[:200], "its name is too long")
        return clean

    def folder(self, clean: str, name: str, mode: int, mtime_ns: int) -> None:
        self._ensure(clean, name)
        if clean:
            self._folders[clean] = (mode, mtime_ns)

    def file(
        self,
        clean: str,
        name: str,
        mode: int,
        mtime_ns: int,
        pieces: Iterable[tuple[int, bytes | memoryview]],
        size: int | None = None,
    ) -> None:
        """`pieces` are (offset, bytes); holes between them and up to `size` stay holes."""
        target = self._place(clean, name, "file")
        if size is not None:
            self._count(size, name)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            end = 0
            for offset, data in pieces:
                if size is None:
                    self._count(len(data), name)
                end = offset + len(data)
                while data:
                    written = os.pwrite(descriptor, data, offset)
                    offset, data = offset + written, data[written:]
                if self._cancelled():
                    raise Cancelled("cancelled while unpacking")
            if size is not None and end < size:
                os.ftruncate(descriptor, size)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)

    def link(self, clean: str, name: str, target: str, mtime_ns: int) -> None:
        if not target or "\0" in target or len(os.fsencode(target)) > _MAX_PATH:
            raise _unsafe(name, "its link target is not a path")
        place = self._place(clean, name, "link")
        os.symlink(target, place)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def hard_link(self, clean: str, name: str, target: str) -> None:
        other = "/".join(part for part in target.split("/") if part not in ("", "."))
        if target.startswith("/") or self._kinds.get(other) != "file":
            raise _unsafe(name, f"it is a hard link to {target}, no file of this archive")
        if other == clean:
            return
        place = self._place(clean, name, "file")
        os.link(f"{self._root}/{other}", place, follow_symlinks=False)

    def own(self, clean: str, uid: int, gid: int, mode: int | None) -> None:
        if self._keep_owners and clean:
            path = f"{self._root}/{clean}"
            os.chown(path, uid, gid, follow_symlinks=False)
            if mode is not None:
                # chown(2) takes setuid away.
                os.chmod(path, mode)

    def finish(self) -> None:
        """Modes and times of folders come last: files put into them would change both."""
        for clean, (mode, mtime_ns) in sorted(self._folders.items(), reverse=True):
            path = f"{self._root}/{clean}"
            os.chmod(path, mode)
            os.utime(path, ns=(mtime_ns, mtime_ns))

    def _count(self, size: int, name: str) -> None:
        self.size += size
        if self.size > self._limits.size or self.size > self._allowed:
            raise ContextError(
                f"the archive unpacks to too much: over {self.size} bytes at {name}",
                hint="leave out what the build does not need",
                entry=name,
            )

    def _place(self, clean: str, name: str, kind: str) -> str:
        if not clean:
            raise _unsafe(name, "it would replace the root of the tree")
        self._ensure(clean.rpartition("/")[0], name)
        path = f"{self._root}/{clean}"
        if existing := self._kinds.get(clean):
            if existing == "folder":
                raise _unsafe(name, "it would replace a folder")
            os.unlink(path)  # a later entry of the same name wins, as with tar
        self._kinds[clean] = kind
        return path

    def _ensure(self, clean: str, name: str) -> None:
        kind = self._kinds.get(clean)
        if kind == "folder":
            return
        if kind is not None:
            raise _unsafe(name, f"it lies below {clean}, which is no folder")
        parent = clean.rpartition("/")[0]
        self._ensure(parent, name)
        os.mkdir(f"{self._root}/{clean}", 0o755)
        self._kinds[clean] = "folder"


def _unpack_tar(file: BinaryIO, limits: Limits, tree: _Tree) -> None:
    name = ""
    try:
        with open_layer(file, ratio=limits.ratio, grace=limits.ratio_floor) as stream:
            reader = TarReader(stream)
            for entry in reader:
                name = os.fsdecode(entry.name)
                _unpack_entry(reader, entry, name, tree)
    except ContextError as error:
        if "entry" in error.context or "bomb" in error.hint:
            raise
        raise _broken(name, error) from error


def _unpack_entry(reader: TarReader, entry: Entry, name: str, tree: _Tree) -> None:
    clean = tree.path(name)
    if entry.type == FILE:
        tree.file(clean, name, entry.mode, entry.mtime_ns, reader.data(), entry.size)
    elif entry.type == FOLDER:
        tree.folder(clean, name, entry.mode, entry.mtime_ns)
    elif entry.type == SYMLINK:
        tree.link(clean, name, os.fsdecode(entry.link), entry.mtime_ns)
        tree.own(clean, entry.uid, entry.gid, None)
        return
    elif entry.type == LINK:
        tree.hard_link(clean, name, os.fsdecode(entry.link))
        return
    else:
        raise _unsafe(name, "it is a device, a fifo or a socket")
    tree.own(clean, entry.uid, entry.gid, entry.mode)


def _unpack_zip(path: Path, tree: _Tree) -> None:
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = _zip_name(info)
                if info.flag_bits & 1:
                    raise _unsafe(name, "it is encrypted")
                _unpack_zip_entry(archive, info, name, tree)
    except (ContextError, Cancelled):
        raise
    except _BROKEN_ZIP as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _broken(name, error) from error


def _unpack_zip_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, tree: _Tree
) -> None:
    clean = tree.path(name)
    # Only Unix-made zips carry modes; others get what a checkout would have.
    unix = info.external_attr >> 16 if info.create_system in (3, 19) else 0
    mode, kind = stat.S_IMODE(unix), stat.S_IFMT(unix)
    mtime_ns = _zip_time(info)
    if info.is_dir() or kind == stat.S_IFDIR:
        tree.folder(clean, name, mode or 0o755, mtime_ns)
    elif kind == stat.S_IFLNK:
        with archive.open(info) as content:
            target = content.read(_MAX_PATH + 1)
        tree.link(clean, name, os.fsdecode(target), mtime_ns)
    elif kind in (0, stat.S_IFREG):
        with archive.open(info) as content:
            tree.file(clean, name, mode or 0o644, mtime_ns, _pieces(content))
    else:
        raise _unsafe(name, "it is a device, a fifo or a socket")


def _pieces(content: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while data := content.read(_CHUNK):
        yield offset, data
        offset += len(data)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """macOS writes UTF-8 names without saying so; zipfile then reads them as cp437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_time(info: zipfile.ZipInfo) -> int:
    year, month, day, hour, minute, second = info.date_time
    return max(0, calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))) * 10**9


def _unsafe(name: str, why: str) -> ContextError:
    return ContextError(
        f"unsafe entry in the archive: {name}: {why}",
        hint="make the archive again without this entry",
        entry=name,
    )


def _broken(name: str, error: Exception) -> ContextError:
    where = f" after {name}" if name else ""
    return ContextError(
        f"the archive is damaged or incomplete{where}: {error}",
        hint="upload it again",
        entry=name,
    )
