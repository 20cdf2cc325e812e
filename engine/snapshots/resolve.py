"""Opening a path inside a folder without ever leaving it: openat2(2), through ctypes.

Python has no openat2. Everything here returns a descriptor the caller closes, and raises OSError
as the kernel gives it; what an error means to a user is the caller's to say.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

_SYS_OPENAT2 = 437  # the same on every architecture
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_PIECE = 3500
"""Below PATH_MAX (4,096): a deeper folder is opened in several steps."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_in_root(root: int, path: bytes, flags: int = _FOLDER) -> int:
    """Open `path` as a process whose root is `root` would: `/`, `..` and symbolic links, also
    absolute ones, end inside. By default a folder's O_PATH descriptor."""
    return _openat2(root, path, flags, _IN_ROOT | _NO_MAGICLINKS)


def open_beneath(root: int, path: bytes, flags: int = _FOLDER) -> int:
    """Open a relative `path` of any length in which nothing is a symbolic link (ELOOP if so)."""
    fd, held = root, -1
    try:
        while len(path) > _PIECE:
            cut = path.rindex(b"/", 0, _PIECE)
            fd = _openat2(fd, path[:cut], _FOLDER, _BENEATH | _NO_SYMLINKS)
            if held >= 0:
                os.close(held)
            held, path = fd, path[cut + 1 :]
        return _openat2(fd, path, flags, _BENEATH | _NO_SYMLINKS)
    finally:
        if held >= 0:
            os.close(held)


@contextmanager
def opened(root: Path) -> Iterator[int]:
    """The folder a tree hangs on, itself no symbolic link."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    if b"\0" in path:
        raise OSError(errno.EINVAL, "null byte in a path", path)
    how = _how(flags, resolve)
    while True:
        fd: int = _syscall(_SYS_OPENAT2, folder, path or b".", ctypes.byref(how), _HOW_SIZE)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # EAGAIN: a rename elsewhere made the kernel unsure of a `..`; it asks to be tried again.
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, os.strerror(code), path)


_HOW_SIZE = ctypes.c_size_t(ctypes.sizeof(_How))


@lru_cache(maxsize=16)
def _how(flags: int, resolve: int) -> _How:
    return _How(flags, 0, resolve)
