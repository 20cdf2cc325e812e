"""A build context that stays a tar: its entries listed and hashed in one pass, its files unpacked
only when a step has to copy some.

A build that is cached as a whole never unpacks; ten thousand files made and removed cost more than
everything else in it. What is refused, and every digest, is the same as of an unpacked folder
(engine.build.archive, engine.build.context). Only archives that nobody can change while they are
read belong here: root's own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.build.archive import list_archive, unpack_archive
from engine.build.archive_tree import DEFAULT_LIMITS, ArchiveTree
from engine.build.context import ROOT, Entry, Source, SourceTree
from engine.build.globs import compile_name, has_meta
from engine.dockerfile.dockerignore import DockerIgnore
from engine.errors import Cancelled, ContextError

_MAX_LINKS = 40
_ZEROS = bytes(64 * 1024)


@dataclass(slots=True)
class _Node:
    kind: int
    mode: int
    mtime_ns: int
    size: int = 0
    digest: str = ""
    target: str = ""
    inode: int = 0


class _Listed(ArchiveTree):
    """Takes an archive's entries down instead of writing them. `keep` names files whose content is
    wanted, of at most `most` bytes."""

    def __init__(self, packed: int, keep: Collection[str], most: int) -> None:
        super().__init__(Path("/"), DEFAULT_LIMITS, packed, False, lambda: False)
        self.nodes: dict[str, _Node] = {"": _folder(0o755)}
        self.kept: dict[str, bytes] = {}
        self._keep, self._most = keep, most
        self._inodes = 0

    def folder(self, clean: str, name: str, mode: int, mtime_ns: int) -> None:
        self._ensure(clean, name)
        if clean:
            self.nodes[clean] = _folder(mode, mtime_ns)

    def file(
        self,
        clean: str,
        name: str,
        mode: int,
        mtime_ns: int,
        pieces: Iterable[tuple[int, bytes | memoryview]],
        size: int | None = None,
    ) -> None:
        self._place(clean, name, "file")
        length = size or 0
        self._count(length, name)
        digest, end = hashlib.sha256(), 0
        content = bytearray() if clean in self._keep and length <= self._most else None
        for piece in _filled(pieces, length):
            digest.update(piece)
            if content is not None:
                content += piece
            end += len(piece)
        if content is not None:
            self.kept[clean] = bytes(content)
        self.nodes[clean] = _Node(stat.S_IFREG, mode, mtime_ns, end, digest.hexdigest())

    def link(self, clean: str, name: str, target: str, mtime_ns: int) -> None:
        self._check_target(name, target)
        self._place(clean, name, "link")
        self.nodes[clean] = _Node(stat.S_IFLNK, 0o777, mtime_ns, target=target)

    def hard_link(self, clean: str, name: str, target: str) -> None:
        other = self._linked(name, target)
        if other == clean:
            return
        self._place(clean, name, "file")
        first = self.nodes[other]
        if not first.inode:
            self._inodes += 1
            first.inode = self._inodes
        self.nodes[clean] = first
        if other in self.kept:
            self.kept[clean] = self.kept[other]

    def _make_folder(self, clean: str) -> None:
        self.nodes[clean] = _folder(0o755)

    def _drop(self, clean: str) -> None:
        del self.nodes[clean]
        self.kept.pop(clean, None)


def _folder(mode: int, mtime_ns: int | None = None) -> _Node:
    return _Node(stat.S_IFDIR, mode, time.time_ns() if mtime_ns is None else mtime_ns)


def _filled(
    pieces: Iterable[tuple[int, bytes | memoryview]], size: int
) -> Iterator[bytes | memoryview]:
    """The file's bytes in order, its holes as zeros."""
    end = 0
    for offset, piece in pieces:
        yield from _zeros(offset - end)
        yield piece
        end = offset + len(piece)
    yield from _zeros(size - end)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS)


@dataclass
class PackedContext:
    """An archive at `path`, listed; `folder` is where it is unpacked once files are needed, and is
    then what is left of it. Close it."""

    path: Path
    folder: Path
    nodes: dict[str, _Node]
    kept: dict[str, bytes]
    _descriptor: int
    _children: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, folder: Path, keep: Collection[str], most: int) -> PackedContext:
        """`keep`: files whose content `kept` has, where they are no larger than `most`. Raises
        ContextError, FileNotFoundError (unpacked meanwhile)."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            listed = _Listed(os.fstat(descriptor).st_size, keep, most)
            with open(descriptor, "rb", closefd=False) as file:
                list_archive(file, listed)
        except BaseException:
            os.close(descriptor)
            raise
        made = cls(path, folder, listed.nodes, listed.kept, descriptor)
        for name in listed.nodes:
            if name:
                made._children.setdefault(name.rpartition("/")[0], []).append(name)
        return made

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def moved(self, path: Path) -> PackedContext:
        """Itself, the archive renamed to `path`."""
        self.path.rename(path)
        self.path = path
        return self

    def children(self, name: str) -> list[str]:
        """Whole names of what lies in the folder, sorted."""
        return sorted(self._children.get(name, ()))

    def resolve(self, name: str) -> str | None:
        """The real name with links followed inside the root; None where nothing is."""
        done: list[str] = []
        waiting = [part for part in reversed(name.split("/")) if part]
        links = 0
        while waiting:
            part = waiting.pop()
            if part == ".":
                continue
            if part == "..":
                del done[-1:]
                continue
            node = self.nodes.get("/".join([*done, part]))
            if node is None:
                return None
            if node.kind == stat.S_IFLNK:
                links += 1
                if links > _MAX_LINKS:
                    return None
                if node.target.startswith("/"):
                    done = []
                waiting += [word for word in reversed(node.target.split("/")) if word]
            elif waiting and node.kind != stat.S_IFDIR:
                return None
            else:
                done.append(part)
        return "/".join(done)

    def unpacked(self, cancelled: Callable[[], bool] = lambda: False) -> Path:
        """The folder, made now where it was not yet. Several builds may come to want it at once:
        the first one's stays. Raises NoSpace, Cancelled."""
        if not self.folder.is_dir():
            aside = self.folder.with_name(f"{self.folder.name}.{os.getpid()}-{id(self)}.part")
            try:
                unpack_archive(
                    Path(f"/proc/self/fd/{self._descriptor}"), aside, cancelled=cancelled
                )
                with suppress(OSError):
                    aside.rename(self.folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            self.path.unlink(missing_ok=True)
        return self.folder


class PackedTree(SourceTree):
    """A PackedContext as what COPY and ADD take from."""

    def __init__(
        self,
        packed: PackedContext,
        ignore: DockerIgnore | None = None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(
            packed.folder, ignore=ignore, owner=ROOT, root_mode=0o755, cancelled=cancelled
        )
        self._packed = packed

    def real(self, source: Source, entry: Entry) -> str:
        top = str(self._packed.unpacked(self._cancelled))
        return "/".join(part for part in (top, source.path, entry.path) if part)

    def match(self, patterns: Sequence[str]) -> list[Source]:
        # No folder to look into is opened: -1 stands for it in what is overridden here.
        return self._matched(-1, patterns)

    def _find(self, folder: int, path: str) -> tuple[str, bool] | None:
        real = self._packed.resolve(path)
        if real is None:
            return None
        return real, self._packed.nodes[real].kind == stat.S_IFDIR

    def _children(self, folder: int, name: str, part: str) -> list[str]:
        if not has_meta(part):
            return [part]
        pattern = compile_name(part)
        real = self._packed.resolve(name)
        if real is None:
            return []
        names = (child.rpartition("/")[2] for child in self._packed.children(real))
        return [child for child in names if pattern.fullmatch(child)]

    def _exists(self, path: str) -> bool:
        return self._packed.resolve(path) is not None

    def _walk(self, source: Source) -> list[Entry]:
        node = self._packed.nodes.get(source.path)
        if node is None:
            raise ContextError(f"cannot read {source.path}: it is not there", entry=source.path)
        entries = [_entry("", node)]
        if source.is_dir:
            self._listed(source.path, "", entries)
        return entries

    def _listed(self, name: str, path: str, entries: list[Entry]) -> bool:
        """Add what lies in `name` (`path` from the source); whether there was any."""
        any_found = False
        if self._cancelled():
            raise Cancelled("cancelled while reading the context")
        for child_name in self._packed.children(name):
            node = self._packed.nodes[child_name]
            short = child_name.rpartition("/")[2]
            child_path = f"{path}/{short}" if path else short
            is_dir = node.kind == stat.S_IFDIR
            ignored = self._ignore is not None and self._ignore.ignores(child_name, is_dir)
            if ignored and (not is_dir or self._left_out(child_name, True)):
                continue
            position = len(entries)
            entries.append(_entry(child_path, node))
            if is_dir and not self._listed(child_name, child_path, entries) and ignored:
                del entries[position:]
                continue
            any_found = True
        return any_found


def _entry(path: str, node: _Node) -> Entry:
    return Entry(
        path,
        node.kind,
        node.mode,
        *ROOT,
        node.size,
        node.mtime_ns,
        node.digest,
        node.target,
        0,
        node.inode,
    )
