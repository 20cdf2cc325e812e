"""A container's files from outside, for as long as a block lasts, whether it runs or not.

What a running one has mounted on the host is looked at as it is; any other's file system is mounted
meanwhile, under its lock. With `volumes` (as for docker cp; an export goes without) its volumes and
folders of the host lie where they lie inside, in a mount namespace of the calling thread's own: so
nothing is seen outside and nothing is left behind, however it ends. Its tmpfs mounts are not there,
as with Docker.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.config import EngineConfig
from engine.containers.layout import ContainerDir
from engine.containers.mounts import runtime_mounts
from engine.containers.settings import ContainerSettings
from engine.containers.volumes import VolumeAt
from engine.errors import MountFailed, WrongState
from engine.runtime.spec import Mount
from engine.snapshots.folders import Folders
from engine.snapshots.protocol import Snapshotter
from engine.snapshots.resolve import open_in_root

_BIND, _REC, _PRIVATE, _REMOUNT, _RDONLY = 0x1000, 0x4000, 0x40000, 0x20, 0x1
_DETACH = 0x2
_NEW_NAMESPACE = 0x00020000 | 0x200  # CLONE_NEWNS | CLONE_FS

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Root:
    """`fd` (O_PATH) is /: resolve paths by `open_in_root` alone. `mounted`: what lies on it."""

    fd: int
    mounted: tuple[Mount, ...] = ()


@contextmanager
def opened_root(
    config: EngineConfig,
    snapshots: Snapshotter,
    settings: ContainerSettings,
    volumes: Mapping[str, VolumeAt] | None,
    *,
    there: bool,
) -> Iterator[Root]:
    """Call it in a thread that ends afterwards: one with volumes stays in its own namespace.

    `there`: it `is_mounted`. Else the caller holds the container's lock. Raises WrongState when it
    has ended since, MountFailed, NotFound, PolicyDenied, InvalidInput.
    """
    directory = ContainerDir(config, settings.id)
    ours = volumes is not None and bool(settings.host.mounts)
    if ours:
        _leave(directory.rootfs)
    if not there:
        snapshots.mount(directory.snapshot, directory.rootfs)
    try:
        fd = os.open(directory.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_dev == directory.path.stat().st_dev:
                raise WrongState(f"container {settings.id} has just ended", hint="try again")
            if not ours or volumes is None:
                yield Root(fd)
                return
            # Not its own id: its start may be staging under that at this moment.
            stage = secrets.token_hex(32)
            with runtime_mounts(config, stage, settings.host.mounts, {}, volumes) as found:
                binds = sorted(
                    (mount for mount in found if mount.type == "bind"),
                    key=lambda mount: mount.destination.count("/"),
                )
                for mount in binds:
                    _bind(fd, mount)
            yield Root(fd, tuple(binds))
        finally:
            os.close(fd)
    finally:
        if not there and not ours:
            snapshots.unmount(directory.rootfs)


def is_mounted(directory: ContainerDir) -> bool:
    """Whether its file system is there, as while it runs."""
    try:
        return directory.rootfs.stat().st_dev != directory.path.stat().st_dev
    except FileNotFoundError:
        return False


def _leave(rootfs: Path) -> None:
    """Into a mount namespace of this thread's own, without other containers' file systems: they
    could not be let go of as long as it is."""
    _check(_libc.unshare(_NEW_NAMESPACE), "a mount namespace")
    _mount("none", "/", _REC | _PRIVATE)
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        front, _, back = line.partition(" - ")
        target = front.split(" ")[4]
        if back.startswith("overlay ") and target != str(rootfs):
            _libc.umount2(os.fsencode(target), _DETACH)


def _bind(root: int, mount: Mount) -> None:
    path = os.fsencode(mount.destination)
    folder = stat.S_ISDIR(Path(mount.source).stat().st_mode)
    target = _place(root, path, folder=folder)
    try:
        _mount(mount.source, f"/proc/self/fd/{target}", _BIND | _REC)
    finally:
        os.close(target)
    if "ro" in mount.options:
        target = open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)
        try:
            _mount("none", f"/proc/self/fd/{target}", _BIND | _REMOUNT | _RDONLY)
        finally:
            os.close(target)


def _place(root: int, path: bytes, *, folder: bool) -> int:
    """Where it goes, made as the runtime makes it where it is missing."""
    try:
        return open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        pass  # it was never started
    folders = Folders(root, (), whiteouts=False)
    try:
        if folder:
            folders.enter(path.strip(b"/"))
        else:
            parent, _, base = path.strip(b"/").rpartition(b"/")
            flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(base, flags, 0o644, dir_fd=folders.enter(parent)))
    finally:
        folders.close()
    return open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)


def _mount(source: str, target: str, flags: int) -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None
    )
    _check(result, target)


def _check(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MountFailed(f"cannot mount {what}: {reason}", target=what)
