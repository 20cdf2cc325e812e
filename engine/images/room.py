"""Room on the disk for what somebody sends: uploads stop before the disk is full, for everybody
else's containers write to it too."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import NoSpace

_SHARE = 20
_MOST = 1 << 30


def left(folder: Path) -> int:
    """Bytes that may still be written below `folder`; a twentieth of the disk, or a GiB, stays."""
    status = os.statvfs(folder)
    reserve = min(status.f_blocks * status.f_frsize // _SHARE, _MOST)
    return max(0, status.f_bavail * status.f_frsize - reserve)


def check(folder: Path, wanted: int = 0) -> None:
    """Raises NoSpace where `wanted` further bytes would leave too little."""
    if left(folder) <= wanted:
        raise NoSpace(
            f"not enough room on the disk of {folder}",
            hint="remove images, containers or build cache that nobody needs",
        )
