"""The build cache as `docker system df` lists it and `docker builder prune` empties it: rows.

Layers that only the cache kept are collected with the next collection of garbage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from engine.dockerfile.durations import parse_duration
from engine.errors import InvalidInput
from engine.models import BuildCacheEntry, Image, Namespace


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One remembered step with a layer: `size` of its blob in bytes, `shared` where an image has
    that layer too."""

    key: str
    size: int
    shared: bool
    created_at: datetime
    used_at: datetime

    def to_docker(self) -> dict[str, object]:
        """BuildCache of the Engine API."""
        return {
            "ID": self.key.removeprefix("sha256:")[:25],
            "Parent": "",
            "Type": "regular",
            "Description": "",
            "InUse": False,
            "Shared": self.shared,
            "Size": self.size,
            "CreatedAt": self.created_at.isoformat().replace("+00:00", "Z"),
            "LastUsedAt": self.used_at.isoformat().replace("+00:00", "Z"),
            "UsageCount": 1,
        }


@dataclass(frozen=True, slots=True)
class Pruned:
    """`size` counts each layer once that no image has."""

    keys: tuple[str, ...]
    size: int


def records(namespace: Namespace) -> list[CacheRecord]:
    """The namespace's, those used last first."""
    in_images = _in_images()
    found = []
    rows = BuildCacheEntry.objects.filter(namespace=namespace).order_by("-used_at")
    for key, entry, created, used in rows.values_list("key", "entry", "created_at", "used_at"):
        if entry["layer"]:
            layer = entry["layer"]["descriptor"]
            shared = layer["digest"] in in_images
            found.append(CacheRecord(key, layer["size"], shared, created, used))
    return found


def prune(namespace: Namespace, *, everything: bool = False, until: str = "") -> Pruned:
    """Forget steps: those whose layer no image has, or `everything`; with `until` (24h) only those
    not used for that long. Raises InvalidInput."""
    rows = BuildCacheEntry.objects.filter(namespace=namespace)
    if until:
        try:
            age = timedelta(microseconds=parse_duration(until) / 1000)
        except InvalidInput as error:
            raise InvalidInput(f"invalid filter 'until={until}'", hint=error.hint) from error
        rows = rows.filter(used_at__lt=timezone.now() - age)
    in_images = _in_images()
    sizes: dict[str, int] = {}
    gone: dict[int, str] = {}
    for pk, key, entry in rows.values_list("pk", "key", "entry"):
        layer = entry["layer"]["descriptor"] if entry["layer"] else None
        kept = layer is None or layer["digest"] in in_images
        if everything or not kept:
            gone[pk] = key
        if layer is not None and not kept:
            sizes[layer["digest"]] = layer["size"]
    keys = list(gone)
    for start in range(0, len(keys), 500):
        BuildCacheEntry.objects.filter(pk__in=keys[start : start + 500]).delete()
    return Pruned(tuple(gone.values()), sum(sizes.values()))


def _in_images() -> frozenset[str]:
    return frozenset(
        layer["digest"]
        for layers in Image.objects.values_list("layers", flat=True)
        for layer in layers
    )
