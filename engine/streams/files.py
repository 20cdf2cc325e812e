"""A container's files for a page: looked at, downloaded, put there; and what it has changed.

    open    {ask, path?, query?, kind?, page?, upload?}     ask: below
    look    a document: engine.containers.browse.Listing or Look of `path`
    changes a document: {counts, count, size, start, entries} of what fits `query` and `kind`
    get     found {name, size}, then the file's bytes, or a folder as a tar (size null)
    export  found {name, size null}, then the whole root as a tar, without volumes
    put     the complete upload `upload`, a tar, unpacked into the folder `path`; then its end

A document is JSON in BINARY frames. `busy` frames come while nothing else does. Reading and
writing are two actions of a ticket, for they are two permissions. The reader's pace is the
work's; when it hangs up, the work ends.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction

from engine.containers import browse
from engine.containers.archive import extract
from engine.containers.files import Root
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput, NotFound
from engine.models import Container, Upload
from engine.services import uploads
from engine.services.events import container_event
from engine.services.orm import orm
from engine.services.work import rooms
from engine.services.work.changes import container_changes
from engine.snapshots.changes import Change, Kind
from engine.snapshots.diff import write_tree
from engine.streams import follow
from engine.streams.follow import End, whole_number
from engine.streams.framing import FrameStream

_SENT = 64 * 1024
BUSY_SECONDS = 5.0
_WORDS = {Kind.ADDED: "added", Kind.MODIFIED: "changed", Kind.DELETED: "deleted"}
_T = TypeVar("_T")


class _Page(rooms.Caller):
    """Who asked, as the working thread sees them: bytes go out at their pace."""

    def __init__(self, frames: FrameStream) -> None:
        super().__init__()
        self._frames = frames

    def tell(self, **message: object) -> None:
        self.call(self._frames.send(message))

    def write(self, data: bytes) -> None:
        self.call(_send(self._frames, data))


async def read(frames: FrameStream, uid: str, request: dict[str, Any]) -> End:
    """Raises NotFound, WrongState, MountFailed."""
    container = await orm(_container, uid)
    return await follow.run(frames, _read(frames, container, request), _heard)


async def write(frames: FrameStream, uid: str, request: dict[str, Any]) -> End:
    """Raises Forbidden, NoSpace and what `read` does."""
    container = await orm(_container, uid)
    return await follow.run(frames, _put(frames, container, request), _heard)


async def _read(frames: FrameStream, container: Container, request: dict[str, Any]) -> End:
    page = _Page(frames)
    path, query = _text(request, "path") or "/", _text(request, "query")
    number = whole_number(request, "page", 1)
    event = ""
    match request.get("ask"):
        case "look":
            found = await _with_root(
                page, frames, container, _looked(path, container, query, number)
            )
            await _send(frames, json.dumps(found.to_json()).encode())
            event = "archive-path" if isinstance(found, browse.Look) and found.text else ""
        case "changes":
            kind = _text(request, "kind")
            name = f"changes-{container.uid[:12]}"
            work = rooms.in_thread(
                page, lambda: _changes(container, query, kind, number), name=name
            )
            await _send(frames, json.dumps(await _busy(frames, work)).encode())
        case "get":
            event = "archive-path"
            await _with_root(page, frames, container, _got(path, container, page))
        case "export":
            event = "export"
            await _with_root(page, frames, container, _exported(page), volumes=False)
        case other:
            raise InvalidInput(f"no such question: {other!r:.40}")
    if event:
        await orm(_happened, container, event)
    return {}


def _looked(
    path: str, container: Container, query: str, number: int
) -> Callable[[Root, ContainerSettings], browse.Listing | browse.Look]:
    return lambda root, settings: browse.look(root, path, container.name, query, number)


def _got(path: str, container: Container, page: _Page) -> Callable[[Root, ContainerSettings], None]:
    def work(root: Root, settings: ContainerSettings) -> None:
        with browse.found(root, path, container.name) as found:
            found.check()
            page.tell(t="found", name=found.name, size=found.size)
            found.write(page)

    return work


def _exported(page: _Page) -> Callable[[Root, ContainerSettings], None]:
    def work(root: Root, settings: ContainerSettings) -> None:
        page.tell(t="found", name="", size=None)
        write_tree(root.fd, b"", b"", page)

    return work


def _changes(container: Container, query: str, kind: str, number: int) -> dict[str, Any]:
    found = container_changes(container)
    wanted = os.fsencode(query.casefold())
    fitting = [one for one in found if wanted in os.fsencode(os.fsdecode(one.path).casefold())]
    counts = Counter(_WORDS[one.kind] for one in fitting)
    shown = [one for one in fitting if not kind or _WORDS[one.kind] == kind]
    start = browse.page_start(len(shown), number)
    return {
        "all": len(found),
        "counts": {word: counts[word] for word in _WORDS.values()},
        "count": len(shown),
        "size": sum(one.size for one in shown),
        "start": start,
        "entries": [_entry(one) for one in shown[start : start + browse.PAGE_SIZE]],
    }


def _entry(change: Change) -> dict[str, Any]:
    """`what` is the kind of file; "" where it is not there any more to be looked at."""
    return {
        "path": os.fsdecode(change.path),
        "kind": _WORDS[change.kind],
        "what": browse.kind_of(change.mode) if change.mode else "",
        "size": change.size,
    }


async def _put(frames: FrameStream, container: Container, request: dict[str, Any]) -> End:
    page = _Page(frames)
    path = _text(request, "path") or "/"
    upload = await orm(_upload, container, _text(request, "upload"))

    def work(root: Root, settings: ContainerSettings) -> None:
        with uploads.opened(upload) as descriptor, open(descriptor, "rb", closefd=False) as file:
            extract(
                root,
                path,
                container.name,
                _Watched(file, page),
                keep_kinds=True,
                owner=None,
                read_only=settings.host.read_only,
            )

    try:
        await _with_root(page, frames, container, work)
    finally:
        await asyncio.shield(orm(_forget, upload))
    await orm(_happened, container, "extract-to-dir")
    return {}


class _Watched:
    """An upload as it is read; not any more once nobody waits for it."""

    def __init__(self, file: Any, page: _Page) -> None:
        self._file = file
        self._page = page

    def read(self, size: int, /) -> bytes:
        self._page.check()
        data: bytes = self._file.read(size)
        return data


def _upload(container: Container, key: str) -> Upload:
    rows = Upload.objects.filter(namespace=container.namespace_id, complete=True)
    try:
        found = rows.filter(pk=UUID(key)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("the upload is not here any more", hint="upload it again", kind="upload")
    return found


def _forget(upload: Upload) -> None:
    uploads.upload_path(upload).unlink(missing_ok=True)
    upload.delete()


async def _with_root(
    page: _Page,
    frames: FrameStream,
    container: Container,
    work: Callable[[Root, ContainerSettings], _T],
    *,
    volumes: bool = True,
) -> _T:
    return await _busy(frames, rooms.with_root(container, page, work, volumes=volumes))


async def _busy(frames: FrameStream, work: Coroutine[Any, Any, _T]) -> _T:
    """Say now and then that it is being worked on: whoever waits knows it from a standstill."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=BUSY_SECONDS)
            if not task.done():
                await frames.send({"t": "busy"})
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _send(frames: FrameStream, data: bytes) -> None:
    for at in range(0, len(data), _SENT):
        await frames.send_bytes(data[at : at + _SENT])


async def _heard(message: dict[str, Any]) -> None:
    raise InvalidInput(f"no such message here: {message['t']}")


def _container(uid: str) -> Container:
    found = Container.objects.filter(uid=uid).first()
    if found is None:
        raise NotFound("the container is not here any more", kind="container")
    return found


def _happened(container: Container, action: str) -> None:
    with transaction.atomic():
        if Container.objects.filter(pk=container.pk).exists():
            container_event(container, action)


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name, "")
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is no text", field=name)
    return value
