"""Files of a container's root, opened so that nothing in it can lead outside (openat2(2)).

An image is somebody else's: its /etc/passwd may be a symbolic link to the host's, a folder on
the way may be one, a file may be a fifo nobody writes to. Every path here is resolved by the
kernel with RESOLVE_IN_ROOT: `..` and absolute links stay inside. Leaves to the runtime what
happens inside the container's own mount namespace.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def open_at(root: int, path: str, flags: int, mode: int = 0) -> int:
    """open(2) of `path` as a process chrooted to the folder `root` would; the descriptor.

    Raises OSError with the path; magic links (/proc/PID/fd) are never followed.
    """
    how = _OpenHow(
        flags | os.O_CLOEXEC,
        mode if flags & os.O_CREAT else 0,
        _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS,
    )
    name = ctypes.c_char_p(os.fsencode(path or "/"))
    while True:
        # Every argument but the pointers must be a long: syscall(2) is variadic.
        descriptor: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(root),
            name,
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        code = ctypes.get_errno()
        # EAGAIN: a rename elsewhere in the tree raced with the walk (openat2(2)).
        if code not in (4, 11):
            raise OSError(code, os.strerror(code), path)


@contextmanager
def opened(root: Path) -> Iterator[int]:
    """The folder `root` as a descriptor for the other calls."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(root: int, path: str, limit: int) -> bytes | None:
    """A regular file's first `limit` bytes; None when there is none or it is something else."""
    try:
        # O_NONBLOCK: a fifo in place of the file must not hold us up.
        descriptor = open_at(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        return file.read(limit)


def lookup(root: int, path: str) -> os.stat_result | None:
    """stat(2) of `path` inside the root, links followed inside; None when it is not there."""
    try:
        descriptor = open_at(root, path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
