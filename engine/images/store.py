"""A plain tar becomes a layer in one pass: a gzip blob in the store and a committed snapshot.

For what comes uncompressed, or must be made anew: layers of old archives, imports. What was made
before is found, not made twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from engine.content import ContentStore
from engine.errors import Conflict, ContentCorrupt
from engine.images.leases import Lease
from engine.images.unpack import KEY_PREFIX
from engine.oci import media_types
from engine.oci.digest import Digest, chain_id
from engine.oci.image import Descriptor
from engine.snapshots import Snapshotter
from engine.snapshots.apply import apply_layer
from engine.snapshots.compress import LayerWriter
from engine.snapshots.tar_reader import Readable

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """`chain` is the snapshot's name."""

    layer: Descriptor
    diff_id: Digest
    chain: Digest


class Counted:
    """A stream that tells `at` how many bytes have been read; `at` may raise to end it."""

    def __init__(self, source: Readable, at: Callable[[int], None]) -> None:
        self._source = source
        self._at = at
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._count += len(data)
        self._at(self._count)
        return data


def store_tar(
    source: Readable,
    parent: Digest | None,
    *,
    content: ContentStore,
    snapshots: Snapshotter,
    lease: Lease,
    expected: Digest | None = None,
) -> StoredLayer:
    """Put the tar on top of the snapshot `parent`; `expected` is the diff_id it must have.

    Raises ContextError (unsafe or damaged), ContentCorrupt (another diff_id), NoSpace."""
    known = _chain(parent, expected) if expected else None
    unpacks = known is None or not snapshots.exists(known)
    key = f"{KEY_PREFIX}{lease.id}-{secrets.token_hex(4)}"
    if unpacks:
        snapshots.prepare(key, parent)
    try:
        with content.ingest(f"store-{key}") as ingest:
            writer = LayerWriter(ingest)
            tar = _Tee(source, writer)
            if unpacks:
                apply_layer(tar, snapshots.upper(key), snapshots.lowers(key))
            tar.finish()
            written = writer.commit()
        if expected is not None and written.diff_id != expected:
            raise ContentCorrupt(
                f"a layer is {written.diff_id}, not {expected} as its config says",
                hint="the archive is damaged: make it again",
                digest=expected,
            )
        chain = _chain(parent, written.diff_id)
        keep_new(content, lease, written.digest, chain)
        if unpacks:
            snapshots.commit(key, chain)
    except BaseException:
        if unpacks:
            snapshots.remove(key)
        raise
    layer = Descriptor(media_types.OCI_LAYER_GZIP, written.digest, written.size)
    return StoredLayer(layer, written.diff_id, chain)


def keep_new(content: ContentStore, lease: Lease, digest: Digest, *names: str) -> None:
    """Lease a blob whose digest was found by writing it. Raises Conflict where the removal of an
    image that had it came between the two."""
    lease.keep(digest, *names)
    if not content.has(digest):
        raise Conflict(
            f"blob {digest} was removed with an image while it was written", hint="do it again"
        )


def _chain(parent: Digest | None, diff_id: Digest) -> Digest:
    return Digest.of(f"{parent} {diff_id}".encode()) if parent else chain_id([diff_id])


class _Tee:
    """The tar as it is unpacked, written down as well."""

    def __init__(self, source: Readable, writer: LayerWriter) -> None:
        self._source = source
        self._writer = writer

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._writer.write(data)
        return data

    def finish(self) -> None:
        """What a tar reader leaves unread belongs to the layer too."""
        while self.read(_PIECE):
            pass
