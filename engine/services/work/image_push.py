"""Pushing from this machine."""

from __future__ import annotations

import threading
from typing import Any

from django.db import transaction

from engine.errors import NotFound
from engine.images.leases import Leases
from engine.images.push import Layer, push
from engine.models import Image, Operation, Tag
from engine.oci.digest import Digest
from engine.oci.reference import Reference
from engine.registry.client import RegistryClient
from engine.registry.credentials import handed_over, load_credentials
from engine.services import images
from engine.services.work.host import host
from engine.services.work.image_rows import layers_of
from engine.services.work.layer_progress import reported

_SOURCES = 3


def push_image(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """One tag after the other. The result: {pushed: [{tag, digest, size}]}."""
    config = host().config
    repository = operation.args["repository"]
    reference = Reference.parse(repository)
    credentials = handed_over(config.run_dir, operation.args["auth"])
    if credentials is None:
        credentials = load_credentials(config.home / "registries.json", reference.domain)
    pushed: list[dict[str, Any]] = []
    with reported(operation) as board:
        for tag in operation.args["tags"]:
            named = reference.with_tag(tag)
            image = images.named(operation.namespace, named)
            if image is None:
                raise NotFound(
                    f"An image does not exist locally with the tag: {named.familiar_name()}"
                )
            with (
                RegistryClient.configured(reference.domain, config, credentials) as client,
                Leases.of(config).take() as lease,
            ):
                lease.keep(
                    image.manifest_digest, image.digest, *(d.digest for d in layers_of(image))
                )
                done = push(
                    Digest.parse(image.manifest_digest),
                    _layers(image, named),
                    named,
                    client=client,
                    content=host().content,
                    progress=board.note,
                    cancelled=cancelled.is_set,
                )
            _record(image, named, done.digest)
            pushed.append({"tag": tag, "digest": str(done.digest), "size": done.size})
    return {"pushed": pushed}


def _record(image: Image, reference: Reference, digest: Digest) -> None:
    """The registry calls it so from now on, unless it was removed here meanwhile."""
    with transaction.atomic():
        if not Image.objects.filter(pk=image.pk).exists():
            return
        images.digest_record(image, reference, str(digest))
        name = reference.familiar()
        images.image_event(image, "push", reference.familiar_name(), actor_id=name)


def _layers(image: Image, reference: Reference) -> tuple[Layer, ...]:
    """With the repositories of that registry which were pulled or pushed with such a layer."""
    known = Tag.digests.select_related("image").filter(
        namespace=image.namespace_id, repository__startswith=f"{reference.domain}/"
    )
    sources: dict[str, list[str]] = {}
    for tag in known.exclude(repository=reference.repository):
        path = tag.repository.removeprefix(f"{reference.domain}/")
        for layer in tag.image.layers:
            paths = sources.setdefault(layer["digest"], [])
            if path not in paths and len(paths) < _SOURCES:
                paths.append(path)
    return tuple(
        Layer(descriptor, Digest.parse(row["diff_id"]), tuple(sources.get(descriptor.digest, ())))
        for descriptor, row in zip(layers_of(image), image.layers, strict=True)
    )
