"""Looking around in a container's root from outside: a folder's entries, a text file's beginning.

Everything is resolved by the kernel inside the root, as in `archive`; nothing that is no regular
file is ever opened to be read. What a look costs is bounded: of a folder at most MOST_NAMES names
are read and MOST_SHOWN entries looked at, of a file MOST_TEXT bytes.
"""

from __future__ import annotations

import codecs
import os
import stat
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from engine.containers.archive import cleaned, missing
from engine.containers.files import Root
from engine.runtime.rootfs import read_file
from engine.snapshots.folders import text
from engine.snapshots.resolve import open_in_root

MOST_NAMES = 100_000
MOST_SHOWN = 500
MOST_TEXT = 256 * 1024
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
    """A folder at `path`. `count` entries fit the query, the first of them are here, folders
    first; `more`: it has names that were not even read."""

    path: str
    entries: tuple[Entry, ...]
    count: int
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


def look(root: Root, path: str, container: str, query: str = "") -> Listing | Look:
    """What is at `path`, links followed. `query` is part of the names wanted of a folder, its case
    no matter. Raises NotFound, InvalidInput."""
    whole = cleaned(path).removesuffix("/.").rstrip("/") or "/"
    try:
        found = open_in_root(root.fd, os.fsencode(whole), _PATH)
    except OSError as error:
        raise missing(error, text(os.fsencode(path)), container) from error
    try:
        status = os.fstat(found)
        if stat.S_ISDIR(status.st_mode):
            return _listing(root, found, whole, query)
        content, cut = _text(found, status)
    finally:
        os.close(found)
    name = whole.rpartition("/")[2]
    return Look(whole, _entry(name, status, _Names(root)), content, cut)


def _listing(root: Root, found: int, whole: str, query: str) -> Listing:
    folder = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
        for _, name in nsmallest(MOST_SHOWN, keys):
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                link = leads = ""
                if stat.S_ISLNK(status.st_mode):
                    link, leads = os.readlink(name, dir_fd=folder), _leads(root, whole, name)
            except FileNotFoundError:
                continue  # gone since
            shown.append(_entry(name, status, names, link, leads))
    finally:
        os.close(folder)
    return Listing(whole, tuple(shown), len(keys), more)


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


def _leads(root: Root, whole: str, name: str) -> str:
    try:
        found = open_in_root(root.fd, os.fsencode(f"{whole}/{name}"), _PATH)
    except OSError:
        return ""
    try:
        return kind_of(os.fstat(found).st_mode)
    finally:
        os.close(found)


def _text(found: int, status: os.stat_result) -> tuple[str | None, bool]:
    """(its text as far as it goes here, whether it goes on); (None, …) for no text."""
    if not stat.S_ISREG(status.st_mode):
        return None, False
    fd = os.open(f"/proc/self/fd/{found}", _READ)
    with open(fd, "rb") as file:
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
