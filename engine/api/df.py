"""GET /system/df: what images, containers, volumes and the build cache take."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from django.db.models import Count

from engine.api import image_shapes as shapes
from engine.api import listing, volumes
from engine.api.call import Call, Routes, reply
from engine.errors import InvalidInput
from engine.models import Container, Image
from engine.services import build_cache
from engine.services.orm import orm

routes = Routes()

_TYPES = ("container", "image", "volume", "build-cache")


@routes.get("/system/df")
async def system_df(call: Call) -> web.Response:
    """`type`, any number of times, leaves out the others."""
    types = call.texts("type") or list(_TYPES)
    for name in types:
        if name not in _TYPES:
            raise InvalidInput(f"unknown object type: {name}")
    return reply(await orm(_usage, call, types))


def _usage(call: Call, types: list[str]) -> dict[str, Any]:
    images = _images(call) if "image" in types else None
    cache: list[dict[str, object]] | None = None
    if "build-cache" in types:
        cache = [record.to_docker() for record in build_cache.records(call.namespace)]
    found: dict[str, Any] = {
        "LayersSize": images[0] if images else 0,
        "Images": images[1] if images else None,
        "Containers": listing.listed(call.namespace, {}, True, 0, True)
        if "container" in types
        else None,
        "Volumes": volumes.disk_usage(call.namespace) if "volume" in types else None,
        "BuildCache": cache,
    }
    if call.version < (1, 42):
        sizes = [record["Size"] for record in cache or ()]
        found["BuilderSize"] = sum(size for size in sizes if isinstance(size, int))
    return found


def _images(call: Call) -> tuple[int, list[dict[str, Any]]]:
    """All layers' bytes, each once, and the images with what they share."""
    rows = list(Image.objects.for_namespace(call.namespace).order_by("-created_at", "-pk"))
    counted = Container.objects.for_namespace(call.namespace).values_list("image")
    used = dict(counted.annotate(Count("pk")).order_by())
    names, shared = shapes.Names(rows), shapes.shared_sizes(rows)
    return shapes.layers_size(rows), [
        shapes.summary(
            row,
            names,
            version=call.version,
            shared=shared[row.pk],
            containers=used.get(row.pk, 0),
        )
        for row in rows
    ]
