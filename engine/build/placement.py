"""Where COPY and ADD put things: the destination looked up in the image, before a file is written.

Docker's rules (as BuildKit's copier has them): missing folders are made 0755, the destination's own
links are followed inside the root, a file replaces a file or a link but never a folder, and a
folder never replaces a file. Leaves mounting and the files themselves to engine.build.copy.
"""

# Plain strings: a Path object for each file costs more than the system call.
# ruff: noqa: PTH101, PTH102, PTH115
from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from engine.build.context import ROOT, Entry, Listing, Owner
from engine.errors import ContextError

_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class CopyJob:
    """`destination` is absolute; with a trailing slash it is a folder. `owner` and `mode`, when
    given, are everybody's (--chown, --chmod)."""

    listings: tuple[Listing, ...]
    destination: str
    owner: Owner | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One listing's place: `path` relative to the root, "" being the root."""

    listing: Listing
    path: str


class Placement:
    """Where things go, decided on the mounted root, before a single file is written.

    Nobody else works in this root, so looking a path up part by part is not a race; every link
    is followed by hand and stays inside."""

    def __init__(self, root: str, job: CopyJob, mtime_ns: int = 0) -> None:
        self._root = root
        self._job = job
        self._mtime_ns = mtime_ns
        self._times: dict[str, int] = {}

    def targets(self) -> list[Target]:
        """Raises ContextError when several sources would become one file."""
        job = self._job
        slash = is_folder_name(job.destination)
        if len(job.listings) > 1 and not slash:
            raise ContextError(
                f"several sources, but {job.destination} is not a folder's name",
                hint="end the destination with /",
            )
        found = []
        for listing in job.listings:
            self._mtime_ns = listing.entries[0].mtime_ns
            if listing.source.is_dir:
                path = self.resolve(job.destination, as_folder=True, like=listing.entries[0])
                self._copy_up(path)
            elif slash:
                path = join(self.resolve(job.destination, as_folder=True), listing.source.name)
            else:
                path = self.resolve(job.destination, as_folder=False)
                if self._is_dir(path):
                    path = join(path, listing.source.name)
            if not listing.source.is_dir:
                self._copy_up(path.rpartition("/")[0])
            found.append(Target(listing, path))
        return found

    def resolve(self, destination: str, *, as_folder: bool, like: Entry | None = None) -> str:
        """The real path below the root, its folders made; the last one too with `as_folder`,
        then with the mode of `like`."""
        done: list[str] = []
        rest = [part for part in destination.split("/") if part not in ("", ".")]
        links = 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                del done[-1:]
                continue
            here = "/".join([*done, part])
            try:
                status = os.lstat(f"{self._root}/{here}")
            except FileNotFoundError:
                if rest or as_folder:
                    self._make(here, like if not rest else None)
                done.append(part)
                continue
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise ContextError(f"too many symbolic links on the way to {destination}")
                target = os.readlink(f"{self._root}/{here}")
                done = [] if target.startswith("/") else done
                rest = [*(p for p in target.split("/") if p not in ("", ".")), *rest]
            elif stat.S_ISDIR(status.st_mode) or not (rest or as_folder):
                done.append(part)
            else:
                raise ContextError(
                    f"cannot copy to {destination}: /{here} is no folder",
                    hint="choose another destination, or remove the file first",
                    entry=f"/{here}",
                )
        return "/".join(done)

    def check(self, target: Target) -> None:
        """What is there already must agree in kind; folders that exist are copied up now."""
        existing = {""} if self._is_dir(target.path) else set()
        for entry in target.listing.entries[1:]:
            parent = entry.path.rpartition("/")[0]
            if parent not in existing:
                continue
            path = join(target.path, entry.path)
            try:
                mode = os.lstat(f"{self._root}/{path}").st_mode
            except FileNotFoundError:
                continue
            if entry.kind == stat.S_IFDIR:
                if not stat.S_ISDIR(mode):
                    raise ContextError(
                        f"cannot copy the folder {entry.path}: /{path} is no folder in the image",
                        hint="remove it first with RUN rm, or copy to another place",
                        entry=f"/{path}",
                    )
                existing.add(entry.path)
                self._copy_up(path, keep_time=False)
            elif stat.S_ISDIR(mode):
                raise over_folder(path)
        if not target.listing.source.is_dir and self._is_dir(target.path):
            raise over_folder(target.path)

    def times(self) -> list[tuple[str, int]]:
        """(path, mtime) of folders to set at the end, deepest first."""
        return sorted(self._times.items(), reverse=True)

    def _is_dir(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(f"{self._root}/{path}").st_mode)
        except FileNotFoundError:
            return False

    def _make(self, path: str, like: Entry | None) -> None:
        self._copy_up(path.rpartition("/")[0])
        real = f"{self._root}/{path}"
        os.mkdir(real)
        if like is None:
            owner, mode = self._job.owner or ROOT, 0o755
        else:
            owner = self._job.owner or Owner(like.uid, like.gid)
            mode = like.mode if self._job.mode is None else self._job.mode
        os.chown(real, *owner)
        os.chmod(real, mode)
        self._times[path] = self._mtime_ns

    def _copy_up(self, path: str, *, keep_time: bool = True) -> None:
        """Have the folder in the upper with everything it is: setting a mode it has does that."""
        if path in self._times:
            return
        real = f"{self._root}/{path}"
        status = os.lstat(real)
        if keep_time:
            self._times[path] = status.st_mtime_ns
        os.chmod(real, stat.S_IMODE(status.st_mode))


def is_folder_name(destination: str) -> bool:
    """Whether a destination says by itself that it is a folder."""
    return destination.endswith(("/", "/.", "/..")) or destination in (".", "..", "")


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def over_folder(path: str) -> ContextError:
    return ContextError(
        f"cannot replace the folder /{path} with a file",
        hint="choose another destination, or remove the folder first",
        entry=f"/{path}",
    )
