"""Unpacking a layer (or an archive for ADD) into a folder that is no longer trusted.

Every path is resolved inside `root` by the kernel (openat2 RESOLVE_IN_ROOT) and its last part is
never followed, so that neither `..` nor a link the archive or an earlier layer brought leads out.
Whiteouts become overlay's own marks (image-spec layer.md "Whiteouts"): 0/0 character devices and
the opaque xattr. Decompressing, and checking the diff_id, is `compress`'s; removing a half-made
root after an error is the caller's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import ContextError, EngineError, NoSpace
from engine.snapshots.folders import META, OPAQUE, WHITEOUT, Folders, clean, set_xattrs, text
from engine.snapshots.resolve import open_in_root, opened
from engine.snapshots.tar_reader import (
    BLOCK,
    CHAR,
    FIFO,
    FILE,
    FOLDER,
    LINK,
    SYMLINK,
    Entry,
    Readable,
    TarReader,
)

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = {CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}


@dataclass(frozen=True, slots=True)
class Rules:
    """What an archive may do. `bytes` of file data and number of `entries` bound a bomb (the
    ratio is bounded where it is decompressed). `whiteouts` off takes `.wh.` names literally;
    `devices` off refuses device nodes: nobody's upload needs them, and images do."""

    whiteouts: bool = True
    devices: bool = True
    bytes: int = 64 << 30
    entries: int = 2_000_000


LAYER = Rules()
ARCHIVE = Rules(whiteouts=False, devices=False)


@dataclass(frozen=True, slots=True)
class Applied:
    """`bytes` of file data and number of `entries` unpacked."""

    bytes: int
    entries: int


def apply_layer(
    tar_stream: Readable, root: Path, lowers: Sequence[Path] = (), rules: Rules = LAYER
) -> Applied:
    """Unpack an uncompressed tar into the existing folder `root`, as root, owners and all.

    A folder the archive needs but does not mention takes mode, owner, times and xattrs from the
    first of `lowers` that has it (`Snapshotter.lowers`), so that overlay shows it unchanged. A
    later entry replaces an earlier one; only folders merge. Raises ContextError for what is unsafe,
    damaged or beyond `rules`, and NoSpace; what was unpacked until then stays.
    """
    with ExitStack() as stack:
        top = stack.enter_context(opened(root))
        below = [stack.enter_context(opened(lower)) for lower in lowers]
        folders = Folders(top, below, whiteouts=rules.whiteouts)
        stack.callback(folders.close)
        return _Unpacker(TarReader(tar_stream), top, folders, rules).run()


def apply_entries(entries: Entries, root: int, rules: Rules = ARCHIVE) -> Applied:
    """The same of entries, into a folder that others may be using, by its descriptor."""
    folders = Folders(root, (), whiteouts=rules.whiteouts)
    try:
        return _Unpacker(entries, root, folders, rules).run()
    finally:
        folders.close()


class Entries(Protocol):
    """A `TarReader`, or what passes one's entries on changed."""

    def __iter__(self) -> Iterator[Entry]: ...
    def data(self) -> Iterable[tuple[int, memoryview]]: ...


class _Unpacker:
    def __init__(self, reader: Entries, root: int, folders: Folders, rules: Rules) -> None:
        self._reader = reader
        self._root = root
        self._folders = folders
        self._rules = rules
        self._make: Mapping[bytes, Callable[[int, bytes, Entry], None]] = {
            LINK: self._link,
            SYMLINK: self._symlink,
            CHAR: self._node,
            BLOCK: self._node,
            FIFO: self._node,
        }

    def run(self) -> Applied:
        rules, enter, file, make = self._rules, self._folders.enter, self._file, self._make
        count = total = 0
        name = b""
        try:
            for entry in self._reader:
                name, kind = entry.name, entry.type
                count += 1
                total += entry.stored
                if total > rules.bytes or count > rules.entries:
                    raise ContextError(
                        f"the archive holds more than {rules.bytes} bytes or {rules.entries} files",
                        hint="it may be a bomb; if it is meant, split it into several layers",
                    )
                path = clean(name)
                parent, _, base = path.rpartition(b"/")
                fd = enter(parent)
                if base.startswith(WHITEOUT) and rules.whiteouts:
                    self._whiteout(fd, parent, base)
                elif kind == FILE:
                    if not base:
                        raise ContextError("the archive has a file in place of its root folder")
                    file(fd, base, entry)
                elif kind == FOLDER:
                    self._folder(fd, path, base, entry)
                elif base:
                    make[kind](fd, base, entry)
                else:
                    raise ContextError("the archive has a link in place of its root folder")
            self._folders.set_times()
        except OSError as error:
            raise _failed(error, name) from error
        return Applied(total, count)

    def _file(self, fd: int, base: bytes, entry: Entry) -> None:
        try:
            out = os.open(base, _NEW_FILE, 0o600, dir_fd=fd)
        except FileExistsError:
            self._folders.make_way(fd, base, entry.name)
            out = os.open(base, _NEW_FILE, 0o600, dir_fd=fd)
        try:
            if entry.runs is not None:
                os.ftruncate(out, entry.size)
            if entry.stored:
                for offset, piece in self._reader.data():
                    while piece:
                        written = os.pwrite(out, piece, offset)
                        offset += written
                        piece = piece[written:]
            os.fchown(out, entry.uid, entry.gid)
            os.fchmod(out, entry.mode)  # after chown, which takes setuid away
            if entry.xattrs:
                set_xattrs(fd, base, entry.xattrs)  # and file capabilities too
            os.utime(out, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(out)

    def _folder(self, fd: int, path: bytes, base: bytes, entry: Entry) -> None:
        if base:
            self._folders.mkdir(fd, base, path)
        # `base` is a folder by now and nobody else is here, so following it is safe.
        os.chown(base or b".", entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        os.chmod(base or b".", entry.mode, dir_fd=fd)
        if entry.xattrs:
            set_xattrs(fd, base, entry.xattrs)
        self._folders.times[path] = entry.mtime_ns

    def _link(self, fd: int, base: bytes, entry: Entry) -> None:
        target = clean(entry.link)
        parent, _, name = target.rpartition(b"/")
        try:
            source = open_in_root(self._root, parent)
        except FileNotFoundError:
            source = -1
        try:
            if source < 0 or not name:
                raise FileNotFoundError(errno.ENOENT, "no such file", target)
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            try:
                os.link(name, base, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                there = os.stat(base, dir_fd=fd, follow_symlinks=False)
                if os.path.samestat(status, there):
                    return
                self._folders.make_way(fd, base, entry.name)
                os.link(name, base, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError as error:
            raise ContextError(
                f"the archive has a hard link {text(entry.name)} to {text(entry.link)}, "
                "which is not in it",
                hint="make the archive again with both names in it",
            ) from error
        finally:
            if source >= 0:
                os.close(source)

    def _symlink(self, fd: int, base: bytes, entry: Entry) -> None:
        """A link may point anywhere: nothing here ever follows it outside."""
        try:
            os.symlink(entry.link, base, dir_fd=fd)
        except FileExistsError:
            self._folders.make_way(fd, base, entry.name)
            os.symlink(entry.link, base, dir_fd=fd)
        self._finish(fd, base, entry)

    def _node(self, fd: int, base: bytes, entry: Entry) -> None:
        if entry.type != FIFO and not self._rules.devices:
            raise ContextError(
                f"the archive has a device node: {text(entry.name)}",
                hint="leave device nodes out: a container gets its own /dev",
            )
        mode = _TYPES[entry.type] | 0o600
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(base, mode, device, dir_fd=fd)
        except FileExistsError:
            self._folders.make_way(fd, base, entry.name)
            os.mknod(base, mode, device, dir_fd=fd)
        self._finish(fd, base, entry)

    def _finish(self, fd: int, base: bytes, entry: Entry) -> None:
        os.chown(base, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        if entry.type != SYMLINK:
            os.chmod(base, entry.mode, dir_fd=fd)
        if entry.xattrs:
            set_xattrs(fd, base, entry.xattrs)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(base, ns=times, dir_fd=fd, follow_symlinks=False)

    def _whiteout(self, fd: int, parent: bytes, base: bytes) -> None:
        hidden = base[len(WHITEOUT) :]
        if base == OPAQUE:
            self._folders.set_opaque(fd, b"")
        elif base.startswith(META):
            return  # aufs's own files in images of old; every engine passes over them
        elif hidden in (b"", b".", b".."):
            raise ContextError(f"the archive has a whiteout of nothing: {text(base)}")
        else:
            try:
                os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=fd)
            except FileExistsError:
                # Made by this same layer, which a whiteout does not touch: it hides what is below.
                if stat.S_ISDIR(os.stat(hidden, dir_fd=fd, follow_symlinks=False).st_mode):
                    self._folders.set_opaque(fd, hidden)


def _failed(error: OSError, name: bytes) -> ContextError | NoSpace | EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no space left to unpack {text(name)}", hint="free some disk space")
    unsafe = (
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.EINVAL,
        errno.EFBIG,
        errno.ERANGE,
        errno.E2BIG,
    )
    if error.errno in unsafe:
        return ContextError(
            f"the archive's entry {text(name)} cannot be unpacked: {error.strerror}",
            hint="make the archive again; a folder on its path may be a file or a loop of links",
        )
    return EngineError(f"cannot unpack {text(name)}: {error}")
