"""Images in and out by archives: /images/create, /images/load, /images/get, /commit.

What comes is written to a file first, as much as there is room for; an operation then takes it in.
What goes is sent straight from the content store, its length known beforehand.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from engine.api import pulls
from engine.api.call import Call, Routes, reply
from engine.api.errors import QueueAway, message_of
from engine.api.image_progress import bar, status
from engine.api.json_lines import JsonLines
from engine.api.operations import check, ended, steps
from engine.errors import InvalidInput, NoSpace, QuaysideError
from engine.images import room
from engine.images.save import FilePiece, length
from engine.models import Namespace, Operation
from engine.services import containers, image_transfers
from engine.services.orm import orm
from engine.services.work.image_saves import archive

routes = Routes()

_BATCH = 4 << 20
_SENT = 1 << 20
_ROOM_EVERY = 64 << 20


@routes.post("/images/create")
async def image_create(call: Call) -> web.StreamResponse:
    if call.text("fromImage"):
        return await pulls.pull(call)
    source = call.text("fromSrc")
    if not source:
        raise InvalidInput("invalid reference format")
    return await _import(call, source)


async def _import(call: Call, source: str) -> web.StreamResponse:
    """`source` "-" is the request's body, anything else an address."""
    name = call.text("repo")
    if name and call.text("tag"):
        name = f"{name}:{call.text('tag')}"
    submit = partial(
        image_transfers.image_import,
        name=name,
        changes=call.texts("changes"),
        message=call.text("message"),
        platform=call.text("platform"),
    )
    lines = JsonLines(call)
    if source == "-":
        row = await _taken_in(call, submit)
    else:
        asked = partial(submit, address=source, via=pulls.VIA)
        work = await pulls.begun(lines, orm(asked, call.namespace, "", call.actor))
        try:
            async with pulls.Watch(lines, work):
                row = await _fetched(lines, work)
            check(row)
        except QuaysideError as error:
            if not lines.begun:
                raise
            await lines.fail(message_of(error))
            return await lines.end()
    await lines.send({"status": row.result["image"]})
    return await lines.end()


async def _fetched(lines: JsonLines, work: Operation) -> Operation:
    """The row at its end; meanwhile its progress is told as moby tells it."""
    told: Any = None
    async for row in steps(work, lambda: lines.gone):
        found = row.progress.get("fetching")
        if found and not lines.begun:
            await lines.send(status(f"Downloading from {row.args['address']}"))
        if found and found != told:
            told = found
            line = bar("Importing", "", found[0], found[1] or 0)
            await lines.send({key: value for key, value in line.items() if key != "id"})
        if not row.is_open:
            return row
    raise ConnectionResetError("the client has left")


@routes.post("/images/load")
async def image_load(call: Call) -> web.StreamResponse:
    """`quiet` leaves out the progress of the layers."""
    lines = JsonLines(call)
    key = await _received(call)
    work = await orm(image_transfers.image_load, call.namespace, key, call.actor)
    try:
        row = await _loaded(lines, work, quiet=call.flag("quiet"))
    except QueueAway as error:
        if not lines.begun:
            raise
        await lines.fail(message_of(error))
        return await lines.end()
    try:
        check(row)
    except QuaysideError as error:
        # Of what the archive holds, as of a full disk on the way: always a line, as moby.
        await lines.fail(message_of(error))
        return await lines.end()
    for name, before in row.result["renamed"]:
        text = f"The image {name} already exists, renaming the old one with ID {before} to"
        await lines.send({"stream": f"{text} empty string\n"})
    for loaded in row.result["loaded"]:
        names = [f"Loaded image: {name}\n" for name in loaded["names"]]
        for text in names or [f"Loaded image ID: {loaded['id']}\n"]:
            await lines.send({"stream": text})
    return await lines.end()


async def _loaded(lines: JsonLines, work: Operation, *, quiet: bool) -> Operation:
    """The row at its end, its layers told on the way."""
    said: dict[str, int] = {}
    async for row in steps(work, lambda: lines.gone):
        for layer in () if quiet else row.progress.get("layers") or ():
            if said.get(layer["digest"]) != layer["current"]:
                said[layer["digest"]] = layer["current"]
                id = layer["digest"].removeprefix("sha256:")[:12]
                await lines.send(bar("Loading layer", id, layer["current"], layer["total"]))
        if not row.is_open:
            return row
    raise ConnectionResetError("the client has left")


@routes.get("/images/get")
async def images_get(call: Call) -> web.StreamResponse:
    names = [name for text in call.texts("names") for name in text.split(",") if name]
    if not names:
        raise InvalidInput("no image was named")
    return await _sent(call, names)


@routes.get("/images/{name:.+}/get")
async def image_get(call: Call) -> web.StreamResponse:
    return await _sent(call, [call.path("name")])


async def _sent(call: Call, names: list[str]) -> web.StreamResponse:
    pieces = await orm(archive, call.namespace, names)
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    response.content_length = length(pieces)
    await response.prepare(call.request)
    for piece in pieces:
        if isinstance(piece, bytes):
            await response.write(piece)
        else:
            await _send_file(response, piece)
    await response.write_eof()
    return response


async def _send_file(response: web.StreamResponse, piece: FilePiece) -> None:
    """The file stays whole while it is open, removed or not."""
    file = await asyncio.to_thread(piece.path.open, "rb", 0)
    with file:
        left = piece.size
        while left:
            data = await asyncio.to_thread(file.read, min(_SENT, left))
            if not data:
                raise ConnectionResetError(f"{piece.path} is shorter than it was")
            left -= len(data)
            await response.write(data)


@routes.post("/commit")
async def commit(call: Call) -> web.Response:
    name = call.text("repo")
    if name and call.text("tag"):
        name = f"{name}:{call.text('tag')}"
    body = await call.json()
    work = await orm(_commit, call, name, dict(body))
    row: Operation = await ended(work)
    return reply({"Id": row.result["image"]}, 201)


def _commit(call: Call, name: str, config: dict[str, Any]) -> Operation:
    if not call.text("container"):
        raise InvalidInput("the container is missing")
    container = containers.find_container(call.namespace, call.text("container"))
    changes = [line for text in call.texts("changes") for line in text.split("\n")]
    return image_transfers.image_commit(
        container,
        call.actor,
        name=name,
        changes=changes,
        message=call.text("comment"),
        author=call.text("author"),
        pause=call.flag("pause", default=True),
        config=config,
    )


async def _taken_in(call: Call, submit: Callable[[Namespace, str, str], Operation]) -> Operation:
    """The body received, and the operation `submit` makes of it ended."""
    key = await _received(call)
    try:
        work = await orm(submit, call.namespace, key, call.actor)
    except BaseException:
        await asyncio.to_thread(image_transfers.incoming_path(key).unlink, missing_ok=True)
        raise
    return await ended(work)


async def _received(call: Call) -> str:
    """The key of the file that holds the request's body. Raises NoSpace; nothing stays of a body
    that broke off."""
    key, path = await asyncio.to_thread(image_transfers.incoming_new)
    try:
        await _write(call, path)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    return key


async def _write(call: Call, path: Path) -> None:
    checked = 0
    held: list[bytes] = []
    size = 0
    with await asyncio.to_thread(path.open, "xb", 0) as file:
        path.chmod(0o600)
        async for data in call.request.content.iter_any():
            held.append(data)
            size += len(data)
            if size >= _BATCH:
                checked -= size
                if checked < 0:
                    await asyncio.to_thread(room.check, path.parent, _ROOM_EVERY)
                    checked = _ROOM_EVERY
                await asyncio.to_thread(_put, file, held)
                held, size = [], 0
        await asyncio.to_thread(_put, file, held)


def _put(file: Any, pieces: list[bytes]) -> None:
    view = memoryview(b"".join(pieces))
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            "no space left for what was sent", hint="remove what nobody needs, then send it again"
        ) from error
