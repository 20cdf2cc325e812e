"""How much disk a folder takes: blocks (as `du` counts) and lengths (as Docker does), hard links
once."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from engine.snapshots.resolve import opened
from engine.snapshots.tree import scan


@dataclass(frozen=True, slots=True)
class Usage:
    """`bytes` on disk and `inodes`, both with the folders; `length` of all but the folders."""

    bytes: int
    inodes: int
    length: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.bytes + other.bytes, self.inodes + other.inodes, self.length + other.length
        )


def usage_of(root: Path) -> Usage:
    """Walks `root` without following links; what disappears meanwhile is not counted."""
    linked: set[int] = set()
    todo = [""]
    length = 0
    with opened(root) as top:
        blocks, inodes = os.fstat(top).st_blocks, 1
        while todo:
            folder = todo.pop()
            try:
                with scan(top, folder) as entries:
                    for entry in entries:
                        status = _stat(entry)
                        if status is None:
                            continue
                        if stat.S_ISDIR(status.st_mode):
                            todo.append(f"{folder}{entry.name}/")
                        else:
                            if status.st_nlink > 1:
                                if status.st_ino in linked:
                                    continue
                                linked.add(status.st_ino)
                            length += status.st_size
                        blocks += status.st_blocks
                        inodes += 1
            except (FileNotFoundError, NotADirectoryError):
                continue  # a running container removed or replaced it
            except OSError as error:
                if error.errno != errno.ELOOP:  # replaced by a link
                    raise
    return Usage(blocks * 512, inodes, length)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
