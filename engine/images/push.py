"""Push: an image's blobs and its manifest to a registry, what is there already left out.

The manifest goes as it is, so that the image keeps its digest; only a registry that does not take
it gets Docker's schema 2 of the same. Layers go in parallel. Whose image it is, and where else its
layers may lie, is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial

from engine.content import ContentStore
from engine.errors import Cancelled, RegistryError
from engine.images.progress import Progress
from engine.oci import media_types
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, Manifest
from engine.oci.reference import Reference
from engine.registry import RegistryClient
from engine.registry.upload import Blob, Uploader

CONNECTIONS = 4
_TICK = 0.1
_REFUSED = (400, 404, 405, 415)
_FOREIGN = frozenset(
    {
        media_types.OCI_FOREIGN_LAYER,
        media_types.OCI_FOREIGN_LAYER_GZIP,
        media_types.OCI_FOREIGN_LAYER_ZSTD,
        media_types.DOCKER_FOREIGN_LAYER_GZIP,
    }
)
_DOCKER_OF_OCI = {
    media_types.OCI_MANIFEST: media_types.DOCKER_MANIFEST,
    media_types.OCI_CONFIG: media_types.DOCKER_CONFIG,
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
}


@dataclass(frozen=True, slots=True)
class Pushed:
    """The manifest as the registry has it."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Layer:
    """`shown` is what progress calls it (its diff_id); `sources` are repositories of the same
    registry that may have it."""

    descriptor: Descriptor
    shown: Digest
    sources: tuple[str, ...] = ()


def push(
    manifest_digest: Digest,
    layers: tuple[Layer, ...],
    reference: Reference,
    *,
    client: RegistryClient,
    content: ContentStore,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Pushed:
    """Send what `reference`'s repository lacks, then its tag. Idempotent.

    `progress` is called from any thread. The client serves this push only: a failure or cancelling
    aborts it. Raises RegistryError's kinds, NotFound (a blob is missing here), Cancelled."""
    body = content.read(manifest_digest)
    manifest = Manifest.from_json(body)
    for layer in layers:
        progress(Progress("preparing", layer.shown, 0, layer.descriptor.size))
    uploader = Uploader(client.origin(), reference.path)
    work = _Push(uploader, content, progress)
    own = {layer.descriptor.digest: layer for layer in layers}
    steps: list[Callable[[], None]] = [partial(work.layer, layer) for layer in own.values()]
    steps.append(partial(work.blob, manifest.config))
    _all(steps, client, reference, cancelled)
    return _manifest(uploader, reference, manifest, body)


def _all(
    steps: list[Callable[[], None]],
    client: RegistryClient,
    reference: Reference,
    cancelled: Callable[[], bool],
) -> None:
    """Do them at the same time; the first failure ends the others and is raised."""
    asked = False
    with ThreadPoolExecutor(CONNECTIONS, "push") as pool:
        futures = [pool.submit(step) for step in steps]
        pending = set(futures)
        while pending and not asked:
            done, pending = wait(pending, _TICK, FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                break
            asked = bool(pending) and cancelled()
        if pending:
            client.abort()
            wait(pending)
    if asked:
        raise Cancelled(f"pushing {reference} was cancelled")
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        # What was ended because of another's failure says Cancelled: not the reason.
        raise next((e for e in errors if not isinstance(e, Cancelled)), errors[0])


class _Push:
    """The work of the threads."""

    def __init__(
        self, uploader: Uploader, content: ContentStore, progress: Callable[[Progress], None]
    ) -> None:
        self._uploader = uploader
        self._content = content
        self._progress = progress

    def layer(self, layer: Layer) -> None:
        descriptor, size = layer.descriptor, layer.descriptor.size
        if descriptor.media_type in _FOREIGN and descriptor.urls:
            return  # it lies where its address says, and may not be passed on
        if self._uploader.has(descriptor.digest):
            self._progress(Progress("exists", layer.shown, size, size))
            return
        for source in layer.sources:
            if self._uploader.mount(descriptor.digest, source):
                self._progress(Progress("mounted", layer.shown, size, size, source))
                return
        self._put(
            descriptor, lambda sent: self._progress(Progress("pushing", layer.shown, sent, size))
        )
        self._progress(Progress("pushed", layer.shown, size, size))

    def blob(self, descriptor: Descriptor) -> None:
        if not self._uploader.has(descriptor.digest):
            self._put(descriptor, lambda _: None)

    def _put(self, descriptor: Descriptor, sent: Callable[[int], None]) -> None:
        size = self._content.info(descriptor.digest).size
        opened = partial(self._content.open, descriptor.digest)
        self._uploader.put(Blob(descriptor.digest, size, opened), sent)


def _manifest(uploader: Uploader, reference: Reference, manifest: Manifest, body: bytes) -> Pushed:
    target = reference.tag or "latest"
    try:
        uploader.manifest(target, body, manifest.media_type)
    except RegistryError as error:
        old = _as_docker(manifest)
        if error.context.get("status") not in _REFUSED or old is None:
            raise
        body = old.to_json()
        uploader.manifest(target, body, old.media_type)
    return Pushed(Digest.of(body), len(body))


def _as_docker(manifest: Manifest) -> Manifest | None:
    """Schema 2 for a registry that knows no OCI; None where it is that, or cannot be said so."""
    parts = (manifest.config, *manifest.layers)
    known = all(part.media_type in _DOCKER_OF_OCI for part in parts)
    if manifest.media_type != media_types.OCI_MANIFEST or not known:
        return None
    config, *layers = (
        replace(part, media_type=_DOCKER_OF_OCI[part.media_type], annotations={}) for part in parts
    )
    return Manifest(config, tuple(layers), media_type=media_types.DOCKER_MANIFEST)
