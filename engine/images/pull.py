"""Pull: from a reference to an image on disk, verified and unpacked, or nothing half made.

Joins registry, content and snapshots. Layers come in parallel and are unpacked in their order as
soon as each is here; a digest is verified before its layer is unpacked, a diff_id while it is.
Leaves rows and names to engine.services, and what is no longer used to engine.images.gc.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from engine.content import ContentStore, Ingest
from engine.errors import Cancelled, Conflict, ContentCorrupt, NoSpace, NotFound, Unsupported
from engine.images.leases import Lease
from engine.images.progress import Board, Kind, Progress
from engine.images.unpack import Steps, unpack_layer
from engine.oci import media_types
from engine.oci.choice import choose
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, ImageConfig, ImageIndex, Manifest
from engine.oci.platform import Platform, host, matches
from engine.oci.reference import Reference
from engine.registry import Endpoint, RegistryClient
from engine.snapshots import Snapshotter

CONNECTIONS = 4
_TICK = 0.1
_INDEX_DEPTH = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PulledImage:
    """All of it is in the content store and its layers are committed snapshots.

    `resolved` is what the reference named: the index where there was one, else the manifest.
    `layers` bottom first, `chain_ids` the names of their snapshots, in the same order.
    """

    resolved: Descriptor
    manifest: Descriptor
    config: Descriptor
    image_config: ImageConfig
    layers: tuple[Descriptor, ...]
    chain_ids: tuple[Digest, ...]


def pull(
    reference: Reference,
    *,
    client: RegistryClient,
    content: ContentStore,
    snapshots: Snapshotter,
    platform: Platform | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    lease: Lease | None = None,
) -> PulledImage:
    """Fetch the image for `platform` (this machine's by default); idempotent, resumes what an
    earlier try left.

    `progress` and `cancelled` are called from this thread only, ten times a second. Hold `lease`
    until the image's row is committed; without one nothing may collect garbage meanwhile. The
    client serves this pull only: a failure or cancelling aborts it.

    Raises RegistryError's kinds, NotFound (no image for the platform), Unsupported (no container
    image), ContextError (an unsafe layer), NoSpace, Cancelled.
    """
    board = Board(progress)
    work = _Pull(reference, client, content, snapshots, platform or host(), board, lease)
    pool = ThreadPoolExecutor(CONNECTIONS + 1, thread_name_prefix="pull")
    try:
        board.note(Progress("resolving"))
        image = _await([pool.submit(work.resolve)], work, cancelled)[0]
        # Unpacking waits for downloads, so it takes its thread before them.
        downloads = {layer.digest: Future[None]() for layer in image.layers}
        unpacking = pool.submit(work.unpack, image, downloads)
        running = [
            pool.submit(work.download, layer, downloads[layer.digest])
            for layer in {layer.digest: layer for layer in image.layers}.values()
        ]
        _await([*running, unpacking], work, cancelled)
        return image
    finally:
        pool.shutdown(wait=True)


def _await(futures: list[Future[T]], work: _Pull, cancelled: Callable[[], bool]) -> list[T]:
    """Their results; meanwhile progress is passed on and cancelling looked for. The first failure
    ends the others and is raised once they have ended."""
    pending: set[Future[T]] = set(futures)
    asked = False
    try:
        while pending and not asked:
            done, pending = wait(pending, _TICK, FIRST_EXCEPTION)
            work.board.publish()
            if any(future.exception() for future in done):
                break
            asked = bool(pending) and cancelled()
    finally:
        if pending:
            work.stop()
            wait(pending)
    errors = [error for future in futures if (error := future.exception())]
    if asked:
        raise Cancelled(f"pulling {work.reference} was cancelled", hint="what has come is kept")
    if errors:
        # What was ended because of another's failure says Cancelled: not the reason.
        reason = next((e for e in errors if not isinstance(e, Cancelled)), errors[0])
        if isinstance(reason, NoSpace):
            work.content.expire_ingests(0)  # parts that others may resume are no use on a full disk
        raise reason
    return [future.result() for future in futures]


class _Pull:
    """The work of the threads; each method runs in one of the pool's."""

    def __init__(
        self,
        reference: Reference,
        client: RegistryClient,
        content: ContentStore,
        snapshots: Snapshotter,
        platform: Platform,
        board: Board,
        lease: Lease | None,
    ) -> None:
        self.reference = reference
        self.content = content
        self.board = board
        self._client = client
        self._snapshots = snapshots
        self._platform = platform
        self._lease = lease
        self._here: set[Digest] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self._client.abort()

    def resolve(self) -> PulledImage:
        """Fetch and keep the documents; the layers are still to come."""
        resolved = self._client.resolve(self.reference)
        self._keep(resolved.descriptor.digest)
        self.content.put(resolved.body)
        manifest_at, body = resolved.descriptor, resolved.body
        for _ in range(_INDEX_DEPTH):
            if manifest_at.media_type not in media_types.INDEXES:
                break
            manifest_at = choose(ImageIndex.from_json(body), self._platform)
            body = self._manifest(manifest_at)
        manifest = Manifest.from_json(body)
        self._check_image(manifest)
        image_config = ImageConfig.from_json(self._config(manifest.config))
        self._check_config(image_config, manifest)
        chain_ids = image_config.rootfs.chain_ids
        self._keep(*(layer.digest for layer in manifest.layers), *chain_ids)
        stack = list(zip(manifest.layers, chain_ids, strict=True))
        missing = {layer.digest for layer, chain in stack if not self._is_here(layer, chain)}
        for layer in manifest.layers:
            if layer.digest in missing:
                self.board.note(Progress("downloading", layer.digest, 0, layer.size))
            else:
                self._here.add(layer.digest)
                self.board.note(Progress("exists", layer.digest, layer.size, layer.size))
        return PulledImage(
            resolved.descriptor,
            manifest_at,
            manifest.config,
            image_config,
            manifest.layers,
            chain_ids,
        )

    def download(self, layer: Descriptor, done: Future[None]) -> None:
        try:
            self._download(layer)
        except BaseException as error:
            done.set_exception(error)
            raise
        done.set_result(None)

    def unpack(self, image: PulledImage, downloads: dict[Digest, Future[None]]) -> None:
        parent: Digest | None = None
        diff_ids = image.image_config.rootfs.diff_ids
        for layer, diff_id, chain in zip(image.layers, diff_ids, image.chain_ids, strict=True):
            downloads[layer.digest].result()
            unpack_layer(
                layer,
                diff_id,
                chain,
                parent,
                content=self.content,
                snapshots=self._snapshots,
                steps=Steps(self._check, self._extracting(layer)),
                lease=self._lease,
            )
            self._note("done", layer, layer.size)
            parent = chain

    def _is_here(self, layer: Descriptor, chain: Digest) -> bool:
        return self.content.has(layer.digest) and self._snapshots.exists(chain)

    def _manifest(self, descriptor: Descriptor) -> bytes:
        self._keep(descriptor.digest)
        if self.content.has(descriptor.digest):
            return self.content.read(descriptor.digest)
        body = self._client.fetch_manifest(self.reference, descriptor)
        self.content.put(body)
        return body

    def _config(self, descriptor: Descriptor) -> bytes:
        self._keep(descriptor.digest)
        if self.content.has(descriptor.digest):
            return self.content.read(descriptor.digest)
        body = self._client.fetch_document(self.reference, descriptor)
        self.content.put(body)
        return body

    def _download(self, layer: Descriptor) -> None:
        """What arrives damaged is fetched once more, from another endpoint if there is one."""
        avoid: Endpoint | None = None
        for again in (True, False):
            with ExitStack() as stack:
                ingest = self._enter_ingest(stack, layer)
                reader = stack.enter_context(
                    self._client.open_blob(self.reference, layer, ingest.offset, avoid)
                )
                try:
                    while data := reader.read():
                        ingest.write(data)
                        self._downloaded(layer, reader.offset)
                    ingest.commit()
                except ContentCorrupt:
                    if not again:
                        raise
                    avoid = reader.endpoint
                else:
                    self._downloaded(layer, layer.size)
                    return

    def _enter_ingest(self, stack: ExitStack, layer: Descriptor) -> Ingest:
        """Where another pull fetches the same layer, wait for it: commit is then a mere look."""
        while True:
            ingest = self.content.ingest(
                f"layer-{layer.digest}", layer.digest, layer.size, wait=False
            )
            try:
                return stack.enter_context(ingest)
            except Conflict:
                if self._stopped.wait(_TICK):
                    self._check()

    def _downloaded(self, layer: Descriptor, current: int) -> None:
        self._note("downloading", layer, current)

    def _extracting(self, layer: Descriptor) -> Callable[[int], None]:
        return lambda current: self._note("extracting", layer, current)

    def _note(self, kind: Kind, layer: Descriptor, current: int) -> None:
        if layer.digest not in self._here:
            self.board.note(Progress(kind, layer.digest, current, layer.size))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Cancelled(f"pulling {self.reference} was cancelled")

    def _keep(self, *names: str) -> None:
        if self._lease is not None:
            self._lease.keep(*names)

    def _check_image(self, manifest: Manifest) -> None:
        kinds = [layer.media_type for layer in manifest.layers]
        foreign = [kind for kind in kinds if kind not in media_types.LAYERS]
        if manifest.config.media_type not in media_types.CONFIGS or foreign:
            kind = manifest.artifact_type or manifest.config.media_type
            raise Unsupported(
                f"{self.reference} is no container image but {foreign[0] if foreign else kind}",
                hint="choose a name or tag that holds an image",
                reference=str(self.reference),
            )

    def _check_config(self, config: ImageConfig, manifest: Manifest) -> None:
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise ContentCorrupt(
                f"{self.reference} has {len(manifest.layers)} layers, its config"
                f" {len(config.rootfs.diff_ids)}",
                hint="the image is damaged: ask who made it to push it again",
                reference=str(self.reference),
            )
        if not matches(config.platform, self._platform):
            raise NotFound(
                f"no image for {self._platform}: {self.reference} is for {config.platform}",
                hint="choose another tag, or build for its platform with --platform",
                platform=str(self._platform),
                offered=str(config.platform),
            )
