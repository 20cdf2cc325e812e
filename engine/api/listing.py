"""GET /containers/json: `docker ps`, in a fixed number of queries however many there are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from aiohttp import web
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from engine.api.attached import mount_list, networks_shape, port_list
from engine.api.call import Call, Routes, reply
from engine.api.container_filters import read_filters
from engine.api.sizes_of import sizes_of
from engine.api.words import command, status
from engine.errors import InvalidInput
from engine.models import Container, Endpoint, Image, Namespace, Network, Port, Tag, VolumeUse
from engine.oci.reference import Reference
from engine.services.orm import light, orm

routes = Routes()
_T = TypeVar("_T", Endpoint, Port, VolumeUse)
# The columns a list needs, but for `settings`, which is read as the text it is kept as.
_SHOWN = (
    *("pk", "uid", "namespace_id", "name", "image_id", "image_name", "state", "exit_code"),
    *("created_at", "started_at", "finished_at", "health"),
)
_ENDPOINT = ("pk", "network_id", "container_id", "uid", "address", "mac", "names", "fixed")


@routes.get("/containers/json")
async def list_containers(call: Call) -> web.Response:
    limit = call.number("limit") or 0
    shown = await orm(
        listed, call.namespace, call.filters(), call.flag("all"), limit, call.flag("size")
    )
    return reply(shown)


@dataclass(slots=True)
class Rows:
    """What a page of containers hangs on, by their primary keys."""

    endpoints: dict[int, list[Endpoint]] = field(default_factory=dict)
    ports: dict[int, list[Port]] = field(default_factory=dict)
    uses: dict[int, list[VolumeUse]] = field(default_factory=dict)
    images: dict[tuple[str, str], int] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)


def listed(
    namespace: Namespace, given: dict[str, list[str]], all: bool, limit: int, size: bool
) -> list[dict[str, Any]]:
    filters = read_filters(namespace, given)
    query = Container.objects.for_namespace(namespace).order_by("-created_at", "-pk")
    if not (all or limit > 0 or filters.any_state):
        State = Container.State
        query = query.filter(state__in=[State.RUNNING, State.PAUSED, State.RESTARTING])
    rows = [row for row in _read(filters.apply(query)) if filters.fits(row)]
    related = related_to(namespace, rows)
    shown = []
    now = timezone.now()
    for row in rows:
        mounts = mount_list(row, related.uses.get(row.pk, ()))
        ports = port_list(row, related.ports.get(row.pk, ()))
        networks = networks_shape(row, related.endpoints.get(row.pk, ()), in_list=True)
        if filters.fits_shape(mounts, ports, networks, row):
            shown.append(_summary(row, related, mounts, ports, networks, now))
            if len(shown) == limit:
                break
    if size:
        by_uid = {row.uid: row for row in rows}
        for one in shown:
            row = by_uid[one["Id"]]
            rw, root = sizes_of(row.uid, related.sizes.get(row.image_id or 0, 0))
            if rw:
                one["SizeRw"] = rw
            one["SizeRootFs"] = root
    return shown


def _read(query: QuerySet[Container]) -> Iterator[Container]:
    """Settings are half of a list's time to decode, and change hardly ever: who lists again, and
    people do that all day, finds them decoded. They MUST NOT be changed."""
    query = query.annotate(settings_text=Cast("settings", TextField()))
    for row in light(query, *_SHOWN, "settings_text"):
        values = vars(row)
        values["settings"] = _decoded(values["settings_text"])
        yield row


@lru_cache(2000)
def _decoded(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def related_to(namespace: Namespace, rows: list[Container]) -> Rows:
    """Five queries. For most of a namespace's containers it is cheaper to take all."""
    keys = [row.pk for row in rows]
    chosen = Q(container__namespace=namespace)
    if len(keys) <= 500:
        chosen = Q(container__in=keys)
    found = Rows()
    if not keys:
        return found
    networks = Network.objects.in_bulk()
    endpoints = list(light(Endpoint.objects.filter(chosen).order_by("pk"), *_ENDPOINT))
    for endpoint in endpoints:
        endpoint._state.fields_cache["network"] = networks[endpoint.network_id]
    found.endpoints = _grouped(endpoints)
    found.ports = _grouped(Port.objects.filter(chosen))
    found.uses = _grouped(VolumeUse.objects.filter(chosen).select_related("volume"))
    for repository, tag, image in Tag.objects.filter(namespace=namespace).values_list(
        "repository", "tag", "image_id"
    ):
        found.images[repository, tag] = image
    for key, digest, size in Image.objects.for_namespace(namespace).values_list(
        "pk", "digest", "size"
    ):
        found.digests[key] = digest
        found.sizes[key] = size
    return found


def _grouped(rows: Iterable[_T]) -> dict[int, list[_T]]:
    found: dict[int, list[_T]] = defaultdict(list)
    for row in rows:
        if row.container_id is not None:
            found[row.container_id].append(row)
    return found


def _summary(
    row: Container,
    related: Rows,
    mounts: list[dict[str, Any]],
    ports: list[dict[str, Any]],
    networks: dict[str, Any],
    now: datetime,
) -> dict[str, Any]:
    settings = row.settings
    return {
        "Id": row.uid,
        "Names": [f"/{row.name}"],
        "Image": image_shown(row, related),
        "ImageID": settings.get("image", ""),
        "Command": command([*settings.get("entrypoint", ()), *settings.get("cmd", ())]),
        "Created": int(row.created_at.timestamp()),
        "Ports": ports,
        "Labels": settings.get("labels", {}),
        "State": row.state,
        "Status": status(
            row.state,
            now=now,
            started_at=row.started_at,
            finished_at=row.finished_at,
            exit_code=row.exit_code,
            health=row.health,
        ),
        "HostConfig": {"NetworkMode": settings.get("network_mode", "default")},
        "NetworkSettings": {"Networks": networks},
        "Mounts": mounts,
    }


def image_shown(row: Container, related: Rows) -> str:
    """The name it was made from, while that still means the same image; else the image's id."""
    name, digest = row.image_name, str(row.settings.get("image", ""))
    if name.removeprefix("sha256:") and digest.removeprefix("sha256:").startswith(
        name.removeprefix("sha256:")
    ):
        return name
    reference = _parsed(name)
    if reference is None:
        return digest
    if reference.digest is not None:
        return name
    image = related.images.get((reference.repository, reference.tag or "latest"))
    return name if image is not None and related.digests.get(image) == digest else digest


@lru_cache(1000)
def _parsed(name: str) -> Reference | None:
    try:
        return Reference.parse(name)
    except InvalidInput:
        return None
