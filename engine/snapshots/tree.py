"""Walking and removing trees a container made: as deep, as odd and as changing as it liked.

A container can nest folders deeper than PATH_MAX or Python's recursion, and may be running.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.snapshots.resolve import open_beneath, opened

_DEPTH = 64


@contextmanager
def scan(root: int, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """`os.scandir` of a folder below the descriptor `root`, without following any link."""
    fd = open_beneath(root, os.fsencode(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it, links themselves and never what they point to; nothing
    happens where it is not. Nobody else MUST use it by now."""
    try:
        with opened(path) as top:
            while _empty(top, top):
                pass
        path.rmdir()
    except FileNotFoundError:
        return


def remove_entry(name: bytes, folder: int) -> None:
    """Remove what `name` is in the folder's descriptor, a tree too."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        remove_tree(Path(f"/proc/self/fd/{folder}/{os.fsdecode(name)}"))


def _empty(top: int, fd: int, depth: int = 0) -> bool:
    """Empty the folder `fd`; True when something too deep was moved up to `top` for later."""
    moved = False
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in names:
        if not is_folder:
            os.unlink(name, dir_fd=fd)
        elif depth == _DEPTH:
            # Too deep to recurse into: hang it at the top, where the next round starts afresh.
            os.rename(name, secrets.token_hex(16), src_dir_fd=fd, dst_dir_fd=top)
            moved = True
        else:
            below = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd
            )
            try:
                moved |= _empty(top, below, depth + 1)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=fd)
    return moved
