"""Mount points a step needs but its root file system lacks: made before it, gone after it.

Whoever mounts over /etc/resolv.conf or /proc needs a file or folder there. Left behind, it
would end up in the layer. So the stubs are made here, taken away when they are still empty,
and the parent's modification time is put back when nothing else touched it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import MountFailed
from engine.runtime import rootfs

_MAX_LINKS = 20


@dataclass(frozen=True, slots=True)
class _Stub:
    parent: str
    name: str
    inode: int
    before: tuple[int, int]
    after: int


class Stubs:
    """Usable once: `create`, then `remove` (idempotent). Not atomic: the caller owns the root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: list[_Stub] = []

    def create(self, targets: Iterable[tuple[str, bool]]) -> None:
        """`targets`: (path in the container, whether a folder is needed). Raises MountFailed."""
        with rootfs.opened(self._root) as root:
            for path, folder in targets:
                try:
                    self._create(root, path, folder)
                except OSError as error:
                    self.remove()
                    raise MountFailed(
                        f"cannot make the mount point {path}: {error.strerror}", path=path
                    ) from error

    def remove(self) -> None:
        with rootfs.opened(self._root) as root:
            for stub in reversed(self._made):
                # Replaced or moved away by what ran: it is that one's now.
                with suppress(OSError):
                    _remove(root, stub)
        self._made.clear()

    def _create(self, root: int, path: str, folder: bool) -> None:
        parts, links = _parts(path), 0
        done: list[str] = []
        while parts:
            here = "/" + "/".join([*done, parts[0]])
            if rootfs.lookup(root, here) is not None:
                done.append(parts.pop(0))
                continue
            target = _dangling(root, here)
            if target is not None and links < _MAX_LINKS:
                links += 1
                base = [] if target.startswith("/") else done
                done, parts = [], _parts("/".join([*base, target, *parts[1:]]))
                continue
            name = parts.pop(0)
            self._make(root, "/" + "/".join(done), name, folder or bool(parts))
            done.append(name)

    def _make(self, root: int, parent: str, name: str, folder: bool) -> None:
        descriptor = rootfs.open_at(root, parent, os.O_PATH | os.O_DIRECTORY)
        try:
            old = os.fstat(descriptor)
            if folder:
                os.mkdir(name, 0o755, dir_fd=descriptor)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=descriptor))
            made = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            new = os.fstat(descriptor)
            times = (old.st_atime_ns, old.st_mtime_ns)
            self._made.append(_Stub(parent, name, made.st_ino, times, new.st_mtime_ns))
        finally:
            os.close(descriptor)


def _remove(root: int, stub: _Stub) -> None:
    descriptor = rootfs.open_at(root, stub.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        untouched = os.fstat(descriptor).st_mtime_ns == stub.after
        found = os.stat(stub.name, dir_fd=descriptor, follow_symlinks=False)
        if found.st_ino != stub.inode:
            return
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(stub.name, dir_fd=descriptor)
        elif found.st_size == 0:
            os.unlink(stub.name, dir_fd=descriptor)
        else:
            return
        if untouched:
            os.utime(descriptor, ns=stub.before)
    finally:
        os.close(descriptor)


def _parts(path: str) -> list[str]:
    return [part for part in os.path.normpath("/" + path).split("/") if part]


def _dangling(root: int, path: str) -> str | None:
    """Where a symbolic link with nothing behind it points to; None when `path` is no link."""
    try:
        descriptor = rootfs.open_at(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            return None
        return os.readlink("", dir_fd=descriptor)
    finally:
        os.close(descriptor)
