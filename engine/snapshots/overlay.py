"""The snapshotter on overlayfs.

Below its root:

    s/ID/{fs,work,parent,usage}         one layer; ID is short, so that 125 fit into one mount(2);
                                        parent -> ../../committed/NAME
    active/KEY      -> ../s/ID          the name, and with it the state, of a layer:
    committed/NAME  -> ../s/ID          a commit is the rename of this link
    trash/  empty/  lock

All changes of names happen under one flock and take microseconds; files are removed outside it.
Whatever a killed process leaves behind has no name, and `sweep` takes it away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import (
    Conflict,
    EngineError,
    InvalidInput,
    NameTaken,
    NoSpace,
    NotFound,
    WrongState,
)
from engine.snapshots import mount
from engine.snapshots.protocol import SnapshotInfo
from engine.snapshots.tree import remove_tree
from engine.snapshots.usage import Usage, usage_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_OPTIONS = "index=off,metacopy=off,redirect_dir=nofollow"
"""An upper must be all of the layer (no metadata-only copies, no redirects into lower layers), and
an image must not bring redirects of its own."""


class OverlaySnapshotter:
    """Implements `Snapshotter`. `root` must lie on a file system that overlayfs takes as upper
    (ext4, xfs, btrfs; not overlay itself); readable by its owner only, for layers hold device
    nodes and setuid files."""

    def __init__(self, root: Path) -> None:
        if not root.is_absolute() or re.search(r"[:,\\\s]", str(root)):
            raise InvalidInput(
                f"overlayfs cannot use the folder {root}",
                hint="choose an absolute path without space, comma, colon or backslash",
            )
        self._root = root
        self._layers, self._trash = root / "s", root / "trash"
        self._active, self._committed = root / "active", root / "committed"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._layers, self._trash, self._active, self._committed, root / "empty"):
            folder.mkdir(exist_ok=True)

    def exists(self, name: str) -> bool:
        return self._find(name) is not None

    def info(self, name: str) -> SnapshotInfo:
        link = self._link(name)
        parent = _parent(self._folder(link))
        return SnapshotInfo(name, "active" if link.parent == self._active else "committed", parent)

    def parent(self, name: str) -> str | None:
        return self.info(name).parent

    def walk(self) -> Iterator[SnapshotInfo]:
        for name, _ in self._named():
            try:
                yield self.info(name)
            except NotFound:
                continue  # removed since the folder was read

    def prepare(self, key: str, parent: str | None) -> None:
        with self._locked():
            if self._find(key) is not None:
                raise NameTaken(f"snapshot {key} exists already", name=key)
            below = self._require_committed(parent) if parent is not None else None
            try:
                layer = self._new_layer()
            except OSError as error:
                raise _failed(error, key) from error
            try:
                (layer / "work").mkdir(mode=0o700)
                (layer / "fs").mkdir(mode=0o755)
                (layer / "fs").chmod(0o755)  # whatever the umask: this is the container's /
                if below is not None:
                    status = (below / "fs").stat()
                    os.chown(layer / "fs", status.st_uid, status.st_gid)
                    (layer / "fs").chmod(status.st_mode & 0o7777)
                    (layer / "parent").symlink_to(f"../../committed/{parent}")
                (self._active / key).symlink_to(f"../s/{layer.name}")
            except OSError as error:
                remove_tree(layer)
                raise _failed(error, key) from error

    def mount(self, key: str, target: Path, *, volatile: bool = False) -> None:
        layer = self._require_active(key)
        if (layer / "work" / "work" / "incompat").exists():
            remove_tree(layer / "work")  # an earlier volatile mount, which must not be repeated
        (layer / "work").mkdir(mode=0o700, exist_ok=True)
        lowers = [f"{below.name}/fs" for below in self._stack(layer)[1:]] or ["../empty"]
        options = (
            f"lowerdir={':'.join(lowers)},upperdir={layer / 'fs'},workdir={layer / 'work'},"
            f"{_OPTIONS}{',volatile' if volatile else ''}"
        )
        mount.mount_overlay(self._layers, target, options)

    def view_mount(self, name: str, target: Path) -> None:
        stack = self._stack(self._folder(self._link(name)))
        # The first path is absolute to tell in `mounts` whose it is; overlay wants two at least.
        lowers = [f"{stack[0]}/fs", *(f"{layer.name}/fs" for layer in stack[1:]), "../empty"]
        options = f"lowerdir={':'.join(lowers)},{_OPTIONS}"
        mount.mount_overlay(self._layers, target, options, mount.MS_RDONLY | mount.MS_NODEV)

    def unmount(self, target: Path) -> None:
        mount.unmount(target)

    def mounts(self) -> Iterator[tuple[str, Path]]:
        names = {f"{layer}/fs": name for name, layer in self._named()}
        for found in mount.overlay_mounts():
            name = names.get(found.top)
            if name is not None:
                yield name, found.target

    def upper(self, key: str) -> Path:
        return self._require_active(key) / "fs"

    def lowers(self, name: str) -> tuple[Path, ...]:
        return tuple(layer / "fs" for layer in self._stack(self._folder(self._link(name)))[1:])

    def layer(self, name: str) -> Path:
        return self._folder(self._link(name)) / "fs"

    def commit(self, key: str, name: str) -> None:
        _check_name(name)
        layer = self._require_active(key)
        self._refuse_mounted(key, layer)
        with self._locked():
            if (self._committed / name).is_symlink():
                dropped = self._unname(self._active / key)
            elif (self._active / name).is_symlink() and name != key:
                raise NameTaken(f"snapshot {name} exists already", name=name)
            else:
                (self._active / key).rename(self._committed / name)
                dropped = layer / "work"
        _discard(dropped)

    def remove(self, name: str) -> None:
        link = self._find(name)
        if link is None:
            return
        self._refuse_mounted(name, self._folder(link))
        with self._locked():
            link = self._find(name)
            if link is None:
                return
            if link.parent == self._committed:
                child = next((n for n, layer in self._named() if _parent(layer) == name), None)
                if child is not None:
                    raise Conflict(f"snapshot {name} is in use below {child}", name=name)
            dropped = self._unname(link)
        _discard(dropped)

    def usage(self, name: str) -> Usage:
        """Of a committed one counted once, and kept beside it: it cannot change."""
        link = self._link(name)
        layer = self._folder(link)
        if link.parent == self._active:
            return usage_of(layer / "fs")
        kept = layer / "usage"
        try:
            return Usage(*map(int, kept.read_text().split()))
        except FileNotFoundError:
            found = usage_of(layer / "fs")
        aside = layer / f"usage-{secrets.token_hex(4)}"
        aside.write_text(f"{found.bytes} {found.inodes} {found.length}")
        aside.rename(kept)
        return found

    def sweep(self) -> int:
        """Remove what killed processes left without a name; how many layers. Idempotent."""
        with self._locked():
            named = {layer for _, layer in self._named()}
            for layer in self._layers.iterdir():
                if layer not in named:
                    layer.rename(self._trash / layer.name)
        dropped = list(self._trash.iterdir())
        for layer in dropped:
            _discard(layer)
        return len(dropped)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _named(self) -> Iterator[tuple[str, Path]]:
        """Every name with its layer's folder."""
        for links in (self._active, self._committed):
            for link in links.iterdir():
                try:
                    yield link.name, self._folder(link)
                except NotFound:
                    continue  # renamed or removed since the folder was read

    def _find(self, name: str) -> Path | None:
        _check_name(name)
        for links in (self._committed, self._active):
            if (links / name).is_symlink():
                return links / name
        return None

    def _link(self, name: str) -> Path:
        link = self._find(name)
        if link is None:
            raise NotFound(f"there is no snapshot {name}", name=name)
        return link

    def _folder(self, link: Path) -> Path:
        try:
            return self._layers / link.readlink().name
        except FileNotFoundError as error:
            raise NotFound(f"there is no snapshot {link.name}", name=link.name) from error

    def _require_active(self, key: str) -> Path:
        link = self._link(key)
        if link.parent != self._active:
            raise WrongState(f"snapshot {key} is committed and cannot change", name=key)
        return self._folder(link)

    def _require_committed(self, name: str) -> Path:
        link = self._link(name)
        if link.parent != self._committed:
            raise WrongState(f"snapshot {name} is not committed yet", name=name)
        return self._folder(link)

    def _new_layer(self) -> Path:
        while True:
            layer = self._layers / "".join(secrets.choice(_DIGITS) for _ in range(5))
            try:
                layer.mkdir(mode=0o700)
            except FileExistsError:
                continue
            return layer

    def _stack(self, layer: Path) -> list[Path]:
        """The layer and all below it, topmost first."""
        stack = [layer]
        while (parent := _parent(stack[-1])) is not None:
            stack.append(self._folder(self._committed / parent))
        return stack

    def _unname(self, link: Path) -> Path:
        layer = self._folder(link)
        link.unlink()
        return layer.rename(self._trash / layer.name)

    def _refuse_mounted(self, name: str, layer: Path) -> None:
        folder = f"{layer}/fs"
        for found in mount.overlay_mounts():
            if found.top == folder:
                raise WrongState(
                    f"snapshot {name} is mounted at {found.target}", hint="unmount it first"
                )


def _discard(layer: Path) -> None:
    """Remove the files of what has no name any more, unless somebody is at it: a sweep beside a
    removal would trip over it. The lock dies with its holder."""
    try:
        fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(layer)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _parent(layer: Path) -> str | None:
    try:
        return (layer / "parent").readlink().name
    except FileNotFoundError:
        return None


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"no snapshot can be named {name[:100]!r}", field="name")


def _failed(error: OSError, key: str) -> NoSpace | EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no space left for snapshot {key}", hint="free some disk space", name=key)
    return EngineError(f"snapshot {key} cannot be made: {error}", name=key)
