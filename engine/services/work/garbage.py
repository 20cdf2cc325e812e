"""Blobs and layers that no row needs any more: what `docker image rm` and time set free."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from engine.images.gc import Collected, Referenced, collect
from engine.images.leases import Leases
from engine.models import BuildCacheEntry, Container, Image
from engine.oci.digest import Digest, chain_ids
from engine.services.work.host import host


def collect_garbage() -> list[str]:
    """Blobs and layers that no image, container, cache entry or lease needs."""
    removed = _collect()
    if not removed.blobs and not removed.snapshots:
        return []
    return [f"{removed.blobs} blobs and {removed.snapshots} layers removed, {removed.bytes} bytes"]


def collect_released(names: Iterable[str]) -> Collected:
    """The same at once, without the hour's grace for what removed images had."""
    return _collect(frozenset(names))


def _collect(released: frozenset[str] = frozenset()) -> Collected:
    return collect(
        host().content,
        host().snapshots,
        Leases.of(host().config),
        _referenced,
        released=released,
    )


def _referenced() -> Referenced:
    with transaction.atomic():
        names: set[str] = set()
        for uid_settings in Container.objects.values_list("settings", flat=True):
            names.add(uid_settings["chain"])
        for layers in Image.objects.values_list("layers", flat=True):
            diff_ids = [Digest.parse(layer["diff_id"]) for layer in layers]
            names.update(str(chain) for chain in chain_ids(diff_ids))
        for entry in BuildCacheEntry.objects.values_list("entry", flat=True):
            if entry["layer"]:
                names.add(entry["layer"]["descriptor"]["digest"])
        manifests = frozenset(
            Digest.parse(text) for text in Image.objects.values_list("manifest_digest", flat=True)
        )
    names.discard("")
    return Referenced(manifests=manifests, names=frozenset(names))
