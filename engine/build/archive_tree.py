"""The folder an archive is unpacked into: names checked, kinds known, bytes and entries counted.

Nothing is written outside it and no link is ever written through: every folder an entry lies in
was made here, as a folder. Leaves reading archives to engine.build.archive.
"""

# Plain strings: a Path object for each file costs more than the system call.
# ruff: noqa: PTH101, PTH102, PTH108, PTH211
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Cancelled, ContextError

MAX_PATH = 4095


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may unpack to. Under `ratio_floor` bytes the ratio does not count: small
    sources compress well; over it gzip's best honest case (source, logs) is some 50 to 1."""

    size: int = 64 * 1024**3
    entries: int = 500_000
    ratio: int = 200
    ratio_floor: int = 256 * 1024**2


DEFAULT_LIMITS = Limits()


class ArchiveTree:
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
            raise unsafe(name, "its name is an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise unsafe(name, "its name leads outside with ..")
        if "\0" in name:
            raise unsafe(name, "its name holds a zero byte")
        clean = "/".join(parts)
        if len(os.fsencode(clean)) > MAX_PATH or any(len(os.fsencode(p)) > 255 for p in parts):
            raise unsafe(name[:200], "its name is too long")
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
        self._check_target(name, target)
        place = self._place(clean, name, "link")
        os.symlink(target, place)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def hard_link(self, clean: str, name: str, target: str) -> None:
        other = self._linked(name, target)
        if other == clean:
            return
        place = self._place(clean, name, "file")
        os.link(f"{self._root}/{other}", place, follow_symlinks=False)

    def _check_target(self, name: str, target: str) -> None:
        if not target or "\0" in target or len(os.fsencode(target)) > MAX_PATH:
            raise unsafe(name, "its link target is not a path")

    def _linked(self, name: str, target: str) -> str:
        """The file of the archive that a hard link is to."""
        other = "/".join(part for part in target.split("/") if part not in ("", "."))
        if target.startswith("/") or self._kinds.get(other) != "file":
            raise unsafe(name, f"it is a hard link to {target}, no file of this archive")
        return other

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
            raise unsafe(name, "it would replace the root of the tree")
        self._ensure(clean.rpartition("/")[0], name)
        path = f"{self._root}/{clean}"
        if existing := self._kinds.get(clean):
            if existing == "folder":
                raise unsafe(name, "it would replace a folder")
            self._drop(clean)  # a later entry of the same name wins, as with tar
        self._kinds[clean] = kind
        return path

    def _ensure(self, clean: str, name: str) -> None:
        kind = self._kinds.get(clean)
        if kind == "folder":
            return
        if kind is not None:
            raise unsafe(name, f"it lies below {clean}, which is no folder")
        parent = clean.rpartition("/")[0]
        self._ensure(parent, name)
        self._make_folder(clean)
        self._kinds[clean] = "folder"

    def _make_folder(self, clean: str) -> None:
        os.mkdir(f"{self._root}/{clean}", 0o755)

    def _drop(self, clean: str) -> None:
        os.unlink(f"{self._root}/{clean}")


def unsafe(name: str, why: str) -> ContextError:
    return ContextError(
        f"unsafe entry in the archive: {name}: {why}",
        hint="make the archive again without this entry",
        entry=name,
    )


def broken(name: str, error: Exception) -> ContextError:
    where = f" after {name}" if name else ""
    return ContextError(
        f"the archive is damaged or incomplete{where}: {error}",
        hint="upload it again",
        entry=name,
    )
