"""What a snapshotter does, and the words for it (containerd's).

- A *snapshot* is one layer of a file system and, through its *parent*, all layers below it.
- An *active* snapshot is writable and found by its **key**, a text its user chooses:
  `container-ID`, `build-N-3`, `extract-CHAIN`. It is mounted to be worked in.
- A *committed* snapshot never changes again and is found by its **name**: the chain id of its
  stack. Only committed snapshots are parents.
- Keys and names share one space: letters, digits and `._:-`, at most 200.

One use, a RUN step on a pulled image:

    snapshots.prepare("build-7-2", parent=chain)      # an empty layer on top of the image
    snapshots.mount("build-7-2", target)              # the whole file system, writable
    ...                                               # the step runs in target
    snapshots.unmount(target)
    write_layer(snapshots.upper("build-7-2"), out)    # what the step changed, as a tar
    snapshots.commit("build-7-2", chain_id([*diff_ids, diff_id]))

Unpacking a pulled layer is `prepare`, `apply_layer(..., upper(key), lowers(key))`, `commit`.
A snapshotter knows nothing of images, blobs or containers; who still needs what is images/prune's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from engine.snapshots.usage import Usage


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """`name` is the key while active; `parent` is always a committed name."""

    name: str
    kind: Literal["active", "committed"]
    parent: str | None


class Snapshotter(Protocol):
    """Several threads and processes may use one at once. Every method that takes a key or name
    raises InvalidInput for one that cannot be, and NotFound where it says nothing else."""

    def exists(self, name: str) -> bool:
        """Whether there is a snapshot, active or committed, of this name."""

    def info(self, name: str) -> SnapshotInfo: ...

    def parent(self, name: str) -> str | None:
        """The name of the committed snapshot it stands on."""

    def walk(self) -> Iterator[SnapshotInfo]:
        """All, in no order."""

    def prepare(self, key: str, parent: str | None) -> None:
        """A new, empty active snapshot. Raises NameTaken, NotFound (parent), NoSpace."""

    def mount(self, key: str, target: Path, *, volatile: bool = False) -> None:
        """Mount an active snapshot, writable, on an existing folder, in the caller's mount
        namespace. MUST NOT be mounted twice at a time. `volatile` leaves out syncing to disk:
        for steps whose result is thrown away after a crash. Raises MountFailed."""

    def view_mount(self, name: str, target: Path) -> None:
        """Mount any snapshot read-only; the same committed one any number of times."""

    def unmount(self, target: Path) -> None:
        """Undo a mount; nothing happens where none is."""

    def mounts(self) -> Iterator[tuple[str, Path]]:
        """(key or name, target) of what is mounted in the caller's mount namespace."""

    def upper(self, key: str) -> Path:
        """The folder of an active snapshot's own changes. MUST NOT be written while mounted."""

    def lowers(self, name: str) -> tuple[Path, ...]:
        """The folders of the committed layers below it, topmost first. MUST NOT be written."""

    def layer(self, name: str) -> Path:
        """The folder of this one layer's own changes, active or committed, to read."""

    def commit(self, key: str, name: str) -> None:
        """The active snapshot becomes the committed `name`: a rename, nothing is copied. Where
        `name` exists already the active one is dropped: same chain id, same content. MUST be
        unmounted: WrongState."""

    def remove(self, name: str) -> None:
        """Remove it and its files; nothing happens where none is. Raises Conflict while others
        stand on it and WrongState while it is mounted."""

    def usage(self, name: str) -> Usage:
        """What this one layer takes, without its parents."""
