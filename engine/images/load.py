"""Load: images out of an archive into the store, verified and unpacked, or nothing of them.

Docker's own format (manifest.json, of `docker save` of any version) and the OCI layout (index.json)
are read alike; with both, the layout's manifest is kept where it fits, so that an image keeps its
digest. Layers that come compressed are stored as they are; plain ones are compressed while they are
unpacked, in one pass. Rows and names are the caller's.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from engine.content import ContentStore
from engine.errors import Cancelled, ContentCorrupt, ContextError, InvalidReference, QuaysideError
from engine.images.archive import Archive
from engine.images.leases import Lease
from engine.images.progress import Progress
from engine.images.store import Counted, keep_new, store_tar
from engine.images.unpack import Steps, unpack_layer
from engine.oci import media_types
from engine.oci.choice import choose
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, ImageConfig, ImageIndex, Manifest
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.snapshots import Snapshotter

_PIECE = 1 << 20
_IMAGES = 1000
_INDEX_DEPTH = 3
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = (b"BZh", b"\xfd7zXZ\0")


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """All of it is in the content store and its layers are committed snapshots."""

    manifest: Digest
    config: Digest
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]
    names: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class _Planned:
    config: bytes
    layers: tuple[str, ...]
    names: tuple[Reference, ...]
    manifest: bytes | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where it goes. `progress` is told of each layer, by its diff_id, in bytes of the archive;
    `cancelled` is asked every MiB."""

    content: ContentStore
    snapshots: Snapshotter
    lease: Lease
    progress: Callable[[Progress], None] = lambda _: None
    cancelled: Callable[[], bool] = lambda: False


def load(archive: Archive, target: Target, platform: Platform) -> Iterator[LoadedImage]:
    """Each image as soon as it is here; hold the lease until its row is committed.

    `platform` chooses where the archive has an image for several. Raises ContextError for an
    archive that is none or lacks something, ContentCorrupt, NoSpace, Cancelled."""
    planned = _planned(archive, platform)
    work = _Load(archive, target)
    with ThreadPoolExecutor(1, "load") as pool:
        for image in planned:
            yield work.image(image, pool)


class _Load:
    def __init__(self, archive: Archive, target: Target) -> None:
        self._archive = archive
        self._target = target
        self._stored: dict[Digest, Descriptor] = {}

    def image(self, planned: _Planned, pool: ThreadPoolExecutor) -> LoadedImage:
        target = self._target
        config = ImageConfig.from_json(planned.config)
        diff_ids, chains = config.rootfs.diff_ids, config.rootfs.chain_ids
        if len(diff_ids) != len(planned.layers):
            raise ContextError(
                f"the archive has {len(planned.layers)} layers of an image, its config"
                f" {len(diff_ids)}"
            )
        kept = Manifest.from_json(planned.manifest) if planned.manifest else None
        named: list[Descriptor | None] = list(kept.layers) if kept else [None] * len(diff_ids)
        config_digest = Digest.of(planned.config)
        target.lease.keep(config_digest, *chains, *(d.digest for d in named if d))
        # What is compressed is copied ahead while the layer below is unpacked.
        ahead = [
            pool.submit(self._copy, name, descriptor, diff_id)
            for name, descriptor, diff_id in zip(planned.layers, named, diff_ids, strict=True)
        ]
        try:
            layers = tuple(self._layers(planned.layers, ahead, diff_ids, chains))
        finally:
            for future in ahead:
                future.cancel()
        if planned.manifest is None:
            described = Descriptor(media_types.OCI_CONFIG, config_digest, len(planned.config))
            body = Manifest(config=described, layers=layers).to_json()
        else:
            body = planned.manifest
        target.lease.keep(Digest.of(body))
        target.content.put(planned.config)
        return LoadedImage(target.content.put(body), config_digest, layers, diff_ids, planned.names)

    def _layers(
        self,
        names: tuple[str, ...],
        ahead: list[Future[Descriptor | None]],
        diff_ids: tuple[Digest, ...],
        chains: tuple[Digest, ...],
    ) -> Iterator[Descriptor]:
        parent: Digest | None = None
        for name, future, diff_id, chain in zip(names, ahead, diff_ids, chains, strict=True):
            layer = future.result() or self._stored.get(diff_id)
            new = not self._target.snapshots.exists(chain)
            if layer is None:
                layer = self._store_plain(name, diff_id, parent)
            else:
                self._unpack(layer, diff_id, chain, parent)
            self._stored[diff_id] = layer
            if new:
                self._note("done", diff_id, layer.size, layer.size)
            parent = chain
            yield layer

    def _copy(self, name: str, descriptor: Descriptor | None, diff_id: Digest) -> Descriptor | None:
        """The blob as it lies in the archive; None for a plain tar, which is for `_store_plain`."""
        content = self._target.content
        if descriptor is not None and content.has(descriptor.digest):
            return descriptor
        head = self._archive.open(name).read(8)
        media_type = _media_type(head)
        if media_type is None:
            return None
        member = self._archive.open(name)
        expected = descriptor.digest if descriptor else None
        with content.ingest(
            f"load-{secrets.token_hex(8)}", expected, descriptor.size if descriptor else None
        ) as ingest:
            if ingest.offset < member.size:  # otherwise somebody was faster
                while data := member.read(_PIECE):
                    self._check()
                    ingest.write(data)
            digest = ingest.commit()
        keep_new(content, self._target.lease, digest)
        return descriptor or Descriptor(media_type, digest, member.size)

    def _unpack(
        self, layer: Descriptor, diff_id: Digest, chain: Digest, parent: Digest | None
    ) -> None:
        target = self._target
        unpack_layer(
            layer,
            diff_id,
            chain,
            parent,
            content=target.content,
            snapshots=target.snapshots,
            steps=Steps(self._check, lambda at: self._note("extracting", diff_id, at, layer.size)),
            lease=target.lease,
        )

    def _store_plain(self, name: str, diff_id: Digest, parent: Digest | None) -> Descriptor:
        target = self._target
        member = self._archive.open(name)
        stored = store_tar(
            Counted(member, self._at(diff_id, member.size)),
            parent,
            content=target.content,
            snapshots=target.snapshots,
            lease=target.lease,
            expected=diff_id,
        )
        return stored.layer

    def _at(self, diff_id: Digest, total: int) -> Callable[[int], None]:
        def at(current: int) -> None:
            self._check()
            self._note("extracting", diff_id, current, total)

        return at

    def _note(self, kind: Any, diff_id: Digest, current: int, total: int) -> None:
        self._target.progress(Progress(kind, diff_id, current, total))

    def _check(self) -> None:
        if self._target.cancelled():
            raise Cancelled("loading was cancelled")


def _media_type(head: bytes) -> str | None:
    """By the first bytes; None for what has to be stored anew: a plain tar."""
    if head.startswith(_GZIP):
        return media_types.OCI_LAYER_GZIP
    if head.startswith(_ZSTD):
        return media_types.OCI_LAYER_ZSTD
    if head.startswith(_OTHERS):
        raise ContextError(
            "a layer of the archive is compressed with bzip2 or xz", hint="save it with docker save"
        )
    return None


def _planned(archive: Archive, platform: Platform) -> list[_Planned]:
    """What the archive holds. Raises ContextError."""
    found = list(_of_layout(archive, platform)) if "index.json" in archive else []
    if "manifest.json" in archive:
        kept = {Digest.of(image.config): image for image in found}
        return list(_of_docker(archive, kept))
    if not found:
        raise ContextError(
            "the archive has neither manifest.json nor index.json",
            hint="it is no archive of docker save; for the file system of one use docker import",
        )
    return found


def _of_docker(archive: Archive, layout: dict[Digest, _Planned]) -> Iterator[_Planned]:
    for entry in _entries(archive.read("manifest.json"), "manifest.json"):
        config, layers = entry.get("Config"), entry.get("Layers") or []
        names = entry.get("RepoTags") or []
        if not isinstance(config, str) or not _texts(layers) or not _texts(names):
            raise ContextError("the archive's manifest.json is not docker's")
        body = archive.read(config)
        same = layout.get(Digest.of(body))
        yield _Planned(
            config=body,
            layers=same.layers if same else tuple(layers),
            names=tuple(_reference(name) for name in names),
            manifest=same.manifest if same else None,
        )


def _of_layout(archive: Archive, platform: Platform) -> Iterator[_Planned]:
    """By manifest, its names gathered; a layer that is a plain tar makes it a new manifest."""
    index = ImageIndex.from_json(archive.read("index.json"))
    names: dict[Digest, list[Reference]] = {}
    for entry in index.manifests[:_IMAGES]:
        found = names.setdefault(entry.digest, [])
        name = entry.annotations.get("io.containerd.image.name")
        name = name or entry.annotations.get("org.opencontainers.image.ref.name", "")
        if ":" in name or "/" in name:
            found.append(_reference(name))
    types = {entry.digest: entry for entry in index.manifests}
    for digest, references in names.items():
        at = types[digest]
        for _ in range(_INDEX_DEPTH):
            if at.media_type not in media_types.INDEXES:
                break
            at = choose(ImageIndex.from_json(_blob(archive, at.digest)), platform)
        body = _blob(archive, at.digest)
        manifest = Manifest.from_json(body)
        if manifest.config.media_type not in media_types.CONFIGS:
            continue  # an attestation or another artifact beside the image
        plain = any(layer.media_type in media_types.LAYERS_PLAIN for layer in manifest.layers)
        yield _Planned(
            config=_blob(archive, manifest.config.digest),
            layers=tuple(_path(layer.digest) for layer in manifest.layers),
            names=tuple(references),
            manifest=None if plain else body,
        )


def _blob(archive: Archive, digest: Digest) -> bytes:
    body = archive.read(_path(digest))
    if Digest.of(body) != digest:
        raise ContentCorrupt(
            f"blob {digest} of the archive is damaged", hint="make it again", digest=digest
        )
    return body


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _entries(body: bytes, name: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ContextError(f"the archive's {name} is not JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ContextError(f"the archive's {name} is not docker's")
    if len(value) > _IMAGES:
        raise ContextError(f"the archive has more than {_IMAGES} images")
    return value


def _texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _reference(name: str) -> Reference:
    try:
        found = Reference.parse(name)
    except InvalidReference as error:
        raise ContextError(f"invalid tag {name[:200]!r} in the archive") from error
    except QuaysideError as error:
        raise ContextError(f"the archive's names cannot be read: {error.message}") from error
    if found.digest is not None:
        raise ContextError(f"invalid tag {name[:200]!r} in the archive")
    return found
