"""HEAD, GET and PUT /containers/ID/archive (docker cp), and GET /containers/ID/export."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from engine.api.call import Call, Routes
from engine.api.happenings import happened
from engine.api.rooms import Client, with_root
from engine.containers.archive import PathStat, extract, find
from engine.containers.files import Root
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput
from engine.models import Container
from engine.runtime.users import resolve_user
from engine.services.containers import find_container
from engine.services.orm import orm
from engine.snapshots.diff import write_tree

routes = Routes()

_STAT = "X-Docker-Container-Path-Stat"


@routes.head("/containers/{id}/archive")
async def head(call: Call) -> web.StreamResponse:
    container, path, name = await _asked(call)

    def look(root: Root, settings: ContainerSettings, client: Client) -> PathStat:
        found = find(root, path, name)
        try:
            return found.stat
        finally:
            found.close()

    found, _ = await with_root(call.request, container, look, volumes=True)
    return web.Response(headers={_STAT: _encoded(found)})


@routes.get("/containers/{id}/archive")
async def get(call: Call) -> web.StreamResponse:
    container, path, name = await _asked(call)

    def send(root: Root, settings: ContainerSettings, client: Client) -> None:
        found = find(root, path, name)
        try:
            headers = {"Content-Type": "application/x-tar", _STAT: _encoded(found.stat)}
            client.begin(_chunked(headers))
            found.write(client)
        finally:
            found.close()

    return await _sent(call, container, send, "archive-path", volumes=True)


@routes.put("/containers/{id}/archive")
async def put(call: Call) -> web.StreamResponse:
    container, path, name = await _asked(call)
    keep_kinds, owned = call.flag("noOverwriteDirNonDir"), call.flag("copyUIDGID")

    def take(root: Root, settings: ContainerSettings, client: Client) -> None:
        owner = None
        if owned and settings.user:
            user = resolve_user(settings.user, Path(f"/proc/self/fd/{root.fd}"))
            owner = (user.uid, user.gid)
        extract(
            root,
            path,
            name,
            client,
            keep_kinds=keep_kinds,
            owner=owner,
            read_only=settings.host.read_only,
        )

    await with_root(call.request, container, take, volumes=True)
    happened(container, "extract-to-dir")
    return web.Response()


@routes.get("/containers/{id}/export")
async def export(call: Call) -> web.StreamResponse:
    """The whole root as it is merged; volumes are not part of it."""
    container = await orm(find_container, call.namespace, call.path("id"))

    def send(root: Root, settings: ContainerSettings, client: Client) -> None:
        client.begin(_chunked({"Content-Type": "application/octet-stream"}))
        write_tree(root.fd, b"", b"", client)

    return await _sent(call, container, send, "export", volumes=False)


async def _sent(
    call: Call,
    container: Container,
    send: Callable[[Root, ContainerSettings, Client], None],
    action: str,
    *,
    volumes: bool,
) -> web.StreamResponse:
    _, client = await with_root(call.request, container, send, volumes=volumes)
    happened(container, action)
    response = client.response
    assert response is not None
    await response.write_eof()
    return response


def _chunked(headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    return response


async def _asked(call: Call) -> tuple[Container, str, str]:
    """(the container, the path, the container as it was named). Raises NotFound, InvalidInput."""
    path = call.text("path")
    if not path:
        raise InvalidInput("bad parameter: 'path' cannot be empty")
    name = call.path("id")
    return await orm(find_container, call.namespace, name), path, name


def _encoded(found: PathStat) -> str:
    return base64.b64encode(json.dumps(found.to_json()).encode()).decode()
