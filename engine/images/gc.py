"""Garbage: blobs and snapshots that no row, no lease and no other snapshot needs any more.

Safe beside running pulls and builds: the leases' lock is held throughout, the leases are read
first and the rows (`referenced`) second, see engine.images.leases. Whoever makes content without
a lease is covered for `grace_seconds` after writing only. Which rows need what is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.content import ContentStore
from engine.errors import Conflict, NotFound, WrongState
from engine.images.leases import Held, Leases
from engine.images.unpack import KEY_PREFIX
from engine.oci import media_types
from engine.oci.digest import Digest
from engine.oci.fields import Fields
from engine.oci.image import ImageConfig, ImageIndex, Manifest
from engine.snapshots import Snapshotter
from engine.snapshots.usage import Usage

GRACE_SECONDS = 3600.0
_INGEST_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Referenced:
    """What rows need. `manifests` (or indexes) keep their config, their layers' blobs and their
    layers' snapshots; `names` are further blobs or snapshots, each for itself with its parents:
    the build cache's layers, the chain of a container whose image is gone."""

    manifests: frozenset[Digest]
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed: `bytes` of blobs (as compressed) and of snapshots together; `layers` are
    the snapshots' names, and `length` of their files as Docker counts."""

    blobs: int
    snapshots: int
    bytes: int
    layers: tuple[str, ...] = ()
    length: int = 0


def collect(
    content: ContentStore,
    snapshots: Snapshotter,
    leases: Leases,
    referenced: Callable[[], Referenced],
    *,
    grace_seconds: float = GRACE_SECONDS,
    released: frozenset[str] = frozenset(),
) -> Collected:
    """Remove what nothing needs; idempotent, and safe to kill at any moment.

    `released` are names (blobs, snapshots) that had a row until now: they get no grace, for who
    still works with them has them leased.

    `referenced` is called once, under the lock, and MUST read what is committed by then. Raises
    ContentCorrupt, having removed nothing, where a referenced manifest cannot be read.
    """
    with leases.collecting() as held:
        rows = referenced()
        keep = names_of(content, rows.manifests) | rows.names | held.names
        before = time.time() - grace_seconds
        removed, usage = _sweep_snapshots(snapshots, keep, held, before, released)
        blobs = [
            info
            for info in content.walk()
            if info.digest not in keep
            and (info.digest in released or not _younger(content, info.digest, before))
        ]
        freed = sum(info.size for info in blobs if content.delete(info.digest))
    content.expire_ingests(_INGEST_SECONDS)
    return Collected(len(blobs), len(removed), freed + usage.bytes, tuple(removed), usage.length)


def collect_abandoned(snapshots: Snapshotter, leases: Leases) -> list[str]:
    """Remove what dead pulls were unpacking, and their leases; the snapshots' names. Quick where
    there is none; idempotent."""
    removed = []
    with leases.collecting() as held:
        for info in list(snapshots.walk()):
            if info.kind == "active" and _abandoned(info.name, held):
                snapshots.remove(info.name)
                removed.append(info.name)
    return removed


def names_of(content: ContentStore, manifests: Iterable[Digest]) -> set[str]:
    """The manifests (or indexes) and all they lead to: blobs' digests and snapshots' chain ids.
    What a lease keeps that builds on an image."""
    keep: set[str] = set()
    pending = list(manifests)
    while pending:
        digest = pending.pop()
        if digest in keep:
            continue
        keep.add(digest)
        if not content.has(digest):
            continue  # an index names platforms that were never pulled
        body = content.read(digest)
        if Fields(body, f"blob {digest}").take("manifests") is not None:
            pending += [entry.digest for entry in ImageIndex.from_json(body).manifests]
            continue
        manifest = Manifest.from_json(body)
        keep.add(manifest.config.digest)
        keep.update(layer.digest for layer in manifest.layers)
        if manifest.config.media_type in media_types.CONFIGS and content.has(
            manifest.config.digest
        ):
            config = ImageConfig.from_json(content.read(manifest.config.digest))
            keep.update(config.rootfs.chain_ids)
    return keep


def _sweep_snapshots(
    snapshots: Snapshotter, keep: set[str], held: Held, before: float, released: frozenset[str]
) -> tuple[list[str], Usage]:
    """Committed snapshots under nothing that stays, and what dead pulls were unpacking."""
    infos = {info.name: info for info in snapshots.walk()}
    staying: set[str] = set()
    for info in infos.values():
        if info.kind == "active":
            stays = not _abandoned(info.name, held)
        else:
            stays = info.name in keep or (
                info.name not in released and _made_after(snapshots, info.name, before)
            )
        name: str | None = info.name if stays else None
        while name is not None and name not in staying:
            staying.add(name)
            name = infos[name].parent if name in infos else None
    children = {info.name: 0 for info in infos.values()}
    for info in infos.values():
        if info.parent in children:
            children[info.parent] += 1
    removed: list[str] = []
    freed = Usage(0, 0)
    ready = [name for name in infos if name not in staying and not children[name]]
    while ready:
        name = ready.pop()
        try:
            usage = snapshots.usage(name)
            snapshots.remove(name)
        except (Conflict, WrongState, NotFound):
            continue  # mounted, built upon or gone since we looked: the next collection sees it
        removed.append(name)
        freed += usage
        parent = infos[name].parent
        if parent in children and parent is not None:
            children[parent] -= 1
            if not children[parent] and parent not in staying:
                ready.append(parent)
    return removed, freed


def _abandoned(key: str, held: Held) -> bool:
    owner = key.removeprefix(KEY_PREFIX).rpartition("-")[0]
    return key.startswith(KEY_PREFIX) and owner not in held.ids


def _younger(content: ContentStore, digest: Digest, before: float) -> bool:
    try:
        return content.path(digest).stat().st_mtime >= before
    except FileNotFoundError:
        return True  # gone already


def _made_after(snapshots: Snapshotter, name: str, before: float) -> bool:
    try:
        return snapshots.layer(name).stat().st_ctime >= before
    except (FileNotFoundError, NotFound):
        return True  # gone already
