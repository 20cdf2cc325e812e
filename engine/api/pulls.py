"""POST /images/create with fromImage and /images/NAME/push: docker pull and docker push.

The work is an operation's; whoever is the last to watch one that the API began cancels it by
leaving, as with Docker.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from aiohttp import web

from engine.api import sign_in_files
from engine.api.call import Call, Routes
from engine.api.errors import OperationFailed, QueueAway, answer, message_of
from engine.api.image_progress import PullLines, PushLines, is_here, status
from engine.api.json_lines import JsonLines
from engine.api.operations import check, steps, surely
from engine.api.registry_words import pull_error, push_error, sign_in_of
from engine.errors import InvalidInput, QuaysideError, WrongState
from engine.models import Operation
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.auth import Credentials
from engine.registry.credentials import hand_over
from engine.services import image_transfers, images, operations, registries
from engine.services.orm import orm

routes = Routes()

VIA = "api"
# How many requests watch an operation, by its primary key.
_watched: Counter[int] = Counter()


async def pull(call: Call) -> web.StreamResponse:
    """`fromImage`, `tag` (or a digest), `platform`. Without a tag all tags of the repository come,
    one after the other, each an operation of its own (moby pullV2Repository)."""
    name = _pulled_name(call)
    reference = Reference.parse(name)
    platform = call.text("platform")
    if platform:
        Platform.parse(platform)
    every = reference.digest is None and not _has_tag(name)
    credentials = sign_in_of(call.request.headers.get("X-Registry-Auth", ""))
    auth = hand_over(call.config.run_dir, credentials) if credentials else ""
    lines = JsonLines(call)
    failed: QuaysideError | None = None
    try:
        names = [name]
        if every:
            names = [f"{name}:{tag}" for tag in await _tags(call, reference, credentials)]
        updated = False
        for one in names:
            updated |= await _pull_one(call, lines, one, platform=platform, auth=auth)
    except QuaysideError as error:
        failed = error
        code, message = pull_error(name, error)
        if not lines.begun:
            return answer(code, message)
        await lines.fail(message)
        return await lines.end()
    finally:
        sign_in_files.done_with(call.config.run_dir, [auth], failed)
    what = "Downloaded newer image for" if updated else "Image is up to date for"
    shown = reference.familiar_name() if every else reference.familiar()
    await lines.send(status(f"Status: {what} {shown}"))
    return await lines.end()


async def _tags(call: Call, reference: Reference, credentials: Credentials | None) -> list[str]:
    with registries.asking(call.config, reference, credentials) as client:
        try:
            return await asyncio.to_thread(client.tags, reference)
        except asyncio.CancelledError:  # the client has left
            client.abort()
            raise


async def _pull_one(call: Call, lines: JsonLines, name: str, **args: str) -> bool:
    """Whether the name stands for another image than before. Raises what ended the pull, and
    ConnectionError where the client has left."""
    reference = Reference.parse(name)
    work = await begun(
        lines, orm(images.image_pull, call.namespace, name, call.actor, via=VIA, **args)
    )
    async with Watch(lines, work):
        said, titled = PullLines(), False
        async for row in steps(work, lambda: lines.gone):
            done = row.state == Operation.State.DONE
            # As moby: of an image that is here already, by whatever name, no layer is told of;
            # whether it was shows at the end.
            here = is_here(row.progress)
            layers = [] if here and not (done and row.result["new"]) else said.next(row.progress)
            if (layers or done) and not titled:
                titled = True
                title = reference.canonical() if reference.digest else str(reference.tag)
                await lines.send(status(f"Pulling from {reference.path}", title))
            await lines.send(*layers)
            if row.is_open:
                continue
            check(row)
            await lines.send(status(f"Digest: {row.result['digest']}"))
            return bool(row.result["updated"])
    raise ConnectionResetError("the client has left")


@routes.post("/images/{name:.+}/push")
async def push(call: Call) -> web.StreamResponse:
    """`tag`; without one all tags of the repository go, as with `docker push -a`."""
    name, tag = call.path("name"), call.text("tag")
    reference = Reference.parse(f"{name}:{tag}" if tag else name)
    auth = _auth(call)
    lines = JsonLines(call)
    failed: QuaysideError | None = None
    try:
        await lines.send(status(f"The push refers to repository [{reference.repository}]"))
        try:
            work = await orm(
                image_transfers.image_push,
                call.namespace,
                f"{name}:{tag}" if tag else name,
                call.actor,
                all_tags=not tag,
                auth=auth,
                via=VIA,
            )
        except QuaysideError as error:
            await lines.fail(error.message)
            return await lines.end()
        try:
            async with Watch(lines, work):
                return await _pushed(lines, work)
        except QueueAway as error:
            failed = error
            await lines.fail(message_of(error))
            return await lines.end()
    finally:
        sign_in_files.done_with(call.config.run_dir, [auth], failed)


async def _pushed(lines: JsonLines, work: Operation) -> web.StreamResponse:
    said, tags = PushLines(), 0
    async for row in steps(work, lambda: lines.gone):
        await lines.send(*said.next(row.progress))
        if row.is_open:
            continue
        pushed: list[dict[str, Any]] = row.result.get("pushed") or []
        for one in pushed[tags:]:
            text = f"{one['tag']}: digest: {one['digest']} size: {one['size']}"
            aux = {"Tag": one["tag"], "Digest": one["digest"], "Size": one["size"]}
            await lines.send(status(text), {"progressDetail": {}, "aux": aux})
        try:
            check(row)
        except OperationFailed as error:
            await lines.fail(push_error(error))
        return await lines.end()
    raise ConnectionResetError("the client has left")


class Watch:
    """While it is entered this request watches the operation; leaves by cancelling it where the
    client has gone, nobody else watches and the API began it."""

    def __init__(self, lines: JsonLines, work: Operation) -> None:
        self._lines = lines
        self._work = work

    async def __aenter__(self) -> None:
        _watched[self._work.pk] += 1

    async def __aexit__(self, *_: object) -> None:
        _watched[self._work.pk] -= 1
        if _watched[self._work.pk]:
            return
        del _watched[self._work.pk]
        if self._lines.gone and self._work.args.get("via") == VIA:
            await surely(self._cancel())

    async def _cancel(self) -> None:
        with suppress(WrongState):  # it has ended by itself
            await orm(operations.cancel, self._work)


async def begun(lines: JsonLines, beginning: Coroutine[Any, Any, Operation]) -> Operation:
    """The operation; cancelled at once where the client left while its row was written."""
    task = asyncio.create_task(beginning)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        async with Watch(lines, await task):
            raise


def _auth(call: Call) -> str:
    """The key of the sign-in that came along, "" without one."""
    credentials = sign_in_of(call.request.headers.get("X-Registry-Auth", ""))
    return hand_over(call.config.run_dir, credentials) if credentials else ""


def _pulled_name(call: Call) -> str:
    name, tag = call.text("fromImage").removesuffix(":"), call.text("tag")
    if not name:
        raise InvalidInput("invalid reference format")
    if not tag:
        return name
    return f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"


def _has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]
