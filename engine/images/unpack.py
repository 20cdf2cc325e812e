"""Unpack: a verified blob becomes the committed snapshot of its chain id, or nothing.

Joins content and snapshots. Reading tars safely is snapshots/apply's, decompressing
snapshots/compress's; here the diff_id is verified and a layer that fails leaves nothing behind.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from engine.content import ContentStore
from engine.errors import ContentCorrupt, NoSpace
from engine.images.leases import Lease
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, ImageConfig, Manifest
from engine.snapshots import Snapshotter
from engine.snapshots.apply import apply_layer
from engine.snapshots.compress import open_layer

KEY_PREFIX = "extract-"


@dataclass(frozen=True, slots=True)
class Steps:
    """`check` may raise to end it (Cancelled); `at` is told the compressed bytes read so far. Both
    are called from a thread of the decompressor's."""

    check: Callable[[], None] = lambda: None
    at: Callable[[int], None] = lambda _: None


def unpack(
    manifest: Manifest,
    image_config: ImageConfig,
    content: ContentStore,
    snapshots: Snapshotter,
    *,
    lease: Lease | None = None,
) -> tuple[Digest, ...]:
    """Unpack every layer that is not unpacked yet; the chain ids, bottom first. Idempotent.

    Raises NotFound (a blob is missing), and as `unpack_layer`."""
    chain_ids = image_config.rootfs.chain_ids
    parent: Digest | None = None
    layers = zip(manifest.layers, image_config.rootfs.diff_ids, chain_ids, strict=True)
    for layer, diff_id, chain in layers:
        unpack_layer(
            layer, diff_id, chain, parent, content=content, snapshots=snapshots, lease=lease
        )
        parent = chain
    return chain_ids


def unpack_layer(
    layer: Descriptor,
    diff_id: Digest,
    chain: Digest,
    parent: Digest | None,
    *,
    content: ContentStore,
    snapshots: Snapshotter,
    steps: Steps | None = None,
    lease: Lease | None = None,
) -> None:
    """Make the snapshot `chain` on top of `parent`; nothing to do where it exists.

    Raises ContentCorrupt (it does not unpack to its diff_id), ContextError (unsafe), NoSpace.
    """
    if snapshots.exists(chain):
        return
    steps = steps or Steps()
    key = f"{KEY_PREFIX}{lease.id if lease else 'unleased'}-{secrets.token_hex(4)}"
    snapshots.prepare(key, parent)
    try:
        with (
            content.open(layer.digest) as blob,
            open_layer(_Source(blob, steps), layer.media_type) as tar,
        ):
            apply_layer(tar, snapshots.upper(key), snapshots.lowers(key))
            found = tar.finish()
        if found != diff_id:
            raise ContentCorrupt(
                f"layer {layer.digest} unpacks to {found}, not to {diff_id} as its config says",
                hint="the image is damaged: ask who made it to push it again",
                digest=layer.digest,
            )
        snapshots.commit(key, chain)
    except OSError as error:
        snapshots.remove(key)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"no space left to unpack layer {layer.digest}",
                hint="free some disk space and try again",
                digest=layer.digest,
            ) from error
        raise
    except BaseException:
        snapshots.remove(key)
        raise


class _Source:
    """The blob as it is read: counts, and lets `check` end it."""

    def __init__(self, blob: BinaryIO, steps: Steps) -> None:
        self._blob = blob
        self._steps = steps
        self._count = 0

    def read(self, size: int, /) -> bytes:
        self._steps.check()
        data = self._blob.read(size)
        self._count += len(data)
        self._steps.at(self._count)
        return data
