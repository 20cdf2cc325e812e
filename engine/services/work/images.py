"""Pulling and removing images on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import transaction

from engine import publish
from engine.errors import NotFound
from engine.events import Kind
from engine.images.leases import Leases
from engine.images.progress import Progress
from engine.images.pull import PulledImage, pull
from engine.models import Image, Namespace, Operation
from engine.oci.reference import Reference
from engine.registry.client import RegistryClient
from engine.registry.credentials import load_credentials
from engine.services import images, operations
from engine.services.work.garbage import collect_garbage
from engine.services.work.host import host

_REPORT_SECONDS = 0.25


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    if operation.kind == Operation.Kind.IMAGE_PULL:
        return _pull(operation, cancelled)
    return _remove(operation)


def _pull(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    reference = Reference.parse(operation.args["reference"])
    tally = LayerTally(
        lambda layers: operations.report(
            operation, {"reference": reference.familiar(), "layers": layers}
        )
    )
    image = fetch(operation.namespace, reference, tally.add, cancelled.is_set)
    tally.flush()
    return {"image": image.digest}


def fetch(
    namespace: Namespace,
    reference: Reference,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Image:
    """Pull into the store and record the image under its name. Raises RegistryError and kin."""
    config = host().config
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
            progress=progress,
            cancelled=cancelled,
            lease=lease,
        )
        return _record(namespace, pulled, reference)


def _record(namespace: Namespace, pulled: PulledImage, reference: Reference) -> Image:
    config = json.loads(host().content.read(pulled.config.digest))
    return images.image_record(
        namespace,
        digest=str(pulled.config.digest),
        manifest_digest=str(pulled.manifest.digest),
        config=config,
        layers=[
            {
                "digest": str(layer.digest),
                "diff_id": diff_id,
                "size": layer.size,
                "media_type": layer.media_type,
            }
            for layer, diff_id in zip(pulled.layers, config["rootfs"]["diff_ids"], strict=True)
        ],
        names=(reference,),
    )


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


def _remove(operation: Operation) -> dict[str, Any]:
    image = Image.objects.filter(pk=int(operation.target), namespace=operation.namespace).first()
    if image is None:
        if operation.attempt > 1:
            return {}  # an attempt before this one had done it when its worker was lost
        raise NotFound("the image has been removed meanwhile", kind="image")
    images.must_be_free(image, bool(operation.args.get("force")))
    with transaction.atomic():
        key = image.pk
        image.delete()
        publish.changed(operation.namespace_id, Kind.IMAGE, key)
    collect_garbage()
    return {}
