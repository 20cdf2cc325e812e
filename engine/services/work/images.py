"""Pulling and removing images on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engine.errors import NotFound
from engine.images.leases import Leases
from engine.images.progress import Progress
from engine.images.pull import PulledImage, pull
from engine.models import Image, Namespace, Operation
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.auth import Credentials
from engine.registry.client import RegistryClient
from engine.registry.credentials import handed_over, load_credentials
from engine.services import image_removal, images, operations
from engine.services.work.garbage import collect_released
from engine.services.work.host import host
from engine.services.work.image_making import commit
from engine.services.work.image_moves import import_image, load_images
from engine.services.work.image_push import push_image
from engine.services.work.image_rows import layer_rows, recorded
from engine.services.work.layer_progress import LayerTally

__all__ = ["fetch", "fetched", "handle", "layer_rows"]


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    return _HANDLERS[Operation.Kind(operation.kind)](operation, cancelled)


def _pull(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """The result: {image: id, digest: what the name stood for, updated: whether it was another or
    none before, new: whether no image of this id was here}."""
    reference = Reference.parse(operation.args["reference"])
    platform = operation.args.get("platform")
    tally = LayerTally(
        lambda layers: operations.report(
            operation, {"reference": reference.familiar(), "layers": layers}
        )
    )
    before = images.named(operation.namespace, reference)
    ids = set(Image.objects.for_namespace(operation.namespace).values_list("digest", flat=True))
    image, pulled = fetched(
        operation.namespace,
        reference,
        tally.add,
        cancelled.is_set,
        Platform.parse(platform) if platform else None,
        handed_over(host().config.run_dir, operation.args.get("auth", "")),
    )
    tally.flush()
    return {
        "image": image.digest,
        "digest": str(pulled.resolved.digest),
        "updated": before is None or before.digest != image.digest,
        "new": image.digest not in ids,
    }


def fetch(
    namespace: Namespace,
    reference: Reference,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    platform: Platform | None = None,
    credentials: Credentials | None = None,
) -> Image:
    """Pull into the store and record the image under its name. Raises RegistryError and kin."""
    return fetched(namespace, reference, progress, cancelled, platform, credentials)[0]


def fetched(
    namespace: Namespace,
    reference: Reference,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    platform: Platform | None = None,
    credentials: Credentials | None = None,
) -> tuple[Image, PulledImage]:
    """The same, with what was pulled. `credentials` win over those kept for the registry."""
    config = host().config
    if credentials is None:
        credentials = load_credentials(config.home / "registries.json", reference.domain)
    with (
        RegistryClient.configured(reference.domain, config, credentials) as client,
        Leases.of(config).take() as lease,
    ):
        pulled = pull(
            reference,
            client=client,
            content=host().content,
            snapshots=host().snapshots,
            platform=platform,
            progress=progress,
            cancelled=cancelled,
            lease=lease,
        )
        return _record(namespace, pulled, reference), pulled


def _record(namespace: Namespace, pulled: PulledImage, reference: Reference) -> Image:
    def also(image: Image) -> None:
        images.digest_record(image, reference, str(pulled.resolved.digest))
        name = reference.familiar()
        images.image_event(image, "pull", reference.familiar_name(), actor_id=name)

    return recorded(
        namespace,
        pulled.config.digest,
        pulled.manifest.digest,
        pulled.layers,
        () if reference.digest else (reference,),
        also,
    )


def _remove(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """An image of the pages with all its names; of the API what is left of deleted rows."""
    released = operation.args.get("released")
    if released is None:
        image = Image.objects.filter(
            pk=int(operation.target), namespace=operation.namespace
        ).first()
        if image is None:
            if operation.attempt > 1:
                return {}  # an attempt before this one had done it when its worker was lost
            raise NotFound("the image has been removed meanwhile", kind="image")
        images.must_be_free(image, bool(operation.args.get("force")))
        released = image_removal.delete_all(image).released
    collected = collect_released(released)
    return {"layers": list(collected.layers), "bytes": collected.length}


def _prune(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """One image after the other, quietly passing over what is in use; {records as Docker's API has
    them, bytes of the files that went}."""
    records: list[dict[str, str]] = []
    length = 0
    for key in operation.args["images"]:
        if cancelled.is_set():
            break
        image = Image.objects.filter(pk=key, namespace=operation.namespace).first()
        if image is None or image.containers.exists():
            continue
        if operation.args["dangling"] and image.tags.exists():
            continue
        removal = image_removal.delete_unused(image)
        collected = collect_released(removal.released)
        records += removal.records
        records += [{"Deleted": chain} for chain in collected.layers]
        length += collected.length
    return {"records": records, "bytes": length}


_HANDLERS: dict[Operation.Kind, Callable[[Operation, threading.Event], dict[str, Any]]] = {
    Operation.Kind.IMAGE_PULL: _pull,
    Operation.Kind.IMAGE_PUSH: push_image,
    Operation.Kind.IMAGE_LOAD: load_images,
    Operation.Kind.IMAGE_IMPORT: import_image,
    Operation.Kind.IMAGE_COMMIT: commit,
    Operation.Kind.IMAGE_REMOVE: _remove,
    Operation.Kind.IMAGE_PRUNE: _prune,
}
