"""Commit on this machine: what a container has changed becomes a layer, and with the container's
config an image."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from django.utils import timezone

from engine.containers.layout import ContainerDir, snapshot_key
from engine.containers.settings import ContainerSettings
from engine.errors import Cancelled, EngineError, NotFound
from engine.images.leases import Lease, Leases
from engine.images.store import keep_new
from engine.images.unpack import unpack_layer
from engine.models import Container, Image, Operation
from engine.oci import media_types
from engine.oci.digest import Digest, chain_id
from engine.oci.image import ContainerConfig, Descriptor, History, ImageConfig, RootFS
from engine.oci.reference import Reference
from engine.runtime import freezer
from engine.services import images
from engine.services.events import container_event
from engine.services.work.host import host
from engine.services.work.image_changes import changed, merged
from engine.services.work.image_rows import layers_of, recorded, written
from engine.snapshots.compress import LayerWriter
from engine.snapshots.diff import write_layer

# What the runtime makes in a container's layer to mount something over it.
_MOUNT_POINTS = frozenset(
    (b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")
)


def commit(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """The result: {image: id}."""
    args = operation.args
    container = (
        Container.objects.select_related("image")
        .filter(pk=int(operation.target), namespace=operation.namespace)
        .first()
    )
    if container is None:
        raise NotFound("no such container", kind="container", name=args["container"])
    if container.image is None:
        raise NotFound(
            f"the image of {container.name} has been removed",
            hint="pull or build it again",
            kind="image",
            name=container.image_name,
        )
    settings = ContainerSettings.from_json(container.settings)
    own = _config_of(settings)
    # As moby: without a config the changes are lines after the container's own.
    given = ContainerConfig.from_json(args["config"]) if args["config"] else own
    config = merged(changed(given, args["changes"]), own)
    base = ImageConfig.from_json(container.image.config)
    with Leases.of(host().config).take() as lease:
        lease.keep(*base.rootfs.chain_ids, *(layer.digest for layer in layers_of(container.image)))
        layer = _layer(container, bool(args["pause"]), lease, cancelled)
        now = timezone.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        history = History(
            created=now,
            created_by=" ".join(settings.cmd) or None,
            author=args["author"] or None,
            comment=args["message"] or None,
            empty_layer=layer is None,
        )
        document = ImageConfig(
            platform=base.platform,
            rootfs=RootFS((*base.rootfs.diff_ids, *((layer[1],) if layer else ()))),
            config=config,
            history=(*base.history, history),
            created=now,
            author=args["author"] or None,
            # As dockerd of old wrote them, and its inspect still shows them.
            extra={
                "comment": args["message"],
                "container": container.uid,
                "container_config": {
                    **own.to_dict(),
                    "Hostname": settings.hostname,
                    "Image": container.image_name,
                },
                "parent": container.image.digest,
            },
        )
        layers = (*layers_of(container.image), *((layer[0],) if layer else ()))
        digests = written(document, layers)
        lease.keep(*digests)
        image = _recorded(operation, container, digests, layers)
    return {"image": image.digest}


def _recorded(
    operation: Operation,
    container: Container,
    digests: tuple[Digest, Digest],
    layers: tuple[Descriptor, ...],
) -> Image:
    name = operation.args["name"]
    familiar = Reference.parse(name).familiar() if name else ""

    def also(image: Image) -> None:
        if name:
            images.image_event(image, "tag", familiar)
        container_event(
            container,
            "commit",
            comment=operation.args["message"],
            imageID=image.digest,
            imageRef=familiar,
        )

    names = (Reference.parse(name),) if name else ()
    return recorded(operation.namespace, *digests, layers, names, also)


def _layer(
    container: Container, pause: bool, lease: Lease, cancelled: threading.Event
) -> tuple[Descriptor, Digest] | None:
    """(blob, diff_id) of what the container has changed, and its snapshot on the image's; None
    where there is nothing."""
    content, snapshots = host().content, host().snapshots
    key = snapshot_key(container.uid)
    if not snapshots.exists(key):
        return None  # it never ran, and nobody asked for its files
    with _standing(container, pause), content.ingest(f"commit-{key}") as ingest:
        writer = LayerWriter(ingest)
        stats = write_layer(
            snapshots.upper(key), _Stoppable(writer, cancelled), mount_points=_MOUNT_POINTS
        )
        if not stats.entries:
            return None
        layer = writer.commit()
    parent = snapshots.parent(key)
    below = Digest.parse(parent) if parent else None
    chain = Digest.of(f"{below} {layer.diff_id}".encode()) if below else chain_id([layer.diff_id])
    keep_new(content, lease, layer.digest, chain)
    described = Descriptor(media_types.OCI_LAYER_GZIP, layer.digest, layer.size)
    unpack_layer(
        described, layer.diff_id, chain, below, content=content, snapshots=snapshots, lease=lease
    )
    return described, layer.diff_id


@contextmanager
def _standing(container: Container, pause: bool) -> Iterator[None]:
    """While its layer is read nothing in it runs, unless that is not wanted or it stands already.

    Under the directory's lock: a pause that somebody else asks for meanwhile waits, and is not
    undone."""
    group = host().runtime.cgroup(container.uid)
    with ContainerDir(host().config, container.uid).lock():
        frozen = pause and container.is_running and not freezer.is_frozen(group)
        if frozen:
            freezer.freeze(group)
        try:
            yield
        finally:
            if frozen:
                with suppress(EngineError):  # its end came first: nothing is left to thaw
                    freezer.thaw(group)


def _config_of(settings: ContainerSettings) -> ContainerConfig:
    """What the container runs with, as an image says it; what is the default is not said."""
    kept = settings.docker.get("Config")
    kept = kept if isinstance(kept, Mapping) else {}
    return ContainerConfig(
        user=settings.user,
        exposed_ports=tuple(settings.exposed_ports),
        env=settings.env,
        entrypoint=settings.entrypoint or None,
        cmd=settings.cmd or None,
        volumes=tuple(settings.volumes),
        working_dir="" if settings.working_dir == "/" else settings.working_dir,
        labels=dict(settings.labels),
        stop_signal="" if settings.stop_signal == "SIGTERM" else settings.stop_signal,
        healthcheck=settings.healthcheck,
        on_build=tuple(kept.get("OnBuild", ())),
        shell=tuple(kept.get("Shell", ())) or None,
    )


class _Stoppable:
    """Hands the tar on until somebody cancels: a large layer takes its time."""

    def __init__(self, writer: LayerWriter, cancelled: threading.Event) -> None:
        self._writer = writer
        self._cancelled = cancelled

    def write(self, data: bytes, /) -> int:
        if self._cancelled.is_set():
            raise Cancelled("cancelled while writing a layer")
        return self._writer.write(data)
