"""What a container has changed of its image (docker diff), for whoever may read its layer."""

from __future__ import annotations

from engine.containers.layout import snapshot_key
from engine.models import Container
from engine.services.work.host import host
from engine.snapshots.changes import RUNTIMES_OWN, Change, changes_of


def container_changes(container: Container) -> list[Change]:
    """Sorted by path; none for one that was never started."""
    snapshots, key = host().snapshots, snapshot_key(container.uid)
    if not snapshots.exists(key):
        return []
    return changes_of(snapshots.upper(key), snapshots.lowers(key), RUNTIMES_OWN)
