"""Load and import on this machine: archives that came with a request become images."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from django.utils import timezone

from engine.errors import Cancelled, NotFound
from engine.images.archive import opened
from engine.images.leases import Leases
from engine.images.load import LoadedImage, Target, load
from engine.images.store import Counted, store_tar
from engine.models import Namespace, Operation, Upload
from engine.oci.image import ContainerConfig, History, ImageConfig, RootFS
from engine.oci.platform import Platform
from engine.oci.platform import host as own_platform
from engine.oci.reference import Reference
from engine.services import images
from engine.services.image_transfers import incoming_path
from engine.services.uploads import upload_path
from engine.services.work.host import host
from engine.services.work.image_changes import changed
from engine.services.work.image_rows import recorded, written
from engine.services.work.layer_progress import reported
from engine.snapshots.compress import open_layer


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
    """The result: {image: id}."""
    args = operation.args
    path = incoming_path(args["incoming"])

    def check(_: int) -> None:
        if cancelled.is_set():
            raise Cancelled("importing was cancelled")

    try:
        config = changed(ContainerConfig(), args["changes"])
        platform = Platform.parse(args["platform"]) if args["platform"] else own_platform()
        with Leases.of(host().config).take() as lease:
            with open_layer(path, hashed=False) as tar:
                stored = store_tar(
                    Counted(tar, check),
                    None,
                    content=host().content,
                    snapshots=host().snapshots,
                    lease=lease,
                )
            now = timezone.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            message = args["message"] or "Imported from -"
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
            image = recorded(
                operation.namespace,
                *digests,
                [stored.layer],
                (Reference.parse(name),) if name else (),
                lambda image: images.image_event(image, "import"),
            )
    finally:
        path.unlink(missing_ok=True)
    return {"image": image.digest}
