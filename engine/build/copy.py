"""Files of a source tree written into an active snapshot: what COPY and ADD do on disk.

The snapshot is mounted only to look the destination up (engine.build.placement) and to copy folders
up; the files then go straight into its upper, a third faster than through overlayfs. Leaves
finding and reading sources to engine.build.context and the layer to engine.snapshots.
"""

# Plain strings: a Path object for each file costs more than the system call.
# ruff: noqa: PTH101, PTH102, PTH108, PTH211
from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.build.context import ROOT, Entry, Listing, Owner
from engine.build.placement import CopyJob, Placement, Target, join, over_folder
from engine.errors import Cancelled, ContextError, NoSpace
from engine.snapshots import Snapshotter

# Names a file of a committed layer that is like the entry in all but its place: (listing, entry,
# path in the image) -> where it lies.
Twin = Callable[[Listing, Entry, str], str | None]


def copy_into(
    snapshots: Snapshotter,
    key: str,
    mountpoint: Path,
    job: CopyJob,
    *,
    twin: Twin | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Write the job into the fresh active snapshot `key`; `mountpoint` is used meanwhile.

    What `twin` names is linked instead of copied (committed layers never change). Folders that
    existed keep their times and those made on the way get their first source's, so that the same
    sources give the same layer. Raises ContextError, NoSpace, Cancelled.
    """
    upper = str(snapshots.upper(key))
    try:
        with _merged(snapshots, key, mountpoint) as root:
            place = Placement(root, job)
            targets = place.targets()
            for target in targets:
                place.check(target)
        writer = _Writer(upper, job, twin, cancelled)
        for target in targets:
            writer.write(target)
        writer.finish()
        for path, mtime_ns in place.times():
            os.utime(f"{upper}/{path}", ns=(mtime_ns, mtime_ns))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                "the disk is full: the files could not be copied", hint="free some space"
            ) from error
        raise


def make_folder(
    snapshots: Snapshotter, key: str, mountpoint: Path, path: str, mtime_ns: int
) -> None:
    """WORKDIR's folder: made with all above it, 0755 and root's. Raises ContextError."""
    job = CopyJob((), path)
    with _merged(snapshots, key, mountpoint) as root:
        place = Placement(root, job, mtime_ns)
        place.resolve(path, as_folder=True)
    upper = snapshots.upper(key)
    for made, time_ns in place.times():
        os.utime(upper / made, ns=(time_ns, time_ns))


@contextmanager
def _merged(snapshots: Snapshotter, key: str, mountpoint: Path) -> Iterator[str]:
    """The whole root: the upper itself where nothing is below it, else a mount."""
    if snapshots.parent(key) is None:
        yield str(snapshots.upper(key))
        return
    snapshots.mount(key, mountpoint, volatile=True)
    try:
        yield str(mountpoint)
    finally:
        snapshots.unmount(mountpoint)


class _Writer:
    """Writes entries into the upper of an unmounted snapshot; `targets` are real paths in it."""

    def __init__(
        self,
        upper: str,
        job: CopyJob,
        twin: Twin | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._upper = upper
        self._job = job
        self._twin = twin
        self._cancelled = cancelled
        self._special = False
        # With one source nothing can be in the way: what was there before is below the upper.
        self._fresh = len(job.listings) == 1
        self._folders: list[tuple[str, Entry]] = []

    def write(self, target: Target) -> None:
        links: dict[int, str] = {}
        tree, source = target.listing.tree, target.listing.source
        self._special = tree.special
        for number, entry in enumerate(target.listing.entries):
            if number % 256 == 0 and self._cancelled():
                raise Cancelled("cancelled while copying")
            path = join(target.path, entry.path)
            if path.rpartition("/")[2].startswith(".wh."):
                raise ContextError(
                    f"a name that begins with .wh. cannot be in an image: /{path}",
                    hint="rename it: layers mark removed files with this name",
                    entry=path,
                )
            real = f"{self._upper}/{path}"
            if entry.kind == stat.S_IFDIR:
                if entry.path:  # the top folder is the destination, settled before
                    self._folder(tree.real(source, entry), real, path, entry)
                continue
            if not self._fresh:
                self._clear(real, path)
            if entry.inode and (first := links.get(entry.inode)):
                os.link(first, real, follow_symlinks=False)
                continue
            if self._twin is not None and entry.kind == stat.S_IFREG:
                twin = self._twin(target.listing, entry, path)
                if twin is not None and _link(twin, real):
                    continue
            self._one(tree.real(source, entry), real, entry)
            if entry.inode:
                links[entry.inode] = real

    def finish(self) -> None:
        """Folders get owner, mode and time last: files put into them would change the time."""
        for real, entry in reversed(self._folders):
            os.chown(real, *self._owner(entry))
            os.chmod(real, self._mode(entry))
            os.utime(real, ns=(entry.mtime_ns, entry.mtime_ns))

    def _owner(self, entry: Entry) -> Owner:
        return self._job.owner or Owner(entry.uid, entry.gid)

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self._job.mode is None else self._job.mode

    def _folder(self, source: str, real: str, path: str, entry: Entry) -> None:
        try:
            os.mkdir(real, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(real).st_mode):
                raise ContextError(
                    f"cannot copy the folder {entry.path}: /{path} is no folder",
                    hint="two sources hold different kinds of this name",
                    entry=f"/{path}",
                ) from None
        self._folders.append((real, entry))
        self._xattrs(source, real)

    def _clear(self, real: str, path: str) -> None:
        """Make room: what an earlier source of this step wrote, or a copy overlayfs made."""
        try:
            status = os.lstat(real)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise over_folder(path)
        os.unlink(real)

    def _one(self, source: str, real: str, entry: Entry) -> None:
        if entry.kind == stat.S_IFREG:
            self._file(source, real, entry)
        elif entry.kind == stat.S_IFLNK:
            os.symlink(entry.target, real)
            os.chown(real, *self._owner(entry), follow_symlinks=False)
            self._xattrs(source, real)
            os.utime(real, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        else:
            if entry.kind == stat.S_IFCHR and entry.device == 0:
                raise ContextError(f"a device 0/0 cannot be in an image: {entry.path}")
            os.mknod(real, entry.kind | 0o600, entry.device)
            os.chown(real, *self._owner(entry))
            os.chmod(real, self._mode(entry))
            self._xattrs(source, real)
            os.utime(real, ns=(entry.mtime_ns, entry.mtime_ns))

    def _file(self, source: str, real: str, entry: Entry) -> None:
        read = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            write = os.open(
                real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                size = 0
                while copied := _copy(read, write, _SLICE):
                    size += copied
                    if copied < _SLICE and size >= entry.size:
                        break
                    if self._cancelled():
                        raise Cancelled("cancelled while copying")
                if size != entry.size:
                    raise ContextError(
                        f"a file changed while it was copied: {entry.path}",
                        hint="build again when nothing writes to the context",
                        entry=entry.path,
                    )
                owner = self._owner(entry)
                if owner != ROOT:
                    os.fchown(write, *owner)
                os.fchmod(write, self._mode(entry))  # after chown, which takes setuid away
                self._xattrs(source, real)
                os.utime(write, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(write)
        finally:
            os.close(read)

    def _xattrs(self, source: str, real: str) -> None:
        """A stage's files keep theirs (security.capability above all); a context has none."""
        if not self._special:
            return
        for name in os.listxattr(source, follow_symlinks=False):
            if not name.startswith("trusted.overlay."):
                value = os.getxattr(source, name, follow_symlinks=False)
                os.setxattr(real, name, value, follow_symlinks=False)


_SLICE = 8 * 1024 * 1024


def _copy(read: int, write: int, count: int) -> int:
    """copy_file_range(2) shares blocks where the file system can; sendfile(2) elsewhere."""
    try:
        return os.copy_file_range(read, write, count)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(write, read, None, count)


def _link(twin: str, real: str) -> bool:
    try:
        os.link(twin, real, follow_symlinks=False)
    except OSError:
        return False  # gone meanwhile, or at the file system's limit of links: copy it
    return True


def listed_as(listing: Listing, entry: Entry) -> str:
    """The entry's name in `sequence`."""
    return join(listing.source.name, entry.path) or "."


def sequence(listings: Sequence[Listing]) -> dict[str, str]:
    """{name: what counts about it} of all sources together, each below its own name."""
    found: dict[str, str] = {}
    for listing in listings:
        for path, line in listing.lines.items():
            found[join(listing.source.name, path) or "."] = line
    return found
