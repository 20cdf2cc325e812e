"""What a container's own files take, and its whole root file system."""

from __future__ import annotations

from engine.errors import QuaysideError
from engine.services.work.host import host


def sizes_of(uid: str, image_size: int) -> tuple[int, int]:
    """(SizeRw, SizeRootFs) in bytes; a container without a folder yet has written nothing."""
    try:
        written = host().snapshots.usage(f"container-{uid}").length
    except QuaysideError:
        written = 0
    return written, image_size + written
