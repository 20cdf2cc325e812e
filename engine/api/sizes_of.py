"""What a container's own files take, and its whole root file system."""

from __future__ import annotations

from engine.services.work.leftovers import written


def sizes_of(uid: str, image_size: int) -> tuple[int, int]:
    """(SizeRw, SizeRootFs) in bytes; a container without a folder yet has written nothing."""
    own = written(uid)
    return own, image_size + own
