"""An uploaded archive unpacked into a safe tree: tar (plain, gzip, bzip2, xz, zstd) and zip.

The archive is a stranger's. Refused, naming the entry: absolute names, `..`, whatever lies below a
link, hard links to anything but a file of the same archive, devices, fifos and sockets. A symbolic
link is kept as it is, wherever it points: it is content, and whoever reads the tree resolves it
inside the root (engine.build.context). Bytes, entries and the ratio of unpacked to packed are
bounded while they stream (engine.build.archive_tree). Leaves layers to engine.snapshots.
"""

from __future__ import annotations

import calendar
import errno
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal

from engine.build.archive_tree import DEFAULT_LIMITS, MAX_PATH, ArchiveTree, Limits, broken, unsafe
from engine.errors import Cancelled, ContextError, NoSpace
from engine.snapshots.compress import LayerReader, open_layer
from engine.snapshots.tar_reader import FILE, FOLDER, LINK, SYMLINK, Entry, TarReader

_CHUNK = 256 * 1024


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
        tree = ArchiveTree(dest, limits, path.stat().st_size, keep_owners, cancelled)
        with open(path, "rb") as file:
            try:
                kind = sniff(file)
            except ContextError as error:
                raise broken("", error) from error
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


def list_archive(file: BinaryIO, tree: ArchiveTree) -> None:
    """Give the entries of a tar, compressed or not, to `tree`. Raises ContextError."""
    _unpack_tar(file, DEFAULT_LIMITS, tree)


def sniff(file: BinaryIO) -> Literal["tar", "zip"] | None:
    """What the content is: a tar, compressed or not, a zip, or None for anything else.

    Compressed data counts only when a tar is inside. The position is back at 0 afterwards.
    Raises ContextError for compressed data that is damaged from the start.
    """
    head = file.read(8)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if is_plain_tar(file):
        return "tar"
    try:
        with open_layer(file) as stream:
            first = _exactly(stream, 512)
    finally:
        file.seek(0)
    return "tar" if _is_tar(first) else None


def is_plain_tar(file: BinaryIO) -> bool:
    """Whether it begins as an uncompressed ustar archive: no decompressor, and no thread of one,
    is needed. The position is back at 0 afterwards."""
    head = file.read(512)
    file.seek(0)
    return head[257:262] == b"ustar" and _is_tar(head)


@contextmanager
def tar_of(file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> Iterator[TarReader]:
    """A reader of the tar, compressed or not. Raises ContextError."""
    if is_plain_tar(file):
        yield TarReader(file)
        return
    with open_layer(file, ratio=limits.ratio, grace=limits.ratio_floor, hashed=False) as stream:
        yield TarReader(stream)


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


def _unpack_tar(file: BinaryIO, limits: Limits, tree: ArchiveTree) -> None:
    name = ""
    try:
        with tar_of(file, limits) as reader:
            for entry in reader:
                name = os.fsdecode(entry.name)
                _unpack_entry(reader, entry, name, tree)
    except ContextError as error:
        if "entry" in error.context or "bomb" in error.hint:
            raise
        raise broken(name, error) from error


def _unpack_entry(reader: TarReader, entry: Entry, name: str, tree: ArchiveTree) -> None:
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
        raise unsafe(name, "it is a device, a fifo or a socket")
    tree.own(clean, entry.uid, entry.gid, entry.mode)


def _unpack_zip(path: Path, tree: ArchiveTree) -> None:
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = _zip_name(info)
                if info.flag_bits & 1:
                    raise unsafe(name, "it is encrypted")
                _unpack_zip_entry(archive, info, name, tree)
    except (ContextError, Cancelled):
        raise
    except _BROKEN_ZIP as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise broken(name, error) from error


def _unpack_zip_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, tree: ArchiveTree
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
            target = content.read(MAX_PATH + 1)
        tree.link(clean, name, os.fsdecode(target), mtime_ns)
    elif kind in (0, stat.S_IFREG):
        with archive.open(info) as content:
            tree.file(clean, name, mode or 0o644, mtime_ns, _pieces(content))
    else:
        raise unsafe(name, "it is a device, a fifo or a socket")


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
