"""GET /images/json, inspect, history, tag, remove, prune. Moving images from and to elsewhere is
engine.api.transfers'."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.api import image_filters as filtering
from engine.api import image_shapes as shapes
from engine.api.call import Call, Routes, reply
from engine.api.operations import ended
from engine.errors import InvalidInput, NotFound, Unsupported
from engine.models import Image, Namespace, Operation, Tag
from engine.services import image_removal, image_transfers, images
from engine.services.orm import orm
from engine.services.work.host import host

routes = Routes()


@routes.get("/images/json")
async def image_list(call: Call) -> web.Response:
    return reply(await orm(_list, call))


def _list(call: Call) -> list[dict[str, Any]]:
    rows = list(Image.objects.for_namespace(call.namespace).order_by("-created_at", "-pk"))
    names = shapes.Names(rows)
    filters = call.filters()
    if call.text("filter"):  # before 1.28
        filters.setdefault("reference", []).append(call.text("filter"))
    found = filtering.listed(
        rows, filters, names, lambda name: images.find_image(call.namespace, name)
    )
    shared = shapes.shared_sizes(rows) if call.flag("shared-size") else {}
    here = {row.digest for row in rows}
    return [
        shapes.summary(
            row,
            names,
            version=call.version,
            parent=parent if (parent := row.config.get("parent")) in here else "",
            shared=shared.get(row.pk, -1),
        )
        for row in found
    ]


@routes.get("/images/{name:.+}/json")
async def image_inspect(call: Call) -> web.Response:
    return reply(await orm(_inspect, call))


def _inspect(call: Call) -> dict[str, Any]:
    image = images.find_image(call.namespace, call.path("name"))
    parent = image_removal.parent_of(image)
    tagged = Tag.objects.filter(image=image).order_by("-updated_at").first()
    return shapes.inspect(
        image,
        shapes.Names([image]),
        version=call.version,
        parent=parent.digest if parent else "",
        folders=_folders(image),
        tagged_at=tagged.updated_at if tagged else None,
    )


def _folders(image: Image) -> dict[str, str]:
    """GraphDriver's Data. The layers may be gone for a moment while the image is removed."""
    chains = shapes.chains_of(image)
    if not chains:
        return {}
    try:
        top = host().snapshots.layer(chains[-1])
        lowers = host().snapshots.lowers(chains[-1])
    except NotFound:
        return {}
    found = {"LowerDir": ":".join(map(str, lowers))} if lowers else {}
    return {
        **found,
        "MergedDir": str(top.with_name("merged")),
        "UpperDir": str(top),
        "WorkDir": str(top.with_name("work")),
    }


@routes.get("/images/{name:.+}/history")
async def image_history(call: Call) -> web.Response:
    return reply(await orm(_history, call))


def _history(call: Call) -> list[dict[str, Any]]:
    image = images.find_image(call.namespace, call.path("name"))
    parents: list[Image] = []
    below = image_removal.parent_of(image)
    while below is not None and below not in parents:
        parents.append(below)
        below = image_removal.parent_of(below)
    return shapes.history(image, parents, shapes.Names([image, *parents]))


@routes.get("/images/{name:.+}/attestations")
async def image_attestations(call: Call) -> web.Response:
    raise Unsupported("attestations are not supported")


@routes.post("/images/{name:.+}/tag")
async def image_tag(call: Call) -> web.Response:
    await orm(_tag, call.namespace, call.path("name"), call.text("repo"), call.text("tag"), call)
    return web.Response(status=201)


def _tag(namespace: Namespace, source: str, repo: str, tag: str, call: Call) -> None:
    if not repo:
        raise InvalidInput("invalid reference format: the repository name is missing")
    image = images.find_image(namespace, source)
    images.image_tag(image, f"{repo}:{tag}" if tag else repo, call.actor)


@routes.delete("/images/{name:.+}")
async def image_remove(call: Call) -> web.Response:
    name = call.path("name")
    removal = await orm(
        image_removal.remove,
        call.namespace,
        name,
        force=call.flag("force"),
        prune=not call.flag("noprune"),
    )
    records: list[dict[str, str]] = list(removal.records)
    if removal.released:
        work = await orm(image_removal.collect, call.namespace, removal, call.actor, name)
        row: Operation = await ended(work)
        records += [{"Deleted": chain} for chain in row.result["layers"]]
    return reply(records)


@routes.post("/images/prune")
async def image_prune(call: Call) -> web.Response:
    work = await orm(_prune, call)
    row: Operation = await ended(work)
    return reply(
        {
            "ImagesDeleted": row.result["records"] or None,
            "SpaceReclaimed": row.result["bytes"],
        }
    )


def _prune(call: Call) -> Operation:
    filters = call.filters()
    only_dangling = filtering.dangling(filters, True)
    rows = Image.objects.for_namespace(call.namespace).order_by("pk")
    chosen = filtering.prunable(rows, filters)
    return image_transfers.prune(
        call.namespace, [row.pk for row in chosen], call.actor, dangling=only_dangling
    )
