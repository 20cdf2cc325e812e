"""Pulling and removing images on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import transaction

from engine.errors import NotFound
from engine.images.leases import Leases
from engine.images.progress import Progress
from engine.images.pull import PulledImage, pull
from engine.models import Image, Namespace, Operation
from engine.oci.digest import Digest, chain_ids
from engine.oci.image import Descriptor
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.auth import Credentials
from engine.registry.client import RegistryClient
from engine.registry.credentials import handed_over, load_credentials
from engine.services import image_removal, images, operations
from engine.services.work.garbage import collect_released
from engine.services.work.host import host

_REPORT_SECONDS = 0.25


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    return _HANDLERS[Operation.Kind(operation.kind)](operation, cancelled)


def _pull(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """The result: {image: id, digest: what the name stood for, updated: whether it was another or
    none before}."""
    reference = Reference.parse(operation.args["reference"])
    platform = operation.args.get("platform")
    tally = LayerTally(
        lambda layers: operations.report(
            operation, {"reference": reference.familiar(), "layers": layers}
        )
    )
    before = images.named(operation.namespace, reference)
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
    config = json.loads(host().content.read(pulled.config.digest))
    with transaction.atomic():
        image = images.image_record(
            namespace,
            digest=str(pulled.config.digest),
            manifest_digest=str(pulled.manifest.digest),
            config=config,
            layers=layer_rows(pulled.layers, pulled.image_config.rootfs.diff_ids),
            names=() if reference.digest else (reference,),
        )
        images.digest_record(image, reference, str(pulled.resolved.digest))
        name = reference.familiar()
        images.image_event(image, "pull", reference.familiar_name(), actor_id=name)
    return image


def layer_rows(layers: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> list[dict[str, Any]]:
    """What Image.layers holds, of layers that are unpacked here."""
    return [
        {
            "digest": str(layer.digest),
            "diff_id": str(diff_id),
            "size": layer.size,
            "media_type": layer.media_type,
            "unpacked": host().snapshots.usage(chain).length,
        }
        for layer, diff_id, chain in zip(layers, diff_ids, chain_ids(diff_ids), strict=True)
    ]


class LayerTally:
    """Collects Progress by layer and passes the whole on, at most four times a second."""

    def __init__(self, report: Callable[[list[dict[str, Any]]], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._layers: dict[str, dict[str, Any]] = {}
        self._last = 0.0

    def add(self, progress: Progress) -> None:
        with self._lock:
            if progress.digest:
                self._layers[str(progress.digest)] = {
                    "digest": str(progress.digest),
                    "kind": progress.kind,
                    "current": progress.current,
                    "total": progress.total,
                }
            if time.monotonic() - self._last < _REPORT_SECONDS:
                return
            self._last = time.monotonic()
            layers = list(self._layers.values())
        self._report(layers)

    def flush(self) -> None:
        self._report(list(self._layers.values()))


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
    Operation.Kind.IMAGE_REMOVE: _remove,
    Operation.Kind.IMAGE_PRUNE: _prune,
}
