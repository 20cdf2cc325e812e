"""Rows of images whose content is on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from django.db import transaction

from engine.models import Image, Namespace
from engine.oci import media_types
from engine.oci.digest import Digest, chain_ids
from engine.oci.image import Descriptor, ImageConfig, Manifest
from engine.oci.reference import Reference
from engine.services import images
from engine.services.work.host import host


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


def recorded(
    namespace: Namespace,
    config: Digest,
    manifest: Digest,
    layers: Sequence[Descriptor],
    names: tuple[Reference, ...] = (),
    also: Callable[[Image], None] = lambda _: None,
) -> Image:
    """The row, by the config in the store; `also` writes what belongs into the same transaction,
    which itself touches no disk."""
    document = json.loads(host().content.read(config))
    diff_ids = [Digest.parse(text) for text in document["rootfs"]["diff_ids"]]
    rows = layer_rows(layers, diff_ids)
    with transaction.atomic():
        image = images.image_record(
            namespace,
            digest=str(config),
            manifest_digest=str(manifest),
            config=document,
            layers=rows,
            names=names,
        )
        also(image)
    return image


def written(config: ImageConfig, layers: Sequence[Descriptor]) -> tuple[Digest, Digest]:
    """(config, manifest) of an image made here, in the store. Raises NoSpace."""
    content = host().content
    body = config.to_json()
    described = Descriptor(media_types.OCI_CONFIG, content.put(body), len(body))
    manifest = Manifest(config=described, layers=tuple(layers))
    return described.digest, content.put(manifest.to_json())


def layers_of(image: Image) -> tuple[Descriptor, ...]:
    """Its layers' blobs, bottom first."""
    return tuple(
        Descriptor(layer["media_type"], Digest.parse(layer["digest"]), layer["size"])
        for layer in image.layers
    )
