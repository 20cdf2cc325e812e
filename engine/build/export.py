"""From a snapshot to a layer's blob, and from a stage's state to an image: manifest and config.

Same content, same bytes: entries sorted and gzip without a time (engine.snapshots), JSON canonical
(engine.oci), and with SOURCE_DATE_EPOCH no time after it. Leaves naming images to the caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.build.cache import Layer
from engine.build.state import StageState
from engine.content import ContentStore
from engine.errors import Cancelled
from engine.oci import media_types
from engine.oci.image import Descriptor, ImageConfig, Manifest, RootFS
from engine.snapshots import Snapshotter
from engine.snapshots.compress import LayerWriter
from engine.snapshots.diff import write_layer

_OCI_OF_DOCKER = {
    media_types.DOCKER_LAYER: media_types.OCI_LAYER,
    media_types.DOCKER_LAYER_GZIP: media_types.OCI_LAYER_GZIP,
    media_types.DOCKER_LAYER_ZSTD: media_types.OCI_LAYER_ZSTD,
    media_types.DOCKER_FOREIGN_LAYER_GZIP: media_types.OCI_FOREIGN_LAYER_GZIP,
}


class _Stoppable:
    """Hands the tar on until somebody cancels: a large layer takes its time."""

    def __init__(self, writer: LayerWriter, cancelled: Callable[[], bool]) -> None:
        self._writer = writer
        self._cancelled = cancelled

    def write(self, data: bytes, /) -> int:
        if self._cancelled():
            raise Cancelled("cancelled while writing a layer")
        return self._writer.write(data)


def make_layer(
    snapshots: Snapshotter,
    content: ContentStore,
    key: str,
    epoch: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Layer | None:
    """The active snapshot's changes as a blob; None when there are none. Raises NoSpace,
    Cancelled, InvalidInput (a name that layers cannot hold)."""
    upper = snapshots.upper(key)
    with os.scandir(upper) as entries:
        if next(entries, None) is None:
            return None
    if epoch is not None:
        clamp_times(upper, epoch)
    with content.ingest(f"layer {key}") as ingest:
        writer = LayerWriter(ingest)
        write_layer(upper, _Stoppable(writer, cancelled))
        written = writer.commit()
    return Layer(
        Descriptor(media_types.OCI_LAYER_GZIP, written.digest, written.size), written.diff_id
    )


def clamp_times(folder: Path, epoch: int) -> None:
    """No modification time after `epoch` (seconds) in the folder and below."""
    limit = epoch * 10**9
    for path, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            _clamp(f"{path}/{name}", limit)
    _clamp(str(folder), limit)


def _clamp(path: str, limit: int) -> None:
    status = os.lstat(path)
    if status.st_mtime_ns > limit:
        os.utime(path, ns=(min(status.st_atime_ns, limit), limit), follow_symlinks=False)


def write_image(
    content: ContentStore, state: StageState
) -> tuple[Descriptor, Descriptor, ImageConfig, Manifest]:
    """(manifest, config, image config, the manifest itself), stored. Raises NoSpace."""
    image = ImageConfig(
        platform=state.platform,
        rootfs=RootFS(tuple(layer.diff_id for layer in state.layers)),
        config=state.config,
        history=state.history,
        created=state.created,
        author=state.author,
    )
    config_bytes = image.to_json()
    described = Descriptor(media_types.OCI_CONFIG, content.put(config_bytes), len(config_bytes))
    manifest = Manifest(
        config=described,
        layers=tuple(
            replace(
                layer.descriptor,
                media_type=_OCI_OF_DOCKER.get(
                    layer.descriptor.media_type, layer.descriptor.media_type
                ),
            )
            for layer in state.layers
        ),
    )
    manifest_bytes = manifest.to_json()
    top = Descriptor(media_types.OCI_MANIFEST, content.put(manifest_bytes), len(manifest_bytes))
    return top, described, image, manifest
