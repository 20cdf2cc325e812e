"""The files COPY and ADD take from: a build context, or the root of a stage or an image.

A `SourceTree` finds sources by Go's globs, lists what lies below them and gives content digests.
Every path is resolved by the kernel inside the root (openat2), so a link that points out leads
nowhere. Digests are over path, kind, mode, owner, content and link target, never times. Leaves
unpacking uploads to engine.build.archive (`unpack_archive`, also offered here) and writing files
to engine.build.copy.
"""

# Plain strings: a Path object for each file costs more than the system call.
# ruff: noqa: PTH115, PTH208
from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from engine.build.archive import unpack_archive
from engine.build.digests import DigestIndex
from engine.build.globs import compile_name, has_meta
from engine.dockerfile.dockerignore import DockerIgnore
from engine.errors import Cancelled, ContextError, NotFound
from engine.runtime import rootfs

__all__ = [
    "ROOT",
    "BuildContext",
    "Entry",
    "Listing",
    "Owner",
    "Source",
    "SourceTree",
    "unpack_archive",
]


class Owner(NamedTuple):
    uid: int
    gid: int


ROOT = Owner(0, 0)


class Entry(NamedTuple):
    """One file, folder, link, fifo or device below a source; `path` is relative to the source and
    empty for the source itself. `digest` (of a file) is hex; `mode` the permission bits; `inode`
    is set where other names of the same file may be among the entries."""

    path: str
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    digest: str
    target: str
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Source:
    """What one pattern matched: `path` is real (no links) and relative to the root, "" being the
    root itself; `name` is what it is called at the destination."""

    path: str
    name: str
    is_dir: bool


@dataclass(frozen=True)
class Listing:
    """All entries below a source of a tree, the source itself first, each folder followed by what
    lies in it, siblings by name."""

    tree: SourceTree
    source: Source
    entries: tuple[Entry, ...]

    @cached_property
    def digest(self) -> str:
        """Hex. The same content gives the same digest whatever its times."""
        return hashlib.sha256("".join(self.lines.values()).encode()).hexdigest()

    @cached_property
    def lines(self) -> dict[str, str]:
        """{path: everything about it that counts}: what digests are made of and compared by."""
        return {
            path: f"{path!r} {kind:o} {mode:o} {uid}:{gid} {digest} {target!r} {device}\n"
            for path, kind, mode, uid, gid, _, _, digest, target, device, _ in self.entries
        }


class SourceTree:
    """A folder whose files are copied from. `owner` None keeps each file's own; `root_mode` is
    what the root itself counts as having; `special` says that devices, fifos and xattrs are
    copied too. Raises ContextError, NotFound; not for two threads."""

    def __init__(
        self,
        root: Path,
        *,
        ignore: DockerIgnore | None = None,
        index: DigestIndex | None = None,
        what: str = "the build context",
        owner: Owner | None = None,
        root_mode: int | None = None,
        special: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.root = root.resolve()
        self.what = what
        self._ignore = ignore
        self._index = index or DigestIndex()
        self._owner = owner
        self._root_mode = root_mode
        self.special = special
        self._cancelled = cancelled
        self._listings: dict[str, Listing] = {}

    def match(self, patterns: Sequence[str]) -> list[Source]:
        """The sources the patterns name, in their order, each pattern's own sorted by path.

        A pattern that is a plain path must exist; a glob may match nothing as long as another
        matches. Raises ContextError naming the pattern.
        """
        with rootfs.opened(self.root) as folder:
            return self._matched(folder, patterns)

    def _matched(self, folder: int, patterns: Sequence[str]) -> list[Source]:
        found: list[Source] = []
        for pattern in patterns:
            found += self._match(folder, pattern)
        if not found:
            raise ContextError(
                f"no file matches {' '.join(patterns)} in {self.what}",
                hint="look at the names and at .dockerignore",
                pattern=" ".join(patterns),
            )
        return found

    def listing(self, source: Source) -> Listing:
        """Everything below the source; walked once."""
        known = self._listings.get(source.path)
        if known is None or known.source != source:
            entries = known.entries if known else tuple(self._walk(source))
            known = self._listings[source.path] = Listing(self, source, entries)
        return known

    def digest(self, path: str) -> str:
        """Content digest (hex) of one path and all below it."""
        (source,) = self.match([path])
        return self.listing(source).digest

    def real(self, source: Source, entry: Entry) -> str:
        """Where the entry lies on disk."""
        return "/".join(part for part in (str(self.root), source.path, entry.path) if part)

    def save(self) -> None:
        """Keep the digests learnt for the next build."""
        self._index.save()

    def _match(self, folder: int, pattern: str) -> Iterator[Source]:
        parts = _components(pattern)
        if not any(has_meta(part) for part in parts):
            path = "/".join(parts)
            source = self._lookup(folder, path)
            if source is None:
                raise self._missing(pattern, path)
            yield source
            return
        names = [""]
        for part in parts:
            names = [
                f"{name}/{child}" if name else child
                for name in names
                for child in self._children(folder, name, part)
            ]
        for name in sorted(names):
            source = self._lookup(folder, name)
            if source is not None:
                yield source

    def _children(self, folder: int, name: str, part: str) -> list[str]:
        if not has_meta(part):
            return [part]
        pattern = compile_name(part)
        try:
            descriptor = rootfs.open_at(folder, name, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []  # a literal part before the glob that is not there: nothing matches
        try:
            return [child for child in os.listdir(descriptor) if pattern.fullmatch(child)]
        finally:
            os.close(descriptor)

    def _lookup(self, folder: int, path: str) -> Source | None:
        """The path with links followed inside the root; None when missing or left out."""
        found = self._find(folder, path)
        if found is None or self._left_out(*found):
            return None
        return Source(found[0], path.rpartition("/")[2], found[1])

    def _find(self, folder: int, path: str) -> tuple[str, bool] | None:
        """(its real path, whether it is a folder); None when missing."""
        try:
            descriptor = rootfs.open_at(folder, path, os.O_PATH)
        except OSError:
            return None
        try:
            is_dir = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            real = os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        relative = os.path.relpath(real, self.root)
        return ("" if relative == "." else relative), is_dir

    def _exists(self, path: str) -> bool:
        with rootfs.opened(self.root) as folder:
            return rootfs.lookup(folder, path) is not None

    def _left_out(self, path: str, is_dir: bool) -> bool:
        if self._ignore is None or not path or not self._ignore.ignores(path, is_dir):
            return False
        return not (is_dir and self._ignore.may_contain_included(path))

    def _missing(self, pattern: str, path: str) -> ContextError:
        if self._ignore is not None and self._exists(path):
            return ContextError(
                f"{pattern} is left out of {self.what} by .dockerignore",
                hint="take it out of .dockerignore, or add a line that begins with !",
                pattern=pattern,
                absent=path,
            )
        return ContextError(
            f"{pattern} is not in {self.what}",
            hint="paths count from the top of the context; look for a slip in the name",
            pattern=pattern,
            absent=path,
        )

    def _walk(self, source: Source) -> list[Entry]:
        top = self.real(source, _TOP)
        try:
            status = os.lstat(top)
        except OSError as error:
            raise NotFound(f"cannot read {source.path}: {error.strerror}") from error
        entry = self._entry(top, source.path, "", status)
        if not source.path and self._root_mode is not None:
            entry = entry._replace(mode=self._root_mode)
        entries = [entry]
        if source.is_dir:
            self._below(top, source.path, "", entries)
        return entries

    def _below(self, folder: str, name: str, path: str, entries: list[Entry]) -> bool:
        """Add what lies in `folder` (`name` from the root, `path` from the source); whether any."""
        any_found = False
        if self._cancelled():
            raise Cancelled("cancelled while reading the context")
        with os.scandir(folder) as scan:
            for child in sorted(scan, key=_name):
                child_name = f"{name}/{child.name}" if name else child.name
                child_path = f"{path}/{child.name}" if path else child.name
                is_dir = child.is_dir(follow_symlinks=False)
                ignored = self._ignore is not None and self._ignore.ignores(child_name, is_dir)
                if ignored and not is_dir:
                    continue
                if ignored and self._left_out(child_name, True):
                    continue
                status = child.stat(follow_symlinks=False)
                entry = self._entry(child.path, child_name, child_path, status)
                position = len(entries)
                if is_dir:
                    entries.append(entry)
                    filled = self._below(child.path, child_name, child_path, entries)
                    if ignored and not filled:  # nothing in it was taken in again
                        del entries[position:]
                        continue
                else:
                    entries.append(entry)
                any_found = True
        return any_found

    def _entry(self, real: str, name: str, path: str, status: os.stat_result) -> Entry:
        kind = stat.S_IFMT(status.st_mode)
        digest = target = ""
        device = size = 0
        if kind == stat.S_IFREG:
            digest = self._index.digest(real, name, status, self._cancelled)
            size = status.st_size
        elif kind == stat.S_IFLNK:
            target = os.readlink(real)
        elif kind != stat.S_IFDIR:
            if not self.special or kind == stat.S_IFSOCK:
                raise ContextError(
                    f"{name} is a device, a fifo or a socket: only files are copied",
                    hint="leave it out with .dockerignore",
                    entry=name,
                )
            device = status.st_rdev
        return Entry(
            path,
            kind,
            stat.S_IMODE(status.st_mode),
            self._owner.uid if self._owner else status.st_uid,
            self._owner.gid if self._owner else status.st_gid,
            size,
            status.st_mtime_ns,
            digest,
            target,
            device,
            status.st_ino if status.st_nlink > 1 and kind != stat.S_IFDIR else 0,
        )


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


_TOP = Entry("", 0, 0, 0, 0, 0, 0, "", "", 0, 0)


class BuildContext(SourceTree):
    """A user's files. All belong to root in the image unless --chown says otherwise; the folder
    itself counts as 0755 (on disk it is 0700, see engine.build.archive)."""

    def __init__(
        self,
        root: Path,
        ignore: DockerIgnore | None = None,
        *,
        index: DigestIndex | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        if not root.is_dir():
            raise NotFound(f"no such build context: {root}")
        super().__init__(
            root, ignore=ignore, index=index, owner=ROOT, root_mode=0o755, cancelled=cancelled
        )


def _components(pattern: str) -> list[str]:
    """The pattern's parts from the root. Raises ContextError for one that leaves it."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise ContextError(
                    f"{pattern} leads out of the build context",
                    hint="only files inside the context can be copied: move it in",
                    pattern=pattern,
                )
            parts.pop()
        else:
            parts.append(part)
    return parts
