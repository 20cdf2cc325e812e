"""Load and import on this machine: archives that came with a request, or are fetched from an
address, become images."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connections
from django.utils import timezone

from engine.ceiling import Ceiling
from engine.errors import Cancelled, NotFound
from engine.images import room
from engine.images.archive import opened
from engine.images.leases import Leases
from engine.images.load import LoadedImage, Target, load
from engine.images.remote import fetching
from engine.images.store import Counted, store_tar
from engine.models import Image, Namespace, Operation, Upload
from engine.oci.image import ContainerConfig, History, ImageConfig, RootFS
from engine.oci.platform import Platform
from engine.oci.platform import host as own_platform
from engine.oci.reference import Reference
from engine.services import images, operations
from engine.services.image_transfers import incoming_path
from engine.services.uploads import upload_path
from engine.services.work.host import host
from engine.services.work.image_changes import changed
from engine.services.work.image_rows import recorded, written
from engine.services.work.layer_progress import reported
from engine.snapshots.compress import open_layer
from engine.snapshots.tar_reader import Readable

logger = logging.getLogger(__name__)

_ROOM_EVERY = 64 << 20


def load_images(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """The result: {loaded: [{id, names}], renamed: [[name, id of what had it]]}."""
    path = _source(operation)
    loaded: list[dict[str, Any]] = []
    renamed: list[list[str]] = []
    try:
        with (
            opened(path) as archive,
            Leases.of(host().config).take() as lease,
            reported(operation) as board,
        ):
            target = Target(host().content, host().snapshots, lease, board.note, cancelled.is_set)
            for image in load(archive, target, own_platform()):
                renamed += _record(operation.namespace, image)
                names = [name.familiar() for name in image.names]
                loaded.append({"id": str(image.config), "names": names})
    finally:
        path.unlink(missing_ok=True)
    Upload.objects.filter(pk=operation.args.get("upload")).delete()
    return {"loaded": loaded, "renamed": renamed}


def _source(operation: Operation) -> Path:
    """The file: one that root has received, or one that web wrote, read with suspicion."""
    if "upload" not in operation.args:
        return incoming_path(operation.args["incoming"])
    upload = Upload.objects.filter(
        pk=operation.args["upload"], namespace=operation.namespace, complete=True
    ).first()
    if upload is None:
        raise NotFound("the upload is not here any more", hint="upload it again", kind="upload")
    return upload_path(upload)


def _record(namespace: Namespace, loaded: LoadedImage) -> list[list[str]]:
    """The row and its names; which names another image had until now."""
    renamed = []
    for name in loaded.names:
        before = images.named(namespace, name)
        if before is not None and before.digest != loaded.config:
            renamed.append([name.familiar(), before.digest])
    recorded(
        namespace,
        loaded.config,
        loaded.manifest,
        loaded.layers,
        loaded.names,
        lambda image: images.image_event(image, "load"),
    )
    return renamed


def import_image(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """The result: {image: id}; its progress, of what is fetched: {fetching: [bytes, total or
    null]}."""
    address = operation.args.get("address", "")
    if address:
        with _fetched(operation, address, cancelled) as source:
            image = _imported(operation, source, cancelled)
    else:
        path = incoming_path(operation.args["incoming"])
        try:
            image = _imported(operation, path, cancelled)
        finally:
            path.unlink(missing_ok=True)
    return {"image": image.digest}


@contextmanager
def _fetched(operation: Operation, address: str, cancelled: threading.Event) -> Iterator[Readable]:
    def at(current: int, total: int | None) -> None:
        try:
            operations.report(operation, {"fetching": [current, total]})
        except DatabaseError as error:  # the fetching goes on
            logger.warning("progress of operation %s: %s", operation.pk, error)
        finally:
            connections.close_all()  # of a thread that ends with the fetching

    config = host().config
    ceiling = Ceiling.load(config.home / "ceiling.json")
    with fetching(address, ceiling, cancelled, at) as body:
        room.check(config.content_dir, body.total or 0)
        operations.report(operation, {"fetching": [0, body.total]})
        left = _ROOM_EVERY

        def check(count: int) -> None:
            nonlocal left
            if count > left:
                left = count + _ROOM_EVERY
                room.check(config.content_dir)

        yield Counted(body, check)


def _imported(
    operation: Operation,
    source: Path | Readable,
    cancelled: threading.Event,
) -> Image:
    args = operation.args
    config = changed(ContainerConfig(), args["changes"])
    platform = Platform.parse(args["platform"]) if args["platform"] else own_platform()

    def check(_: int) -> None:
        if cancelled.is_set():
            raise Cancelled("importing was cancelled")

    with Leases.of(host().config).take() as lease:
        with open_layer(source, hashed=False) as tar:
            stored = store_tar(
                Counted(tar, check),
                None,
                content=host().content,
                snapshots=host().snapshots,
                lease=lease,
            )
        now = timezone.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        message = args["message"] or f"Imported from {args.get('address') or '-'}"
        document = ImageConfig(
            platform=platform,
            rootfs=RootFS((stored.diff_id,)),
            config=config,
            history=(History(created=now, comment=message),),
            created=now,
            extra={"comment": message},
        )
        digests = written(document, [stored.layer])
        lease.keep(*digests)
        name = args["name"]
        return recorded(
            operation.namespace,
            *digests,
            [stored.layer],
            (Reference.parse(name),) if name else (),
            lambda image: images.image_event(image, "import"),
        )
