"""Devices of the host for a container: looked up once, by root, and named by their numbers.

What a path leads to is decided here and not by the runtime later: links are resolved, the real
path held against the ceiling, and the node's numbers taken from what was opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.ceiling import Ceiling
from engine.containers import options
from engine.errors import InvalidInput
from engine.runtime.spec import Device

# opencontainers/runc libcontainer/devices GetDevices.
_NOT_DEVICES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
_TYPES = {stat.S_IFBLK: "b", stat.S_IFCHR: "c"}


def devices(wanted: Iterable[options.Device], ceiling: Ceiling) -> tuple[Device, ...]:
    """A folder gives all devices in it. Raises PolicyDenied, InvalidInput (moby's words)."""
    found: list[Device] = []
    for asked in wanted:
        real = os.path.realpath(asked.host)
        ceiling.check_device(real)
        try:
            inside = [*_below(real, asked.container)]
        except FileNotFoundError as error:
            raise _no_device(asked.host, "no such file or directory") from error
        if not inside:
            raise _no_device(asked.host, "not a device node")
        found += [_numbers(path, as_seen, asked.permissions) for path, as_seen in inside]
    return tuple(found)


def all_devices() -> tuple[Device, ...]:
    """Every device of the host: what `--privileged` gives."""
    found = []
    for path, as_seen in _below("/dev", "/dev"):
        with suppress(OSError, InvalidInput):  # gone meanwhile
            found.append(_numbers(path, as_seen, "rwm"))
    return tuple(found)


def _below(real: str, as_seen: str) -> Iterator[tuple[str, str]]:
    found = Path(real).lstat()
    if not stat.S_ISDIR(found.st_mode):
        if _is_device(found):
            yield real, as_seen
        return
    for entry in sorted(os.scandir(real), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _NOT_DEVICES:
                yield from _below(entry.path, f"{as_seen}/{entry.name}")
        elif entry.name != "console":
            with suppress(FileNotFoundError):
                if _is_device(entry.stat(follow_symlinks=False)):
                    yield entry.path, f"{as_seen}/{entry.name}"


def _is_device(found: os.stat_result) -> bool:
    return stat.S_IFMT(found.st_mode) in _TYPES


def _numbers(path: str, as_seen: str, access: str) -> Device:
    found = Path(path).lstat()
    if not _is_device(found):
        raise _no_device(path, "not a device node")
    return Device(
        path=as_seen,
        type="b" if stat.S_ISBLK(found.st_mode) else "c",
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        access=access,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
    )


def _no_device(path: str, why: str) -> InvalidInput:
    return InvalidInput(
        f'error gathering device information while adding custom device "{path}": {why}',
        hint="name a device of the host",
        field="devices",
        path=path,
    )
