"""The folders an archive is being unpacked into: found, made, replaced, and timed at the end.

Holds their descriptors, so that a file costs no walk from the root. What a folder on the way lacks
is taken from the layers below. Overlay's marks are set here; reading the archive is `apply`'s.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence

from engine.errors import ContextError
from engine.snapshots.resolve import open_beneath, open_in_root
from engine.snapshots.tree import remove_entry

WHITEOUT, OPAQUE, META = b".wh.", b".wh..wh..opq", b".wh..wh."
OPAQUE_XATTR, OVERLAY_XATTRS = "trusted.overlay.opaque", b"trusted.overlay."

_OPEN = 200
_LINKS = 40  # as many as the kernel follows


class Folders:
    """`root` and `lowers` are descriptors the caller keeps open; `times` are the folders' mtimes
    (path -> nanoseconds), set at the end because filling a folder changes its own."""

    def __init__(self, root: int, lowers: Sequence[int], *, whiteouts: bool) -> None:
        self._root = root
        self._lowers = lowers
        self._whiteouts = whiteouts
        self._open: dict[bytes, int] = {}
        self._stale = False
        self.times: dict[bytes, int] = {}

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        self._stale = False

    def enter(self, path: bytes) -> int:
        """The folder's O_PATH descriptor, valid until the next `enter`; made if need be, links on
        the way followed inside the root."""
        if self._stale or len(self._open) >= _OPEN:
            self.close()
        fd = self._open.get(path, -1)
        if fd < 0:
            if self._whiteouts and b"/" + WHITEOUT in b"/" + path:
                raise ContextError(f"the archive has a file below a whiteout: {text(path)}")
            try:
                fd = open_in_root(self._root, path)
            except (FileNotFoundError, NotADirectoryError):
                fd = self._make_all(path)
            self._open[path] = fd
        return fd

    def mkdir(self, fd: int, base: bytes, path: bytes) -> None:
        """A folder `base` in the folder `fd`: the one that is there, or a new one of mode 0700 in
        place of whatever else is there."""
        try:
            os.mkdir(base, 0o700, dir_fd=fd)
        except FileExistsError:
            status = os.stat(base, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            self.make_way(fd, base, path)
            os.mkdir(base, 0o700, dir_fd=fd)
            if self._whiteouts and _is_whiteout(status):
                self.set_opaque(fd, base)  # deleted and made anew in one layer

    def make_way(self, fd: int, base: bytes, name: bytes) -> None:
        """Remove what an earlier entry or layer put there."""
        path = clean(name)
        remove_entry(base, fd)
        self._stale = True  # a folder or link on some remembered path may be gone
        for gone in [p for p in self.times if p == path or p.startswith(path + b"/")]:
            del self.times[gone]

    def set_opaque(self, fd: int, base: bytes) -> None:
        os.setxattr(_proc(fd, base), OPAQUE_XATTR, b"y", follow_symlinks=not base)

    def set_times(self) -> None:
        for path, time in self.times.items():
            parent, _, base = path.rpartition(b"/")
            fd = self.enter(parent)
            os.utime(base or b".", ns=(time, time), dir_fd=fd, follow_symlinks=False)

    def _make_all(self, path: bytes, links: int = 0) -> int:
        done = b""
        parts = path.split(b"/")
        fd = open_in_root(self._root, b"")
        for position, part in enumerate(parts):
            done = done + b"/" + part if done else part
            try:
                try:
                    below = open_in_root(self._root, done)
                except (FileNotFoundError, NotADirectoryError):
                    below = self._make(fd, part, done)
            except FileExistsError:
                # A link to a folder that is not there yet: make that one, inside the root.
                if links >= _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                target = os.readlink(part, dir_fd=fd)
                base = b"" if target.startswith(b"/") else done.rpartition(b"/")[0]
                rest = parts[position + 1 :]
                return self._make_all(_inside(b"/".join((base, target, *rest))), links + 1)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _make(self, parent: int, part: bytes, path: bytes) -> int:
        try:
            os.mkdir(part, 0o755, dir_fd=parent)
        except FileExistsError:
            status = os.stat(part, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise
            if not (self._whiteouts and _is_whiteout(status)):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path) from None
            self.mkdir(parent, part, path)
        os.chmod(part, 0o755, dir_fd=parent)
        self._inherit(parent, part, path)
        return os.open(
            part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
        )

    def _inherit(self, parent: int, part: bytes, path: bytes) -> None:
        for lower in self._lowers:
            try:
                fd = open_beneath(lower, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    return  # hidden by something that is no folder
                raise
            try:
                status = os.fstat(fd)
                os.chown(part, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
                os.chmod(part, status.st_mode & 0o7777, dir_fd=parent)
                xattrs = {os.fsencode(key): os.getxattr(fd, key) for key in os.listxattr(fd)}
                set_xattrs(parent, part, xattrs)
                self.times[path] = status.st_mtime_ns
            finally:
                os.close(fd)
            return


def set_xattrs(fd: int, base: bytes, xattrs: Mapping[bytes, bytes]) -> None:
    """On an entry of the folder `fd`: all but overlay's own, with which a layer could claim to be
    what it is not (opaque, redirected, without content)."""
    for key, value in xattrs.items():
        if key.startswith(OVERLAY_XATTRS):
            continue
        try:
            os.setxattr(_proc(fd, base), key, value, follow_symlinks=not base)
        except OSError as error:
            # What this file system, or (user.*) this kind of file, cannot hold is left out, as in
            # every engine.
            if error.errno != errno.EOPNOTSUPP and not (
                error.errno == errno.EPERM and key.startswith(b"user.")
            ):
                raise


def clean(name: bytes) -> bytes:
    """`./a//b/../c/` -> `a/c`, an absolute name below the root, the root itself ``. Raises
    ContextError where `..` leads out."""
    name = name.removeprefix(b"./").strip(b"/")
    if not (name.startswith(b".") or b"/." in name or b"//" in name):
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise ContextError(
                    f"the archive has a path that leads out of it: {text(name)}",
                    hint="make the archive again with paths below its own folder",
                )
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def text(name: bytes) -> str:
    """A name for an error's text."""
    return name[:200].decode(errors="backslashreplace")


def _inside(path: bytes) -> bytes:
    """As the kernel takes `..` at the root: it stays there."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _proc(fd: int, base: bytes) -> bytes:
    """A path to an entry of an open folder, for calls that take no folder's descriptor."""
    return b"/proc/self/fd/%d/%b" % (fd, base) if base else b"/proc/self/fd/%d" % fd
