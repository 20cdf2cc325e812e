"""docker cp: one path of a container's root as a tar, and a tar into one of its folders.

Every path is resolved by the kernel inside the root (openat2 RESOLVE_IN_ROOT), whatever links the
container has laid and even while it lays them: nothing here can name a file of the host's (security
cases 11 and 12). Which root, and for how long, is `files`'.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.containers.files import Root
from engine.errors import Forbidden, InvalidInput, NotFound
from engine.snapshots.apply import ARCHIVE, apply_entries
from engine.snapshots.compress import open_layer
from engine.snapshots.diff import Writable, write_tree
from engine.snapshots.folders import clean, text
from engine.snapshots.resolve import open_in_root
from engine.snapshots.tar_reader import FOLDER, LINK, Entry, Readable, TarReader

_PATH = os.O_PATH | os.O_CLOEXEC
# Go's os.FileMode (io/fs): what Docker's clients read.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True, slots=True)
class PathStat:
    """X-Docker-Container-Path-Stat. `mode` is Go's, `link_target` a path inside, "" for no link."""

    name: str
    size: int
    mode: int
    mtime: datetime
    link_target: str

    def to_json(self) -> dict[str, str | int]:
        return {
            "name": self.name,
            "size": self.size,
            "mode": self.mode,
            "mtime": self.mtime.isoformat().replace("+00:00", "Z"),
            "linkTarget": self.link_target,
        }


@dataclass(frozen=True, slots=True)
class Resource:
    """A path that was looked up: `base` in the open folder `folder` ("" for the folder itself).

    Close it. Its last part is not followed, unless the path ends with a slash or a dot."""

    folder: int
    base: bytes
    name: str
    status: os.stat_result
    link_target: str

    @property
    def stat(self) -> PathStat:
        mode = self.status.st_mode
        bits = sum(value for bit, value in _GO_BITS.items() if mode & bit)
        return PathStat(
            self.name,
            self.status.st_size,
            _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits | (mode & 0o777),
            datetime.fromtimestamp(self.status.st_mtime, UTC),
            self.link_target,
        )

    def write(self, out: Writable) -> None:
        """Its tar; a folder's with all below it (moby containerArchivePath)."""
        name = os.fsencode(self.name)
        if stat.S_ISDIR(self.status.st_mode):
            write_tree(self.folder, self.base, b"/" if name == b"/" else name + b"/", out)
        else:
            write_tree(self.folder, self.base, name, out)

    def close(self) -> None:
        os.close(self.folder)


def find(root: Root, path: str, container: str) -> Resource:
    """Raises NotFound in moby's words (`container` as the request names it), InvalidInput."""
    whole = cleaned(path)
    parent, _, base = whole.rpartition("/")
    if base == ".":
        base = ""
    try:
        folder = open_in_root(root.fd, os.fsencode(parent or "/"), _PATH | os.O_DIRECTORY)
        try:
            status = (
                os.stat(base, dir_fd=folder, follow_symlinks=False) if base else os.fstat(folder)
            )
            target = _target(root.fd, folder, whole, base) if stat.S_ISLNK(status.st_mode) else ""
        except BaseException:
            os.close(folder)
            raise
    except OSError as error:
        raise missing(error, path, container) from error
    name = posixpath.basename(whole.rstrip("/")) or "/"
    return Resource(folder, os.fsencode(base), name, status, target)


def extract(
    root: Root,
    path: str,
    container: str,
    archive: Readable,
    *,
    keep_kinds: bool,
    owner: tuple[int, int] | None,
    read_only: bool,
) -> None:
    """Unpack `archive` (compressed or not) into the folder `path`, which is followed.

    `keep_kinds` refuses to put a folder in the place of anything else and the other way round;
    `owner` is everybody's instead of the archive's. Raises NotFound, InvalidInput, ContextError,
    NoSpace, and Forbidden for what is read-only (`read_only`: the root is).
    """
    try:
        folder = open_in_root(root.fd, os.fsencode(cleaned(path)), _PATH)
    except OSError as error:
        raise missing(error, path, container) from error
    try:
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            raise InvalidInput("extraction point is not a directory")
        inside = _inside(root.fd, folder)
        _check_writable(root, folder, inside, read_only)
    finally:
        os.close(folder)
    with open_layer(archive, hashed=False) as tar:
        entries = _Placed(
            TarReader(tar), root.fd, os.fsencode(inside).strip(b"/"), keep_kinds, owner
        )
        apply_entries(entries, root.fd, ARCHIVE)


class _Placed:
    """An archive's entries as entries of the whole root: below one folder of it."""

    def __init__(
        self,
        reader: TarReader,
        root: int,
        folder: bytes,
        keep_kinds: bool,
        owner: tuple[int, int] | None,
    ) -> None:
        self._reader = reader
        self._root = root
        self._folder = folder
        self._keep_kinds = keep_kinds
        self._owner = owner

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._reader:
            name = clean(entry.name)
            if not name:
                continue  # the folder itself stays as it is
            placed = entry._replace(name=self._below(name))
            if entry.type == LINK:
                placed = placed._replace(link=self._below(clean(entry.link)))
            if self._owner is not None:
                placed = placed._replace(uid=self._owner[0], gid=self._owner[1])
            if self._keep_kinds:
                self._check_kind(placed)
            yield placed

    def data(self) -> Iterable[tuple[int, memoryview]]:
        return self._reader.data()

    def _below(self, name: bytes) -> bytes:
        return self._folder + b"/" + name if self._folder else name

    def _check_kind(self, entry: Entry) -> None:
        parent, _, base = entry.name.rpartition(b"/")
        try:
            folder = open_in_root(self._root, parent)
        except OSError:
            return  # to be made
        try:
            there = os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        finally:
            os.close(folder)
        if stat.S_ISDIR(there) != (entry.type == FOLDER):
            old, new = ("directory", "non-directory")[:: 1 if stat.S_ISDIR(there) else -1]
            raise InvalidInput(
                f'cannot overwrite {old} "/{text(entry.name)}" with {new} "/{text(entry.name)}"'
            )


def cleaned(path: str) -> str:
    """Absolute and without `..`, lexically as Go's filepath; a `/` or `/.` at its end stays."""
    if "\0" in path:
        raise InvalidInput("a zero byte in the path", field="path")
    whole = posixpath.normpath("/" + path.lstrip("/"))
    if whole != "/" and path.endswith("/."):
        return whole + "/."
    if whole != "/" and path.endswith("/"):
        return whole + "/"
    return whole


def _inside(root: int, folder: int) -> str:
    """The path, as the container has it, of what `folder` is open on."""
    top = str(Path(f"/proc/self/fd/{root}").readlink()).rstrip("/")
    here = str(Path(f"/proc/self/fd/{folder}").readlink())
    return here[len(top) :] or "/"


def _target(root: int, folder: int, whole: str, base: str) -> str:
    try:
        found = open_in_root(root, os.fsencode(whole), _PATH)
    except OSError:
        # It leads nowhere: where it would.
        link = os.readlink(base, dir_fd=folder)
        return posixpath.normpath(posixpath.join(_inside(root, folder), link))
    try:
        return _inside(root, found)
    finally:
        os.close(found)


def _check_writable(root: Root, folder: int, inside: str, read_only: bool) -> None:
    for mount in sorted(root.mounted, key=lambda mount: -len(mount.destination)):
        if inside == mount.destination or inside.startswith(mount.destination + "/"):
            if "ro" in mount.options:
                raise Forbidden("mounted volume is marked read-only")
            return
    if read_only:
        raise Forbidden("container rootfs is marked read-only")


def missing(error: OSError, path: str, container: str) -> NotFound | InvalidInput:
    """What a path that cannot be opened is to whoever asked for it, in moby's words."""
    if error.errno == errno.ENOTDIR:
        return InvalidInput("not a directory", path=path)
    return NotFound(f"Could not find the file {path} in container {container}", path=path)
