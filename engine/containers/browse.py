"""Looking around in a container's root from outside: a folder's entries, a text file's beginning.

Everything is resolved by the kernel inside the root, as in `archive`; nothing that is no regular
file is ever opened to be read. What a look costs is bounded: of a folder at most MOST_NAMES names
are read and a page's PAGE_SIZE entries looked at, of a file MOST_TEXT bytes.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from engine.containers.archive import cleaned, missing
from engine.containers.files import Root
from engine.errors import Conflict, InvalidInput
from engine.runtime.rootfs import read_file
from engine.snapshots.diff import Writable, write_tree
from engine.snapshots.folders import text
from engine.snapshots.resolve import open_in_root

MOST_NAMES = 100_000
PAGE_SIZE = 200
MOST_TEXT = 256 * 1024
_PIECE = 256 * 1024
_MOST_USERS = 1024 * 1024  # bytes of passwd and of group

_PATH = os.O_PATH | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind` folder, file, link, device, pipe or socket; `mode` as ls shows it; `changed` in
    seconds since 1970. Of a link: its text, and the kind of what it leads to ("" for nowhere).
    Names that are no UTF-8 carry surrogates (os.fsdecode)."""

    name: str
    kind: str
    size: int
    mode: str
    owner: str
    group: str
    changed: float
    link: str = ""
    leads: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder at `path`. `count` entries fit the query, folders first; a page of them is here,
    from the one at `start` on; `more`: it has names that were not even read."""

    path: str
    entries: tuple[Entry, ...]
    count: int
    start: int
    more: bool

    def to_json(self) -> dict[str, Any]:
        return {"what": "folder", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Look:
    """Anything else at `path`. `text` None: it is no text; `cut`: it goes on."""

    path: str
    entry: Entry
    text: str | None
    cut: bool

    def to_json(self) -> dict[str, Any]:
        return {"what": "file", **asdict(self)}


def kind_of(mode: int) -> str:
    """The word for a file's kind, by st_mode."""
    return _KINDS.get(stat.S_IFMT(mode), "file")


@dataclass(frozen=True, slots=True)
class Found:
    """What is at `path` (absolute, clean), links followed: open as O_PATH while its block lasts."""

    fd: int
    path: str
    status: os.stat_result

    @property
    def name(self) -> str:
        """ "" for the root itself."""
        return self.path.rpartition("/")[2]

    @property
    def size(self) -> int | None:
        """In bytes, of a regular file."""
        return self.status.st_size if stat.S_ISREG(self.status.st_mode) else None

    def check(self) -> None:
        """Raises InvalidInput for what `write` cannot write: a device, a pipe, a socket."""
        if self.size is None and not stat.S_ISDIR(self.status.st_mode):
            raise InvalidInput(f"neither a file nor a folder: {text(os.fsencode(self.path))}")

    def write(self, out: Writable) -> None:
        """A file's bytes as they are, as many as it had when it was opened; a folder as a tar with
        all below it. Raises InvalidInput, Conflict where a file has shrunk."""
        self.check()
        if self.size is None:
            write_tree(self.fd, b"", os.fsencode(self.name and self.name + "/"), out)
        else:
            self._copy(self.size, out)

    def _copy(self, left: int, out: Writable) -> None:
        with _reader(self.fd) as file:
            while left:
                data = file.read(min(_PIECE, left))
                if not data:
                    raise Conflict(f"{text(os.fsencode(self.path))} became shorter on the way")
                left -= len(data)
                out.write(data)


@contextmanager
def found(root: Root, path: str, container: str) -> Iterator[Found]:
    """Raises NotFound (`container` is what its words call it), InvalidInput."""
    whole = cleaned(path).removesuffix("/.").rstrip("/") or "/"
    try:
        fd = open_in_root(root.fd, os.fsencode(whole), _PATH)
    except OSError as error:
        raise missing(error, text(os.fsencode(path)), container) from error
    try:
        yield Found(fd, whole, os.fstat(fd))
    finally:
        os.close(fd)


def page_start(count: int, page: int) -> int:
    """Where the page (1 is the first) of `count` entries starts; one that is not there is the
    nearest that is."""
    last = max(0, count - 1) // PAGE_SIZE
    return min(max(page - 1, 0), last) * PAGE_SIZE


def look(root: Root, path: str, container: str, query: str = "", page: int = 1) -> Listing | Look:
    """What is at `path`, links followed. `query` is part of the names wanted of a folder, its case
    no matter, `page` which page of them. Raises NotFound, InvalidInput."""
    with found(root, path, container) as here:
        if stat.S_ISDIR(here.status.st_mode):
            return _listing(root, here, query, page)
        content, cut = _text(here)
        return Look(here.path, _entry(here.name, here.status, _Names(root)), content, cut)


def _listing(root: Root, here: Found, query: str, page: int) -> Listing:
    folder = os.open(f"/proc/self/fd/{here.fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wanted = query.casefold()
        keys: list[tuple[bool, str]] = []
        more = False
        with os.scandir(folder) as entries:
            for number, one in enumerate(entries):
                if number == MOST_NAMES:
                    more = True
                    break
                if wanted in one.name.casefold():
                    keys.append((not one.is_dir(follow_symlinks=False), one.name))
        names = _Names(root)
        shown = []
        start = page_start(len(keys), page)
        for _, name in sorted(keys)[start : start + PAGE_SIZE]:
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                link = leads = ""
                if stat.S_ISLNK(status.st_mode):
                    link, leads = os.readlink(name, dir_fd=folder), _leads(root, here, name)
            except FileNotFoundError:
                continue  # gone since
            shown.append(_entry(name, status, names, link, leads))
    finally:
        os.close(folder)
    return Listing(here.path, tuple(shown), len(keys), start, more)


def _entry(
    name: str, status: os.stat_result, names: _Names, link: str = "", leads: str = ""
) -> Entry:
    return Entry(
        name=name,
        kind=kind_of(status.st_mode),
        size=status.st_size,
        mode=stat.filemode(status.st_mode),
        owner=names.owner(status.st_uid),
        group=names.group(status.st_gid),
        changed=status.st_mtime,
        link=link,
        leads=leads,
    )


def _leads(root: Root, here: Found, name: str) -> str:
    try:
        target = open_in_root(root.fd, os.fsencode(f"{here.path}/{name}"), _PATH)
    except OSError:
        return ""
    try:
        return kind_of(os.fstat(target).st_mode)
    finally:
        os.close(target)


def _text(here: Found) -> tuple[str | None, bool]:
    """(its text as far as it goes here, whether it goes on); (None, …) for no text."""
    if here.size is None:
        return None, False
    with _reader(here.fd) as file:
        data = file.read(MOST_TEXT + 1)
    cut = len(data) > MOST_TEXT
    data = data[:MOST_TEXT]
    if b"\0" in data:
        return None, cut
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(data, final=not cut), cut  # half a character at the cut is left out
    except UnicodeDecodeError:
        return None, cut


def _reader(fd: int) -> BinaryIO:
    """A regular file that is open as O_PATH, to be read: the very file, wherever it has gone."""
    return open(os.open(f"/proc/self/fd/{fd}", _READ), "rb")


class _Names:
    """Users and groups as the container's own files name them, else by number."""

    def __init__(self, root: Root) -> None:
        self._users = _by_number(read_file(root.fd, "/etc/passwd", _MOST_USERS))
        self._groups = _by_number(read_file(root.fd, "/etc/group", _MOST_USERS))

    def owner(self, number: int) -> str:
        return self._users.get(str(number), str(number))

    def group(self, number: int) -> str:
        return self._groups.get(str(number), str(number))


def _by_number(content: bytes | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (content or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0]:
            found.setdefault(fields[2], fields[0])
    return found
