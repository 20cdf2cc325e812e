"""Volumes: list, create, inspect, remove, prune, and what they take (system df)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from engine.api.binds import refuse_unread
from engine.api.call import Call, Routes, reply
from engine.api.fields import Fields
from engine.api.filtering import known, truth
from engine.api.operations import ended
from engine.api.words import timestamp
from engine.errors import InvalidInput, NotFound, Unsupported
from engine.models import Namespace, Volume
from engine.services import labels, volumes
from engine.services.orm import orm
from engine.services.work import volumes as volumes_work

routes = Routes()

JSON = dict[str, Any]
_FILTERS = ("dangling", "driver", "label", "name")
_PRUNE_FILTERS = ("all", "label", "label!")
# From here on named volumes are only pruned when it is asked for.
_ANONYMOUS_ONLY = (1, 42)


@routes.get("/volumes")
async def volume_list(call: Call) -> web.Response:
    filters = call.filters()
    known(filters, _FILTERS)
    found = await orm(_listed, call.namespace, filters)
    return reply({"Volumes": found, "Warnings": None})


@routes.post("/volumes/create")
async def volume_create(call: Call) -> web.Response:
    body = Fields(await call.json(), "VolumeCreateRequest")
    if body.raw("ClusterVolumeSpec"):
        raise Unsupported("cluster volumes are not supported")
    name, driver = body.text("Name"), body.text("Driver")
    held, options = body.mapping("Labels"), body.mapping("DriverOpts")
    refuse_unread(body, "VolumeCreateRequest")
    volume = await orm(
        volumes.volume_create, call.namespace, name, driver=driver, labels=held, options=options
    )
    return reply(shape(volume), 201)


@routes.get("/volumes/{name}")
async def volume_inspect(call: Call) -> web.Response:
    return reply(shape(await orm(volumes.find_volume, call.namespace, call.path("name"))))


@routes.put("/volumes/{name}")
async def volume_update(call: Call) -> web.Response:
    """Of swarm's cluster volumes alone."""
    raise Unsupported("cluster volumes are not supported")


@routes.delete("/volumes/{name}")
async def volume_remove(call: Call) -> web.Response:
    """With `force` one that is not there is no error; one in use is all the same."""
    try:
        volume = await orm(volumes.find_volume, call.namespace, call.path("name"))
        await ended(await orm(volumes.volume_remove, volume, call.actor))
    except NotFound:
        if not call.flag("force"):
            raise
    return web.Response(status=204)


@routes.post("/volumes/prune")
async def volumes_prune(call: Call) -> web.Response:
    filters = call.filters()
    known(filters, _PRUNE_FILTERS)
    every = truth("all", filters.get("all", ()))
    operation = await ended(
        await orm(
            volumes.volumes_prune,
            call.namespace,
            call.actor,
            all=call.version < _ANONYMOUS_ONLY if every is None else every,
            label=filters.get("label", ()),
            label_not=filters.get("label!", ()),
        )
    )
    result = operation.result
    return reply({"VolumesDeleted": result["volumes"], "SpaceReclaimed": result["bytes"]})


def shape(volume: Volume) -> JSON:
    """As inspect shows it; empty maps are null, as moby's are."""
    return {
        "CreatedAt": timestamp(volume.created_at.replace(microsecond=0)),
        "Driver": volumes.DRIVER,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volumes.mountpoint(volume),
        "Name": volume.name,
        "Options": volumes.driver_options(volume) or None,
        "Scope": "local",
    }


def disk_usage(namespace: Namespace) -> list[JSON]:
    """Every volume with its size, measured now, and how many containers have it: system df."""
    found = volumes.listed(namespace)
    volumes_work.measure(found)
    return [
        {
            **shape(volume),
            "UsageData": {
                "Size": volumes.usage(volume).size or 0,
                "RefCount": volumes.users(volume),
            },
        }
        for volume in found
    ]


def _listed(namespace: Namespace, filters: dict[str, list[str]]) -> list[JSON]:
    dangling = truth("dangling", filters.get("dangling", ()), "Invalid filter 'dangling=[{}]'")
    names = _patterns(filters.get("name", ()))
    drivers = filters.get("driver", [volumes.DRIVER])
    return [
        shape(volume)
        for volume in volumes.listed(namespace)
        if volumes.DRIVER in drivers
        and (dangling is None or dangling == (volumes.users(volume) == 0))
        and labels.match(volume.labels, filters.get("label", ()))
        and (not names or any(pattern.search(volume.name) for pattern in names))
    ]


def _patterns(texts: Iterable[str]) -> list[re.Pattern[str]]:
    """moby takes names as regular expressions."""
    try:
        return [re.compile(text) for text in texts]
    except re.error as error:
        raise InvalidInput(f"invalid filter 'name': {error}") from error
