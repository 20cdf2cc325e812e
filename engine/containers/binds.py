"""Folders and files of the host on their way into a container.

What a path means is found out once, by walking it without following links, and held open. It is
then mounted on a place of ours below HOME/run/binds, for the runtime to mount from there: between
the look and the mount nobody can put something else in its place. (A descriptor of ours itself
cannot be mounted from in the runtime's mount namespace: mount(2) gives EINVAL.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.ceiling import Ceiling
from engine.config import EngineConfig
from engine.containers.settings import check_id
from engine.errors import InvalidInput, MountFailed

_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
_DETACH, _NOFOLLOW = 0x2, 0x8

_libc = ctypes.CDLL(None, use_errno=True)


class Stage:
    """Where the host's folders of one container are mounted while it is being started."""

    def __init__(self, config: EngineConfig, id: str) -> None:
        self._root = config.run_dir / "binds"
        self._id = check_id(id)

    @contextmanager
    def put(self, descriptor: int) -> Iterator[Path]:
        """A path that is what `descriptor` is, while the block lasts. Raises MountFailed."""
        self._root.mkdir(exist_ok=True, mode=0o700)
        target = self._root / f"{self._id}.{descriptor}"
        _clear(target)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(mode=0o700)
        else:
            target.touch(mode=0o600)
        try:
            _mount(f"/proc/self/fd/{descriptor}", target, _BIND | _REC)
            _mount("none", target, _REC | _PRIVATE)
            yield target
        finally:
            _clear(target)

    def clear(self) -> None:
        """What a killed process left. Idempotent."""
        for target in self._root.glob(f"{self._id}.*"):
            _clear(target)


def open_allowed(path: str, ceiling: Ceiling, *, create: bool) -> int:
    """A descriptor (O_PATH) of what `path` means now, once its real path is known to be allowed.
    `create` makes folders that are missing. Raises PolicyDenied, InvalidInput."""
    real = os.path.realpath(path)
    ceiling.check_bind(real)
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in filter(None, real.split("/")):
            descriptor = _step(descriptor, part, path, create=create)
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _step(folder: int, part: str, path: str, *, create: bool) -> int:
    """One part further, closing `folder`; no link is followed: they have been resolved."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        found = os.open(part, flags, dir_fd=folder)
    except FileNotFoundError as error:
        if not create:
            raise InvalidInput(
                f'invalid mount config for type "bind": bind source path does not exist: {path}',
                field="mounts",
            ) from error
        os.mkdir(part, 0o755, dir_fd=folder)
        found = os.open(part, flags, dir_fd=folder)
    except NotADirectoryError as error:
        raise InvalidInput(f"not a folder on the way to {path}", field="mounts") from error
    if stat.S_ISLNK(os.fstat(found).st_mode):
        os.close(found)
        raise InvalidInput(f"{path} changed while it was looked at", field="mounts")
    os.close(folder)
    return found


def _mount(source: str, target: Path, flags: int) -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None):
        code = ctypes.get_errno()
        raise MountFailed(f"cannot mount on {target}: {os.strerror(code)}", target=str(target))


def _clear(target: Path) -> None:
    """Unmounted for certain before anything is removed: below lie the host's own files."""
    while _libc.umount2(os.fsencode(target), _DETACH | _NOFOLLOW) == 0:
        pass
    code = ctypes.get_errno()
    if code == errno.ENOENT:
        return
    if code != errno.EINVAL:
        raise MountFailed(f"cannot unmount {target}: {os.strerror(code)}", target=str(target))
    if target.is_dir():
        target.rmdir()
    else:
        target.unlink()
