"""What a container has changed of its image: `docker diff`, from overlay's upper folder.

By moby's rules (pkg/archive/changes.go): a folder is listed when it is new, when its own mode or
owner differs, or when something in it is; a file when its mode, owner, size or time differs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from engine.snapshots.folders import OPAQUE_XATTR
from engine.snapshots.resolve import open_beneath, opened
from engine.snapshots.tree import scan

_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Where a runtime mounts something in every container; Docker has them in a layer of their own.
RUNTIMES_OWN = frozenset(
    b"/.dockerenv /dev /dev/console /dev/mqueue /dev/pts /dev/shm /etc /etc/hostname /etc/hosts "
    b"/etc/mtab /etc/resolv.conf /proc /sys".split()
)


class Kind(IntEnum):
    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """`path` is absolute, as the container sees it. `mode` (with the file's kind) and `size` in
    bytes (0 of a folder) are its own now; 0 of what is deleted."""

    path: bytes
    kind: Kind
    mode: int = field(default=0, compare=False)
    size: int = field(default=0, compare=False)


def changes_of(
    upper: Path, lowers: Sequence[Path], ignored: Collection[bytes] = frozenset()
) -> list[Change]:
    """Sorted by path. `lowers` from the top down; `ignored` paths are left out where they are
    empty files or folders of nothing else. What disappears meanwhile is not counted."""
    with ExitStack() as stack:
        top = stack.enter_context(opened(upper))
        below = [stack.enter_context(opened(layer)) for layer in lowers]
        found: list[Change] = []
        _Walk(top, below, ignored, found).all()
        return sorted(found)


@dataclass(slots=True)
class _Folder:
    """One that is being walked; `mark` is how much had been found before it."""

    path: bytes
    mode: int
    layers: list[int]
    names: Iterator[bytes]
    mark: int
    listed: bool


class _Walk:
    def __init__(
        self, top: int, below: list[int], ignored: Collection[bytes], found: list[Change]
    ) -> None:
        self._top = top
        self._below = below
        self._ignored = ignored
        self._found = found

    def all(self) -> None:
        """Not by recursion: a container may nest folders deeper than that goes."""
        stack = [self._opened(b"", stat.S_IFDIR, list(range(len(self._below))), True)]
        while stack:
            folder = stack[-1]
            name = next(folder.names, None)
            if name is None:
                stack.pop()
                if not folder.listed and len(self._found) > folder.mark:
                    self._add(folder.path, Kind.MODIFIED, folder.mode)
                continue
            path = folder.path + b"/" + name if folder.path else name
            with suppress(FileNotFoundError):
                below = self._entry(path, folder.layers)
                if below is not None:
                    stack.append(self._opened(path, *below))

    def _opened(self, path: bytes, mode: int, layers: list[int], listed: bool) -> _Folder:
        names: list[bytes] = []
        mark = len(self._found)
        with suppress(FileNotFoundError), scan(self._top, os.fsdecode(path)) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        if layers and self._opaque(self._top, path):
            self._hidden(path, layers, set(names))
            layers = []
        return _Folder(path, mode, layers, iter(names), mark, listed)

    def _entry(self, path: bytes, layers: list[int]) -> tuple[int, list[int], bool] | None:
        """Lists it; of a folder its mode, the layers that have it too, whether it was listed."""
        now = _status(self._top, path)
        before, below = self._before(path, layers)
        if _is_whiteout(now):
            if before is not None:
                self._add(path, Kind.DELETED)
            return None
        folder = stat.S_ISDIR(now.st_mode)
        listed = False
        if before is None:
            if b"/" + path not in self._ignored or (not folder and now.st_size):
                self._add(path, Kind.ADDED, now.st_mode, now.st_size)
                listed = True
        elif _differ(before, now):
            self._add(path, Kind.MODIFIED, now.st_mode, now.st_size)
            listed = True
        # What is ignored is never listed for its own sake, but may be for what is in it.
        return (now.st_mode, below, listed) if folder else None

    def _before(self, path: bytes, layers: list[int]) -> tuple[os.stat_result | None, list[int]]:
        """As the image has it, and the layers that make up that folder."""
        found: os.stat_result | None = None
        below: list[int] = []
        for index in layers:
            try:
                status = _status(self._below[index], path)
            except FileNotFoundError:
                continue
            if _is_whiteout(status) or (found and not stat.S_ISDIR(status.st_mode)):
                break
            found = found or status
            if not stat.S_ISDIR(status.st_mode):
                break
            below.append(index)
            if self._opaque(self._below[index], path):
                break
        return found, below

    def _hidden(self, path: bytes, layers: list[int], names: set[bytes]) -> None:
        """A folder that was removed and made again: what the image had in it is gone."""
        gone: set[bytes] = set()
        for index in layers:
            with (
                suppress(FileNotFoundError),
                scan(self._below[index], os.fsdecode(path)) as entries,
            ):
                gone.update(os.fsencode(entry.name) for entry in entries)
        for name in gone - names:
            child = path + b"/" + name if path else name
            if self._before(child, layers)[0] is not None:
                self._add(child, Kind.DELETED)

    def _opaque(self, root: int, path: bytes) -> bool:
        folder = open_beneath(root, path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.getxattr(folder, OPAQUE_XATTR) == b"y"
        except OSError:  # no such attribute
            return False
        finally:
            os.close(folder)

    def _add(self, path: bytes, kind: Kind, mode: int = 0, size: int = 0) -> None:
        own = 0 if stat.S_ISDIR(mode) else size
        self._found.append(Change(b"/" + path, kind, mode, own))


def _status(root: int, path: bytes) -> os.stat_result:
    entry = open_beneath(root, path, _ENTRY)
    try:
        return os.fstat(entry)
    finally:
        os.close(entry)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _differ(before: os.stat_result, now: os.stat_result) -> bool:
    if (before.st_mode, before.st_uid, before.st_gid, before.st_rdev) != (
        now.st_mode,
        now.st_uid,
        now.st_gid,
        now.st_rdev,
    ):
        return True
    if stat.S_ISDIR(now.st_mode):
        return False
    return (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns)
