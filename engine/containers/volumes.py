"""Volumes on disk: HOME/volumes/KEY/_data, filled from the image at their first use.

A volume's folder is named by its key and not by its name. Copy-up resolves the image's path
inside the container's root by the kernel (security case 12): a symbolic link there copies what
it means inside, never the host's. Which container has which volume is rows
(engine.services.volumes); what they become for the runtime is `engine.containers.mounts`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import EngineConfig
from engine.errors import EngineError, InvalidInput, MountFailed
from engine.runtime import rootfs
from engine.snapshots.usage import usage_of

_KEY = re.compile(r"[0-9a-f]{32}")
_NOSUID, _NODEV, _NOEXEC, _RDONLY = 0x2, 0x4, 0x8, 0x1
_FLAGS = {"nosuid": _NOSUID, "nodev": _NODEV, "noexec": _NOEXEC, "ro": _RDONLY, "rw": 0}
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class VolumeAt:
    """A volume in a container. `key` is 32 hex digits; `options` the local driver's: type, device,
    o. Without options it is a folder of ours."""

    key: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """The host's folder that it stands for; "" where it is none (`o=bind`)."""
        words = self.options.get("o", "").split(",")
        return self.options.get("device", "") if {"bind", "rbind"} & set(words) else ""

    @property
    def tmpfs(self) -> bool:
        return self.options.get("type") == "tmpfs" and not self.device


class Volumes:
    """All volumes of one home; several processes may use it at once."""

    def __init__(self, config: EngineConfig) -> None:
        self._root = config.volumes_dir

    def data(self, key: str) -> Path:
        """Its files. Raises InvalidInput for what is no key: it may come from a row."""
        if not _KEY.fullmatch(key):
            raise InvalidInput(f"not a volume's key: {key}", field="volume")
        return self._root / key / "_data"

    def make(self, key: str) -> Path:
        """Its folder, empty where it is new. Idempotent."""
        data = self.data(key)
        # Docker's modes: the way to it is root's, the folder itself anybody's to enter.
        data.parent.mkdir(parents=True, exist_ok=True, mode=0o701)
        data.mkdir(exist_ok=True, mode=0o755)
        return data

    def every(self) -> list[str]:
        """The keys of all folders there are, in no order."""
        if not self._root.is_dir():
            return []
        return [entry.name for entry in self._root.iterdir() if _KEY.fullmatch(entry.name)]

    def usage(self, key: str) -> int:
        """Bytes, as Docker counts: lengths of files; 0 for one that has no folder yet."""
        try:
            return usage_of(self.data(key)).length
        except FileNotFoundError:
            return 0

    def remove(self, key: str) -> None:
        """Its files go. Idempotent."""
        data = self.data(key)
        self.unmount(key)
        aside = self._root / f".{key}"
        # Renamed first: half a volume must not pass for a whole one.
        with suppress(FileNotFoundError):
            data.parent.rename(aside)
        with suppress(FileNotFoundError):
            shutil.rmtree(aside)

    def sweep(self) -> int:
        """What killed processes were removing; how many."""
        left = [entry for entry in self._root.glob(".*") if _KEY.fullmatch(entry.name[1:])]
        for entry in left:
            shutil.rmtree(entry, ignore_errors=True)
        return len(left)

    @contextmanager
    def lock(self, key: str) -> Iterator[Path]:
        """One at a time fills, mounts or unmounts a volume. Gives its folder of files."""
        data = self.make(key)
        descriptor = os.open(data.parent / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield data
        finally:
            os.close(descriptor)

    def fill(self, key: str, root: int, path: str) -> None:
        """Copy what the image has at `path` into an empty volume: content, owner, mode.

        `root` is a descriptor of the container's file system, mounted. Idempotent, and begun anew
        where a fill before it was killed. Raises EngineError.
        """
        with self.lock(key) as data:
            begun = data.parent / "filling"
            if begun.exists():
                _empty(data)
            elif any(data.iterdir()):
                return
            try:
                source = rootfs.open_at(root, path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                return  # no folder in the image: the volume begins empty
            try:
                begun.touch()
                copy(source, data)
                begun.unlink()
            finally:
                os.close(source)

    def mount(self, key: str, options: Mapping[str, str]) -> None:
        """A tmpfs over its folder, where none is yet. Raises MountFailed, InvalidInput."""
        with self.lock(key) as data:
            if data.is_mount():
                return
            words = [word for word in options.get("o", "").split(",") if word]
            flags = 0
            for word in words:
                flags |= _FLAGS.get(word, 0)
            text = ",".join(word for word in words if word not in _FLAGS)
            if _libc.mount(b"tmpfs", os.fsencode(data), b"tmpfs", flags, text.encode() or None):
                code = ctypes.get_errno()
                raise MountFailed(
                    f"failed to mount local volume: mount tmpfs:{data}, data: {text}: "
                    f"{os.strerror(code).lower()}",
                    hint="look at the volume's option o",
                )

    def unmount(self, key: str) -> None:
        """Take the tmpfs away, with all that is in it. Idempotent."""
        data = self.data(key)
        while data.is_mount():
            if _libc.umount2(os.fsencode(data), _DETACH):
                code = ctypes.get_errno()
                if code == errno.EINVAL:
                    return  # somebody else was faster
                raise MountFailed(f"cannot unmount {data}: {os.strerror(code)}", path=str(data))


def check(target: str) -> str:
    """The container path, cleaned; InvalidInput when nothing can be mounted there."""
    if not target.startswith("/") or "\0" in target:
        raise InvalidInput(
            f"invalid mount path: '{target}' mount path must be absolute", field="volumes"
        )
    path = os.path.normpath("/" + target.lstrip("/"))
    if path == "/":
        raise InvalidInput(
            "invalid specification: destination can't be '/'",
            hint="use an absolute path below /",
            field="volumes",
        )
    return path


def copy(source: int, target: Path) -> None:
    """What lies in the folder `source` (a descriptor), and its own owner and mode, into `target`.
    Raises EngineError."""
    # cp never follows a link on its way down, and keeps holes, hard links, xattrs and devices.
    done = subprocess.run(
        ["cp", "-a", "--", f"/proc/self/fd/{source}/.", str(target)],
        pass_fds=(source,),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        text = done.stderr.decode("utf-8", "replace").strip()
        raise EngineError(f"cannot fill the volume {target}: {text}", path=str(target))


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
